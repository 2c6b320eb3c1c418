"""The report: built from a tiny grid, read as text and in Debian's Chromium."""

import contextlib
import csv
import hashlib
import json
import math
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import yaml

from facet.base.arrays import save_arrays
from facet.base.names import AUGMENTED, METRICS, NORMALISED, RUN, SPLITS
from facet.base.prepared import SplitData, StoredData, save_prepared
from facet.base.storage import write_json
from facet.errors import InputError
from facet.report import dvc_page, page
from facet.report.results import read_rows
from facet.tracking import offline_records
from stages import compare, evaluate
from tests.helpers import CHROMIUM, ROOT, small_parameters, words_of

HEADS = {
    "faces": {"pose": ["left", "right"], "eyes": ["<b>open</b>", "sunglasses"]},
    "drinks": {"color": ["red", "white"], "kind": ["beer", "wine"]},
}
EXPERIMENTS = {"plain": "faces", "dropped": "faces", "flat": "drinks"}


def parameters() -> dict[str, Any]:
    """Two experiments on images dealt at random, one on a table; two seeds."""
    tree = small_parameters("embedded")
    tree["seeds"] = [0, 1]
    tree["datasets"]["faces"]["split"]["by"] = "random"
    split = {"by": "random", "seed": 0, "test": 0.25, "validation": 0.15}
    tree["datasets"]["drinks"] = {
        "source": "https://example.org/wine.csv",
        "size": None,
        "read": {},
        "heads": {"color": {"column": "color"}, "kind": {"column": "kind"}},
        "group": {},
        "split": split,
        "augment": {},
    }
    tree["experiments"]["flat"] = {"dataset": "drinks"}
    tree["comparisons"] |= {"eyes": tree["comparisons"]["dropout"] | {"head": "eyes"}}
    return tree


def make_data(dataset: str, rng: np.random.Generator) -> StoredData:
    """A normalised data set of 40 training and 32 test items; no test `kind` was trained on."""
    splits = {}
    for split, n in (("train", 40), ("validation", 8), ("test", 32)):
        shape = (n, 8, 8, 1) if dataset == "faces" else (n, 5)
        names = np.array([f"{split}-{i}" for i in range(n)])
        y = {head: np.arange(n) % 2 for head in HEADS[dataset]}
        X = rng.random(shape, dtype="float32")
        X = np.rint(X * 255).astype("uint8") if dataset == "faces" else X
        splits[split] = SplitData(X, y, names, names)
    if dataset == "drinks":
        splits["train"].y["kind"], splits["test"].y["kind"] = np.zeros(40, int), np.ones(32, int)
    classes = {head: np.array(names) for head, names in HEADS[dataset].items()}
    return StoredData({"heads": list(HEADS[dataset])}, classes, splits)  # type: ignore[typeddict-item]


def predictions(data: StoredData, wrong: dict[str, int]) -> dict[str, Any]:
    """Sure answers, of which the first `wrong[head]` on the test split are wrong."""
    test = data.splits["test"]
    out = {"names_test": test.names, "groups_test": test.groups}
    for head, errors in wrong.items():
        for split in SPLITS:
            y = data.splits[split].y[head].copy()
            if split == "test":
                out[f"{head}_truth"] = test.y[head]
                y[:errors] = 1 - y[:errors]
            out[f"{head}_{split}"] = np.eye(2, dtype="float32")[y] * 0.8 + 0.1
    return out


def curve_value(experiment: str, seed: int, column: str, epoch: int) -> float:
    """A value of a run's history; that of each run, column and epoch is another."""
    place = list(EXPERIMENTS).index(experiment)
    of_column = sum(map(ord, column)) % 97 / 1e4
    return round(0.1 * epoch + 0.05 * place + 0.02 * seed + of_column, 5)


@pytest.fixture(scope="session")
def _grid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    for name in ("dvc.yaml", "README.md", "requirements.lock"):
        shutil.copy2(ROOT / name, folder / name)
    tree = parameters()
    (folder / "params.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    rng = np.random.default_rng(0)
    outs = []
    # What the stages set of the environment ends with them.
    with mock.patch.dict(os.environ), contextlib.chdir(folder):
        data = {d: make_data(d, rng) for d in HEADS}
        for d in data:
            save_prepared(NORMALISED.format(d), [data[d]])
        for e, d in EXPERIMENTS.items():
            save_prepared(AUGMENTED.format(e), [data[d]])
            for seed in (0, 1):
                run = Path(RUN.format(f"{e}-{seed}"))
                run.mkdir(parents=True)
                # The head `eyes` errs on nearly all items, as on photos of a known sitting.
                wrong = {
                    "faces": {"pose": 16 if e == "plain" else 2 + seed, "eyes": 30},
                    "drinks": {"color": 4, "kind": 0},
                }[d]
                save_arrays(run / "predictions.npz", predictions(data[d], wrong))
                about = {
                    "experiment": e,
                    "dataset": d,
                    "seed": seed,
                    "heads": HEADS[d],
                    "split": tree["datasets"][d]["split"],
                    "epochs": 2,
                    "parameters": 1234,
                    "multiply_adds": 5678,
                    "wandb": {"id": f"{e}-{seed}-0a1b2c3d"},
                }
                (run / "model.json").write_text(json.dumps(about))
                columns = ["epoch", "loss", "val_loss"]
                columns += [f"{v}{h}_accuracy" for v in ("", "val_") for h in HEADS[d]]
                rows = [[n, *(curve_value(e, seed, c, n) for c in columns[1:])] for n in (1, 2)]
                with (run / "history.csv").open("w", newline="") as file:
                    csv.writer(file).writerows([columns, *rows])
                evaluate.main(f"{e}-{seed}")
                metrics = Path(METRICS.format(f"{e}-{seed}"))
                md5 = hashlib.md5(metrics.read_bytes()).hexdigest()
                outs += [
                    {"path": str(metrics), "md5": md5},
                    {"path": str(run), "md5": f"{e}{seed}.dir"},
                ]
        compare.main()
        Path("dvc.lock").write_text(yaml.safe_dump({"stages": {"all": {"outs": outs}}}))
        costs = {
            "train_seconds": 12.5,
            "peak_memory_bytes": 734003200,
            "wandb_id": "plain-0-0a1b2c3d",
        }
        write_json("metrics/costs/plain-0.json", costs)
        stages = {
            "train@plain-0": {"ran": True, "seconds": 13.0},
            "train@plain-1": {"ran": True, "seconds": 14.0},
            "download@faces": {"ran": False, "seconds": 3.0},
        }
        write_json("metrics/costs/stages.json", {"finished": "today", "stages": stages})
        for words in (
            "init -q",
            "add params.yaml",
            "-c user.name=t -c user.email=t@t commit -qm a",
        ):
            subprocess.run(["git", *words.split()], check=True)
    return folder


@pytest.fixture
def grid(_grid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the results of the tiny grid, the working directory."""
    folder = tmp_path / "grid"
    shutil.copytree(_grid, folder)
    monkeypatch.chdir(folder)
    monkeypatch.delenv("WANDB_DIR", raising=False)
    return folder


def html(changed: set[str] = frozenset()) -> str:  # type: ignore[assignment]
    return page.write_report(set(changed)).read_text()


def words(page: str) -> str:
    """What is read on the page, or a part of it, without scripts and tags."""
    page = re.sub(r"<(script|style).*?</\1>", " ", page, flags=re.S)
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", page)).split())


def part(page: str, id: str) -> str:
    """The element of the page that has this id."""
    found = re.search(rf'<(\w+)[^>]* id="{re.escape(id)}".*?</\1>', page, re.S)
    assert found, id
    return found[0]


def verdict(page: str, comparison: str) -> str:
    """The word beside a comparison's name."""
    found = re.search(r'class="badge [^"]*">([^<]*)<', part(page, f"comparison-{comparison}"))
    assert found
    return found[1]


def drawn(page: str) -> dict[str, Any]:
    """What the page's script draws: `charts`, and each data set's `confusion` and `gallery`."""
    found = re.search(r'<script [^>]*id="content">(.*?)</script>', page, re.S)
    assert found
    return json.loads(found[1])


def notes(page: str) -> list[str]:
    """What the page says first of what is missing or old."""
    return [words(n) for n in re.findall(r'<p class="note">.*?</p>', page, re.S)][1:]


def table(text: str) -> list[list[str]]:
    """The cells of the rows of all tables in a part of the page."""
    rows = re.findall(r"<tr.*?</tr>", text, re.S)
    return [[words(c) for c in re.findall(r"<t[hd].*?</t[hd]>", r, re.S)] for r in rows]


def test_each_comparison_has_its_verdict_and_its_figures(grid: Path) -> None:
    page = html()
    assert len(page.encode()) < 5e6
    found = json.loads((grid / "metrics/comparisons.json").read_text())
    assert verdict(page, "dropout") == found["dropout"]["verdict"] == "better"
    assert verdict(page, "eyes") == found["eyes"]["verdict"] == "no difference shown"
    sentence = words(part(page, "comparison-dropout"))
    c = found["dropout"]
    figures = [f"{c['candidate_mean']:.3f}", f"{c['baseline_mean']:.3f}", "0.500"]
    figures += [f"{v:+.3f}" for v in (c["difference"], *c["ci95"])]
    assert {"dropped", "plain", "pose", *figures} <= words_of(sentence)
    # Here the words' order is what is said.
    assert re.search(r"dropped is better than plain\b.* 0\.922 against 0\.500", sentence)
    assert (c["candidate_mean"], c["baseline_mean"]) == pytest.approx((0.921875, 0.5))
    # Of the other, neither network is above chance.
    assert "above chance" in words(part(page, "comparison-eyes"))
    assert "above chance" not in sentence


def test_four_words_are_explained_by_what_the_page_shows(grid: Path) -> None:
    found = part(html(), "words")
    assert re.findall("<dt>(.*?)</dt>", found) == ["Chance", "Interval", "Verdict", "Leak"]
    examples = [words(e) for e in re.findall(r'<dd class="soft">(.*?)</dd>', found, re.S)]
    c = json.loads((grid / "metrics/comparisons.json").read_text())["dropout"]
    # Nothing here is a leak, so that it has no example.
    assert len(examples) == 3
    assert f"{c['difference']:+.3f} [{c['ci95'][0]:+.3f}, {c['ci95'][1]:+.3f}]" in examples[1]
    assert "better: dropout; no difference shown: eyes" in examples[2]


def test_a_comparison_of_splits_says_so_and_why_it_was_made(grid: Path) -> None:
    tree = yaml.safe_load(Path("params.yaml").read_text())
    tree["comparisons"]["dropout"]["why"] = "Because <we> wondered."
    Path("params.yaml").write_text(yaml.safe_dump(tree))
    file = grid / "metrics/comparisons.json"
    found = json.loads(file.read_text())
    found["dropout"]["warning"] = "split: one is split by x and one by y"
    file.write_text(json.dumps(found))
    text = html()
    card = words(part(text, "comparison-dropout"))
    assert "Why: Because <we> wondered." in card
    assert "Warning: one is split by x and one by y." in card
    assert verdict(text, "dropout") == "another split"
    assert "dropout. dropped is tested on other items than plain" in words(part(text, "words"))


def test_a_warning_is_explained_by_its_split(grid: Path) -> None:
    text = html()
    (warning,) = re.findall(r'<article class="card warning">.*?</article>', text, re.S)[:1]
    assert {"faces", "eyes", "random"} <= words_of(words(warning))
    assert page.WARNING_MEANINGS["below_chance by random"] in words(warning)
    links = re.findall(r'href="#run-([^"]+)"', warning)
    assert links == ["plain-0", "plain-1", "dropped-0", "dropped-1"]


def test_each_run_leads_to_where_it_comes_from(grid: Path) -> None:
    file = grid / "metrics/runs/plain-1.json"
    file.write_text(file.read_text() + "\n")
    page = html()
    for run in ("plain-0", "plain-1", "dropped-1", "flat-0"):
        md5 = hashlib.md5((grid / f"metrics/runs/{run}.json").read_bytes()).hexdigest()
        row = part(page, f"run-{run}")
        assert md5 in row
        assert f"{run}-0a1b2c3d" in row
        assert f"{run.replace('-', '')}.dir" in row
        assert f'href="#run-{run}"' in page
        # What is not what dvc.lock says stands out.
        assert ("<strong>" in row) == (run == "plain-1")
    commit = subprocess.check_output(["git", "rev-parse", "HEAD"], text=True).strip()
    assert commit in part(page, "environment")
    assert "CC BY 4.0" in part(page, "environment")


def test_costs_and_stages_are_those_noted_here(grid: Path) -> None:
    page = html()
    costs = {row[0]: row for row in table(part(page, "data-faces")) if "1,234" in row}
    assert "12.5" in costs["plain"][4].split()[0]
    assert "700" in costs["plain"][5]
    assert not re.search(r"\d", costs["dropped"][4] + costs["dropped"][5])
    stages = {tuple(row[:2]): row[2:] for row in table(part(page, "pipeline"))}
    assert stages["train", "plain"][1] == "27.0"
    assert stages["download", "faces"][1] == "3.0"
    assert stages["train", "dropped"][1] == "not measured"
    assert part(page, "pipeline").count('<g class="ran">') == 1


def test_a_source_is_named(grid: Path) -> None:
    assert "https://example.org/wine.csv" in html()


def test_curves_are_those_of_each_experiments_runs(grid: Path) -> None:
    charts = drawn(html())["charts"].values()
    for dataset, heads in HEADS.items():
        for head in ("loss", *heads):
            (chart,) = (c for c in charts if c["title"] == f"{dataset}: {head}" and has(c, "epoch"))
            rows = {
                (r["experiment"], r["part"], r["epoch"]): (r["low"], r["mean"], r["high"])
                for r in chart["spec"]["data"]["values"]
            }
            column = "loss" if head == "loss" else f"{head}_accuracy"
            expected = {}
            for e in [e for e, d in EXPERIMENTS.items() if d == dataset]:
                for split, before in (("training", ""), ("validation", "val_")):
                    for n in (1, 2):
                        a, b = (curve_value(e, s, f"{before}{column}", n) for s in (0, 1))
                        expected[e, split, n] = pytest.approx((a, (a + b) / 2, b), abs=1e-5)
            assert rows == expected


def has(chart: dict[str, Any], field: str) -> bool:
    return field in [name for name, _ in chart["columns"]]


def test_figures_confusions_and_answers_are_those_of_the_runs(grid: Path) -> None:
    file = grid / "metrics/runs/plain-0.json"
    metrics = json.loads(file.read_text())
    # With as many items of each class both metrics are the same.
    metrics["heads"]["pose"] |= {"balanced_accuracy": 0.123, "balanced_chance": 0.4}
    file.write_text(json.dumps(metrics))
    content = drawn(html())
    runs = {
        f"{e}-{s}": json.loads((grid / f"metrics/runs/{e}-{s}.json").read_text())
        for e in EXPERIMENTS
        for s in (0, 1)
    }
    (chart,) = (
        c for c in content["charts"].values() if c["title"] == "faces: pose" and has(c, "chance")
    )
    shown = {
        (f"{r['experiment']}-{r['seed']}", r["metric"].replace(" ", "_")): r["value"]
        for r in chart["spec"]["data"]["values"]
        if "seed" in r
    }
    assert shown == {
        (run, metric): runs[run]["heads"]["pose"][metric]
        for run in ("plain-0", "plain-1", "dropped-0", "dropped-1")
        for metric in ("accuracy", "balanced_accuracy")
    }
    chance = {
        (r["experiment"], r["metric"]): r["chance"]
        for r in chart["spec"]["data"]["values"]
        if "chance" in r
    }
    assert chance["plain", "accuracy"] == 0.5
    assert chance["plain", "balanced accuracy"] == pytest.approx((0.4 + 0.5) / 2)
    for run, metrics in runs.items():
        e, seed = run.split("-")
        confusion = content["datasets"][metrics["dataset"]]["confusion"][e]
        for head in confusion:
            of_run = metrics["heads"][head]
            assert confusion[head]["classes"] == of_run["classes"]
            assert confusion[head]["seeds"][seed] == of_run["confusion"]
    answers = content["datasets"]["faces"]["gallery"]["answers"]["plain"]
    pose = answers["heads"]["pose"]
    assert answers["run"] == "plain-0"
    assert len(pose["right"]) == len(pose["wrong"]) == 9
    for item, true, predicted, percent in [*pose["right"], *pose["wrong"]]:
        number = int(item.removeprefix("test-"))
        assert true == HEADS["faces"]["pose"][number % 2]
        assert (predicted != true) == (number < 16)  # the first 16 are wrong
        assert percent == 90
    assert {item for item, *_ in pose["wrong"]} <= {f"test-{i}" for i in range(16)}


def test_what_files_say_is_text(grid: Path) -> None:
    file = grid / "metrics/runs/plain-0.json"
    metrics = json.loads(file.read_text())
    metrics["warnings"].append("odd: <i onclick=alert(1)>no class</i>")
    file.write_text(json.dumps(metrics))
    page = html()
    assert "<i onclick" not in page
    assert "&lt;i onclick=alert(1)&gt;no class" in page
    assert "<b>open</b>" not in page
    assert "\\u003cb\\u003eopen" in page
    assert not re.findall(r'(?:src|href)="(?!#|data:)', page.split("<script")[0])


def test_a_head_that_is_not_applicable_and_data_without_images(grid: Path) -> None:
    page = html()
    (row,) = (r for r in table(part(page, "data-drinks")) if r[:2] == ["flat", "kind"])
    assert row[2] == row[3] == "not applicable"
    assert row[4] == "2 not applicable"
    content = drawn(page)["datasets"]["drinks"]
    assert all(len(t) == 5 for t in content["gallery"]["tiles"].values())  # a table's readings
    assert list(content["confusion"]["flat"]) == ["color"]


def test_one_seed_is_no_claim(grid: Path) -> None:
    tree = parameters()
    tree["seeds"] = [1]
    (grid / "params.yaml").write_text(yaml.safe_dump(tree))
    compare.main()
    page = html()
    assert {verdict(page, c) for c in ("dropout", "eyes")} == {"no claim"}
    assert not re.search(r"\bbetter\b|\bworse\b", words(part(page, "comparison-dropout")))
    assert "one seed" in words(part(page, "comparison-dropout"))
    assert "One seed" in part(page, "data-faces")


def test_a_part_of_the_grid_and_results_that_have_changed_since(grid: Path) -> None:
    assert notes(html()) == []
    for path in ("metrics/runs/flat-1.json", "metrics/runs.csv", "metrics/curves.csv"):
        (grid / path).unlink()
    shutil.rmtree(grid / "data/runs/dropped-0")
    old, absent = notes(html({"train@flat-1", "evaluate@flat-1"}))
    assert {"2", "train@flat-1", "evaluate@flat-1"} <= words_of(old)
    assert {"1", "flat-1"} <= words_of(absent)

    # The comparisons were made of another result of plain-0 than the one that is here.
    (grid / "metrics/runs.csv").write_text(
        "run,dataset,experiment,head,verdict,wandb_id,md5,seed,accuracy,balanced_accuracy,chance,"
        "balanced_chance\nplain-0,faces,plain,pose,at chance,x,other,0,.5,.5,.5,.5\n"
    )
    remarks = part(html(), "comparison-dropout")
    assert "Older" in remarks
    assert "plain" in remarks.partition("Older")[2].partition("</p>")[0]


def test_a_training_that_diverged_leaves_a_gap(grid: Path) -> None:
    file = grid / "data/runs/plain-1/history.csv"
    file.write_text(re.sub(r"\n2,[^,]*", "\n2,nan", file.read_text()))

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} in the page's JSON, which no browser reads")

    text = re.search(r'id="content">(.*?)</script>', html(), re.S)[1]  # type: ignore[index]
    charts = json.loads(text, parse_constant=refuse)["charts"].values()
    (loss,) = (c for c in charts if c["title"] == "faces: loss")
    points = {
        (p["experiment"], p["part"], p["epoch"]): p["mean"] for p in loss["spec"]["data"]["values"]
    }

    def mean(experiment: str, epoch: int) -> float:
        return sum(float(curve_value(experiment, seed, "loss", epoch)) for seed in (0, 1)) / 2

    assert points["plain", "training", 1] == pytest.approx(mean("plain", 1))
    assert points["plain", "training", 2] is None
    assert points["dropped", "training", 2] == pytest.approx(mean("dropped", 2))


def test_only_an_empty_cell_is_missing(tmp_path: Path) -> None:
    (tmp_path / "runs.csv").write_text(
        "run,dataset,experiment,head,verdict,wandb_id,md5,seed,accuracy,balanced_accuracy,chance,"
        "balanced_chance\nNA-0,null,NA,nan,not applicable,,x,0,,,,\n"
    )
    (row,) = read_rows(tmp_path / "runs.csv").to_dict("records")
    assert (row["experiment"], row["dataset"], row["head"]) == ("NA", "null", "nan")
    assert row["wandb_id"] == ""
    assert math.isnan(row["accuracy"])


def test_a_clone_that_has_pulled_nothing_still_shows_the_figures(grid: Path) -> None:
    for folder in ("data", "metrics/runs", "metrics/costs"):
        shutil.rmtree(grid / folder)
    page = html()
    (note,) = notes(page)
    assert {"6", "metrics/runs.csv"} <= words_of(note)
    assert verdict(page, "dropout") == "better"
    (row,) = (r for r in table(part(page, "data-faces")) if r[:2] == ["dropped", "pose"])
    assert row[3].startswith("0.922")
    assert part(page, "pipeline").count('<g class="ran">') == 0


def test_without_results_or_with_a_broken_table_it_is_refused(grid: Path) -> None:
    shutil.rmtree(grid / "metrics/runs")
    table = (grid / "metrics/runs.csv").read_text()
    (grid / "metrics/runs.csv").write_text(table.replace("balanced_chance", "other"))
    with pytest.raises(InputError, match=r"^metrics/runs\.csv: .*balanced_chance"):
        html()
    (grid / "metrics/runs.csv").unlink()
    with pytest.raises(InputError, match=r"^metrics/runs\.csv: .*make repro.*dvc pull"):
        html()
    assert not (grid / "metrics/report.html").exists()


def test_wandbs_own_samples_are_drawn(grid: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import wandb, time\nr = wandb.init(id='plain-0-0a1b2c3d', mode='offline', config={})\n"
    code += "sum(range(10**7)); time.sleep(1.5)\nr.finish()\n"
    environment = {"WANDB_X_STATS_SAMPLING_INTERVAL": "0.1", "WANDB_SILENT": "true"}
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    subprocess.run([sys.executable, "-c", code], check=True, cwd=grid, timeout=60)
    assert offline_records.record_files(id="plain-0-0a1b2c3d")
    charts = drawn(html())["charts"].values()
    found = [c for c in charts if has(c, "samples") and "memory" in c["title"]]
    values = found[0]["spec"]["data"]["values"]
    assert {v["run"] for v in values} == {"plain-0"}
    assert all(1 < v["value"] < 20_000 for v in values)  # MiB of a small Python process
    assert found[0]["rows"][0]["samples"] == len(values)


@pytest.fixture
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    flags = [
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--disable-component-update",
        "--no-first-run",
    ]
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield browser
        browser.close()


def test_in_a_browser(grid: Path, browser: Any) -> None:
    html()
    problems: list[str] = []
    requests: list[str] = []
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    page = context.new_page()
    page.on("console", lambda m: problems.append(m.text))
    page.on("pageerror", lambda e: problems.append(str(e)))
    page.on("dialog", lambda d: problems.append(d.message))
    page.on("request", lambda r: requests.append(r.url))
    page.goto((grid / "metrics/report.html").as_uri())
    page.wait_for_selector("html[data-drawn]", timeout=60_000)
    plots = page.locator(".plot")
    assert plots.count() == page.locator(".plot svg").count() > 10

    # A variant switched off is in no plot and no table of its data set; by keyboard.
    faces = page.locator("#data-faces")
    marks = "#data-faces .plot [aria-roledescription=point][aria-label*='experiment: dropped']"
    assert page.locator(marks).count() > 0
    faces.get_by_role("checkbox", name="dropped").focus()
    page.keyboard.press("Space")
    page.wait_for_function("s => !document.querySelector(s)", arg=marks)
    assert not faces.locator("table.figures tr[data-experiment=dropped]").first.is_visible()
    page.keyboard.press("Space")
    page.wait_for_function("s => document.querySelector(s)", arg=marks)

    # The other figure.
    before = faces.locator(".plot svg").first.inner_html()
    faces.get_by_role("combobox", name="Figure").select_option("accuracy")
    page.wait_for_function(
        "old => document.querySelector('#data-faces .plot svg').innerHTML !== old", arg=before
    )

    # Confusion and gallery: experiment, head, one seed or all.
    faces.get_by_role("combobox", name="experiment").select_option("plain")
    faces.get_by_role("combobox", name="head").select_option("pose")
    faces.locator("details.confusion summary").click()
    rows = faces.locator("details.confusion tbody tr")

    def shown() -> dict[tuple[str, str], int]:
        cells = [r.locator("th, td").all_inner_texts() for r in rows.all()]
        return {(true, predicted): int(n) for true, predicted, n, _ in cells}

    def counted(*runs: str) -> dict[tuple[str, str], int]:
        found: Counter[tuple[str, str]] = Counter()
        for run in runs:
            m = json.loads((grid / f"metrics/runs/{run}.json").read_text())["heads"]["pose"]
            for i, true in enumerate(m["classes"]):
                for j, predicted in enumerate(m["classes"]):
                    found[true, predicted] += m["confusion"][i][j]
        return dict(found)

    assert shown() == counted("plain-0", "plain-1")
    faces.get_by_role("combobox", name="experiment").select_option("dropped")
    faces.get_by_role("combobox", name="seed").select_option("1")
    assert shown() == counted("dropped-1")
    assert counted("dropped-1")["left", "right"] != counted("dropped-1")["right", "left"]
    assert faces.locator(".from a").get_attribute("href") == "#run-dropped-1"
    faces.get_by_role("combobox", name="experiment").select_option("plain")
    assert faces.locator(".gallery h4").nth(1).inner_text().startswith("Wrong")
    assert faces.locator(".gallery li").count() == 18
    assert faces.locator(".gallery img").first.get_attribute("alt").startswith("test item test-")
    faces.get_by_role("combobox", name="head").select_option("eyes")
    assert "<b>open</b>" in faces.locator(".gallery").inner_text()

    # Beside each plot its table, by keyboard.
    for summary in page.query_selector_all("details.table:not([open]) summary"):
        summary.focus()
        page.keyboard.press("Enter")
    page.wait_for_function(
        "[...document.querySelectorAll('details.table')].every(d => d.open && "
        "d.querySelector('table caption') && d.querySelector('tbody tr'))"
    )

    # From a number to its run, and from a hash to its run.
    faces.locator("table.figures a").first.click()
    assert page.locator("tr:target").is_visible()
    page.get_by_label("Find a run").fill("dropped-1-0a1b")
    assert page.locator("#identities tbody tr:visible").count() == 1
    faces.locator("table.figures a").first.click()
    assert page.locator("tr:target").is_visible()

    for width in (390, 820, 1440):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.emulate_media(color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != paper
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == paper
    assert page.pdf().startswith(b"%PDF")
    for image in page.locator("img").all():
        assert image.get_attribute("alt")
    assert page.locator(".plot[role=graphics-document][aria-label]").count() == plots.count()
    assert problems == []
    assert [u for u in requests if not u.startswith(("file:", "data:"))] == []


# Opens every details; what is then drawn of the page's own data is there when it returns.
OPEN_ALL = """async () => {
  for (const d of document.querySelectorAll("details")) d.open = true;
  const ready = () => [...document.querySelectorAll("details.table")].every(
    (d) => d.querySelector("table"));
  while (!ready()) await new Promise(requestAnimationFrame);
}"""


def open_report(browser: Any, grid: Path, width: int = 1280, scheme: str = "light") -> Any:
    """The report of `grid` in a new window, drawn."""
    viewport = {"width": width, "height": 900}
    page = browser.new_page(viewport=viewport, color_scheme=scheme)
    page.goto((grid / "metrics/report.html").as_uri())
    page.wait_for_selector("html[data-drawn]", timeout=60_000)
    return page


@pytest.mark.parametrize(
    ("width", "scheme"),
    [
        (1280, "light"),
        (390, "dark"),
        pytest.param(1280, "dark", marks=pytest.mark.slow),
        pytest.param(390, "light", marks=pytest.mark.slow),
    ],
)
def test_axe_finds_nothing(grid: Path, browser: Any, width: int, scheme: str) -> None:
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright",
        reason="axe-playwright-python is not here: make env",
    ).Axe()
    html({"train@flat-1"})
    found = []
    page = open_report(browser, grid, width, scheme)
    for state in ("closed", "open"):
        if state == "open":
            page.evaluate(OPEN_ALL)
        result = axe.run(page).response
        assert len(result["passes"]) > 30
        found += [
            (state, v["impact"], v["id"], [n["html"][:200] for n in v["nodes"]])
            for v in result["violations"]
        ]
    assert found == []


def test_by_keyboard_alone(grid: Path, browser: Any) -> None:
    html()
    page = open_report(browser, grid, 820)

    def focused(code: str) -> Any:
        return page.evaluate(f"(() => {{ const e = document.activeElement; return {code}; }})()")

    # What one first comes to skips the list of sections.
    page.keyboard.press("Tab")
    assert focused("e.matches('.skip') && e.getBoundingClientRect().left >= 0")
    page.keyboard.press("Enter")
    assert focused("e.id") == "verdicts"
    page.keyboard.press("Tab")
    assert focused("e.matches('#verdicts a')")

    # All controls, and all that scrolls, in the order in which they are read; each shows the focus.
    page.evaluate(OPEN_ALL)
    count = page.evaluate(
        """() => {
          const all = "a[href], button, input, select, summary, [tabindex='0']";
          const found = [...document.querySelectorAll(all)].filter((e) => e.checkVisibility());
          found.forEach((e, i) => (e.dataset.order = i));
          return found.length;
        }"""
    )
    page.evaluate("scrollTo(0, 0); document.activeElement.blur()")
    page.locator(".skip").focus()
    walked = []
    for _ in range(count):
        walked.append(
            focused(
                "[Number(e.dataset.order), e.outerHTML.slice(0, 80),"
                " getComputedStyle(e).outlineStyle, parseFloat(getComputedStyle(e).outlineWidth)]"
            )
        )
        page.keyboard.press("Tab")
    assert [w[0] for w in walked] == list(range(count)), walked
    assert [w for w in walked if w[2] == "none" or w[3] < 2] == []
    assert count > 100

    # Links move the focus: from a figure to its run, from a section's name to the section.
    page.locator("table.figures a").first.focus()
    page.keyboard.press("Enter")
    assert focused("e.id") == "run-plain-0"
    page.locator("nav a[href='#runs']").focus()
    page.keyboard.press("Enter")
    assert focused("e.id") == "runs"
    page.keyboard.press("Tab")
    page.keyboard.type("dropped-1")
    assert page.locator("#found[aria-live]").inner_text() == "1 of 6 runs"

    # A list of choices.
    page.locator("#data-faces select.experiment").focus()
    page.keyboard.press("ArrowDown")
    page.wait_for_function("document.querySelector('.from').innerText.includes('dropped')")


def test_on_paper(grid: Path, browser: Any) -> None:
    html()
    page = open_report(browser, grid, 703, "dark")  # the width of A4 less its margins
    seen = page.evaluate("document.body.innerText")
    page.emulate_media(media="print", color_scheme="dark")
    printed = page.evaluate("document.body.innerText")
    # All words of tables and sentences, and those that a click would show.
    parts = "main p, main td, main th, main li, main dd"
    lost = page.evaluate(
        """(parts) => [...document.querySelectorAll(parts)].filter((e) =>
          e.innerText.trim() && !e.closest(".looking, .table") &&
          !e.checkVisibility({ contentVisibilityAuto: true, visibilityProperty: true })
        ).map((e) => e.outerHTML.slice(0, 100))""",
        parts,
    )
    assert lost == []
    meaning = "A class is missing from a part."
    assert meaning not in seen
    assert meaning in printed
    # Nothing is cut at the right.
    cut = page.evaluate(
        """() => [...document.querySelectorAll("table, svg, img, code, p")].filter((e) =>
          e.checkVisibility() && e.getBoundingClientRect().right > innerWidth + 1
        ).map((e) => e.outerHTML.slice(0, 100))"""
    )
    assert cut == []
    backgrounds = page.evaluate(
        """() => [...new Set([...document.querySelectorAll("*")].filter((e) => e.checkVisibility())
          .map((e) => getComputedStyle(e).backgroundColor))]"""
    )
    assert set(backgrounds) <= {"rgba(0, 0, 0, 0)", "rgb(255, 255, 255)"}
    pages = len(re.findall(rb"/Type\s*/Page\b", page.pdf(prefer_css_page_size=True)))
    assert 6 <= pages <= 20


def test_experiments_that_differ_in_what_they_augment(grid: Path) -> None:
    tree = parameters()
    tree["datasets"]["faces"]["augment"]["experiments"] = {"dropped": {"copies": 1}}
    (grid / "params.yaml").write_text(yaml.safe_dump(tree))
    page = html()
    assert ["augment.copies", "2", "1"] in table(part(page, "comparison-dropout"))
    assert "augment.copies: 1" in words(part(page, "data-faces"))


def test_the_page_of_dvcs_plots_is_what_vl_convert_gives() -> None:
    same = dvc_page.PAGE.read_text(encoding="utf-8") == dvc_page.make_page()
    assert same, "write it anew: python -m facet.report.dvc_page"
