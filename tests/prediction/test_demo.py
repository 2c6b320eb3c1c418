"""The page of `facet demo`: by HTTP and in Debian's Chromium, on trained and made-up runs."""

import asyncio
import base64
import io
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import requests
from aiohttp import FormData
from aiohttp.test_utils import TestClient, TestServer
from PIL import Image

from facet.base.arrays import load_arrays
from facet.prediction.demo import Demo, describe_readings, make_application
from tests.helpers import CHROMIUM, Project


class Page(NamedTuple):
    """A page that is served, and the project that it is of."""

    address: str
    project: Project


@pytest.fixture(scope="module")
def served(made_once: Project) -> Iterator[Page]:
    """The page of plain-0, as the command serves it until Ctrl-C."""
    words = [sys.executable, "-m", "facet", "demo", "plain-0"]
    environment = os.environ | {"PYTHONPATH": ""}
    with subprocess.Popen(
        words, cwd=made_once.folder, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout
        yield Page(process.stdout.readline().partition(" ")[0], made_once)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130


def first_answer(project: Project) -> tuple[Path, dict[str, list[str]]]:
    """A test image, and by head the shares that the training gave its classes, largest first."""
    output = load_arrays(project.folder / "data/runs/plain-0/predictions.npz")
    image = project.folder / "data/faces/raw/images" / str(output["names_test"][0])
    shares = {h: sorted(100 * output[f"{h}_test"][0]) for h in ("eyes", "pose")}
    return image, {h: [f"{p:.1f} %" for p in reversed(s)] for h, s in shares.items()}


def send(served: Page, files: dict[str, Any]) -> requests.Response:
    return requests.post(served.address, files=files, timeout=60)


def shown(text: str) -> dict[str, list[str]]:
    """The shares that a page shows, by head."""
    cards = re.findall(r"<h3 [^>]*>(\w+): .*?</h3>(.*?)</section>", text, re.S)
    return {head: re.findall(r"[\d.]+ %", card) for head, card in cards}


def test_a_picture_is_answered_as_the_training_did(served: Page) -> None:
    assert served.address.startswith("http://127.0.0.1:")
    image, shares = first_answer(served.project)
    got = requests.post(
        served.address, files={"picture": (image.name, image.read_bytes())}, timeout=60
    )
    assert got.status_code == 200
    assert shown(got.text) == shares
    assert "default-src 'none'" in got.headers["Content-Security-Policy"]
    # How the heads did on the test part stands beside: a sure answer may be a guess.
    assert got.text.count("balanced accuracy") == 2

    # As it came, and as the network sees it: here both are the image's own pixels.
    pictures = re.findall(r'<img src="data:image/png;base64,([^"]*)"', got.text)
    assert len(pictures) == 2
    for picture in pictures:
        drawn = Image.open(io.BytesIO(base64.b64decode(picture)))
        assert np.array_equal(np.asarray(drawn), np.asarray(Image.open(image)))


def test_a_bad_upload_is_a_line_and_the_page_goes_on(served: Page) -> None:
    image, shares = first_answer(served.project)
    cut = image.read_bytes()[:40]
    bad: list[tuple[dict[str, Any], str]] = [
        ({"picture": ("<b>cut.png", cut)}, "<b>cut.png"),
        ({"picture": ("", b"")}, "no picture"),
        ({}, "no picture"),
    ]
    for files, named in bad:
        got = send(served, files)
        assert got.status_code == 400
        (line,) = re.findall(r'<p [^>]*role="alert">.*?</strong>(.*)</p>', got.text)
        assert named in unescape(line)
        assert "<b>" not in line
        assert "/tmp" not in line
    got = requests.post(
        served.address, files={"picture": (image.name, image.read_bytes())}, timeout=60
    )
    assert shown(got.text) == shares


def test_it_answers_no_other_name(served: Page) -> None:
    assert requests.get(served.address, timeout=60).status_code == 200
    other = requests.get(served.address, headers={"Host": "elsewhere.example"}, timeout=60)
    assert other.status_code == 403


@pytest.mark.browser
def test_in_a_browser(served: Page) -> None:
    from playwright.sync_api import sync_playwright

    image, shares = first_answer(served.project)
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(color_scheme="dark", viewport={"width": 360, "height": 740})
        requests: list[str] = []
        problems: list[str] = []
        page.on("request", lambda r: requests.append(r.url))
        page.on("console", lambda m: problems.append(m.text))
        page.on("pageerror", lambda e: problems.append(str(e)))
        page.goto(served.address)
        # By keyboard: the choice of a file, then the button.
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") == "picture"
        page.get_by_label("A picture").set_input_files(image)
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        page.wait_for_selector("#answer")
        assert shown(page.content()) == shares
        assert page.get_by_role("meter").count() == sum(map(len, shares.values()))
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert max(map(int, re.findall(r"\d+", background)[:3])) < 80  # dark

        # Dropped anywhere on the page, a picture is sent at once; a text is no picture.
        drop = """([name, bytes]) => {
            const moved = new DataTransfer();
            moved.items.add(new File([new Uint8Array(bytes)], name));
            document.querySelector("h1").dispatchEvent(
                new DragEvent("drop", {dataTransfer: moved, bubbles: true, cancelable: true}));
        }"""
        for name, content, selector in (
            ("notes.txt", b"words", "[role=alert]"),
            ("dropped.png", image.read_bytes(), "#answer"),
        ):
            page.evaluate(drop, [name, list(content)])
            page.wait_for_selector(f"{selector} >> text={name}")
        assert problems == [m for m in problems if "400" in m]  # the bad one's status
        assert all(url.startswith((served.address, "data:")) for url in requests)
        browser.close()


def made_up_demo() -> Demo:
    """A model of two readings that is the surer of `big` the larger the first is."""
    about: Any = {
        "dataset": "leaves",
        "input": {"columns": ["a", "b_c"], "mean": [1234.5678, 0.0], "spread": [2.0, 1.0]},
        "heads": {"size": ["small", "big"]},
    }

    def model(X: np.ndarray, training: bool) -> dict[str, np.ndarray]:
        assert not training
        return {"size": 1 / (1 + np.exp(-X[:, :1]))}

    return Demo("leaves-0", about, model, {})


def test_a_column_of_text_is_chosen_from_its_values() -> None:
    how: Any = {
        "columns": ["colour", "kind", "size"],
        "one_hot": {"colour": ["blue", "red"]},
        "ordinal": {"size": ["small", "medium", "large"]},
        "mean": [0.25, 0.75, 3.5, 1.6],
        "spread": [0.4, 0.4, 2.0, 0.5],
    }
    found = describe_readings(how)
    assert {name: (r.usual, r.choices) for name, r in found.items()} == {
        "colour": ("red", ["blue", "red"]),
        "kind": ("3.5", []),
        "size": ("large", ["small", "medium", "large"]),
    }
    assert "75%" in found["colour"].note

    about: Any = {"dataset": "leaves", "input": how, "heads": {"size": ["small", "big"]}}
    seen = []

    def model(X: np.ndarray, training: bool) -> dict[str, np.ndarray]:
        seen.append(X[0].tolist())
        return {"size": X[:, :1] * 0 + 0.5}

    async def talk() -> tuple[str, int, int]:
        server = TestServer(make_application(Demo("leaves-0", about, model, {})))
        async with TestClient(server) as client:
            page = await (await client.get("/")).text()
            sent = {"colour": "blue", "kind": "3.5", "size": "small"}
            good = await client.post("/", data=FormData(sent))
            bad = await client.post("/", data=FormData(sent | {"colour": "green"}))
            return page, good.status, bad.status

    page, good, bad = asyncio.run(talk())
    assert "<option selected>red</option>" in page
    assert "<option selected>large</option>" in page
    assert (good, bad) == (200, 400)
    np.testing.assert_allclose(seen, [[1.875, -1.875, 0.0, -3.2]], rtol=1e-6)


def test_readings_are_filled_with_the_means_and_standardised() -> None:
    async def talk() -> list[tuple[int, str]]:
        server = TestServer(make_application(made_up_demo()))
        async with TestClient(server) as client:
            got = [await client.get("/")]
            for a, b in (("1236.5678", "0"), ("1234.5678", "7"), ("", "0"), ("much", "0")):
                got.append(await client.post("/", data=FormData({"a": a, "b_c": b})))
            return [(g.status, await g.text()) for g in got]

    empty, larger, mean, absent, text = asyncio.run(talk())
    assert re.findall(r'name="([^"]*)" value="([^"]*)"', empty[1]) == [("a", "1235"), ("b_c", "0")]
    assert empty[1].count("<label for=") == 2
    assert shown(larger[1]) == {"size": ["73.1 %", "26.9 %"]}  # a spread above the mean
    assert ">size: big<" in larger[1]
    assert shown(mean[1]) == {"size": ["50.0 %", "50.0 %"]}
    assert 'value="7"' in mean[1]  # what was entered stays
    for status, page in (absent, text):
        assert status == 400
        assert re.search(r'role="alert">.* a\b.*</p>', page)
