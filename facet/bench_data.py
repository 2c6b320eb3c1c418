"""Time the data path beside its peers: downloading, augmenting, many images in little memory."""

import asyncio
import importlib.util
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import psutil
import yaml
from aiohttp import web
from PIL import Image, ImageDraw

from facet.base.config import Augmentation, check_params
from facet.base.names import PACKAGES_FILE, PARAMS_FILE, RAW_INDEX
from facet.base.prepared import SplitData, StoredData
from facet.base.processor import CORES_VARIABLE, usable_cores
from facet.datasets import sources
from facet.datasets.augmentation import augment
from facet.memory import MIB, training_memory

KINDS = ("ring", "disc", "box", "bar", "dots")
# One experiment on JPEGs, six copies of each training image; what `bench_memory` runs.
LARGE = """
seeds: [0]
datasets:
  large:
    source: {source}
    size: [64, 64]
    read: {{parts: [kind, sample, number], mode: RGB}}
    heads: {{kind: {{part: kind}}}}
    group: {{sample: [kind, sample]}}
    split: {{by: sample, seed: 0, test: 0.25, validation: 0.15}}
    augment: {{copies: 6, rotate: 15, translate: 0.05, zoom: 0.1, flip: {{probability: 0.5}}}}
defaults: {{epochs: 1, batch: 32, threads: 1, learning_rate: 0.001, schedule: constant,
  class_weights: none}}
experiments:
  large_small:
    dataset: large
    network:
      trunk: [{{conv: 16, pool: 2}}, {{conv: 32, pool: 2}}, {{average: true}}]
      heads: {{each: [{{dense: 32}}]}}
comparisons: {{}}
"""


def take_turns(ways: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """What each way gives in each of `rounds`, the ways in turn."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            found[name].append(way())
    return found


def format_ratios(ours: list[float], theirs: list[float]) -> str:
    """The median of what ours is of theirs, round by round, and the smallest and largest."""
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    return f"ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def bench_augmenting(rounds: int) -> None:
    """Images a second in one process, 64x60 grey: ours, ours on one core, a loop around OpenCV."""
    rng, n, copies = np.random.default_rng(0), 624, 21
    images = rng.integers(0, 256, (n, 60, 64, 1), dtype="uint8")
    names = np.arange(n).astype(str)
    data = StoredData(
        {"heads": []},  # type: ignore[typeddict-item]
        {},
        {"train": SplitData(images, {}, names, names)},
    )
    how = Augmentation.model_validate(
        {"copies": copies, "rotate": 10, "translate": 0.06, "zoom": 0.08, "flip": {}}
    )

    def ours(cores: int) -> float:
        os.environ[CORES_VARIABLE] = str(cores)
        begun = time.perf_counter()
        made = sum(map(len, augment(data, how).splits["train"].X))
        del os.environ[CORES_VARIABLE]
        return (made - n) / (time.perf_counter() - begun)

    def loop() -> float:
        begun = time.perf_counter()
        for _ in range(copies - 1):
            for image in images:
                angle, scale = rng.uniform(-10, 10), rng.uniform(0.92, 1.08)
                matrix = cv2.getRotationMatrix2D((31.5, 29.5), angle, scale)
                shift = rng.uniform(-0.06, 0.06, 2) * (64, 60)
                matrix = np.column_stack([matrix[:, :2], matrix[:, 2] + shift])
                turned = cv2.warpAffine(image, matrix, (64, 60), borderMode=cv2.BORDER_REPLICATE)
                turned = turned[:, ::-1] if rng.random() < 0.5 else turned
        return n * (copies - 1) / (time.perf_counter() - begun)

    def albumentations() -> float:
        library = importlib.import_module("albumentations")

        change = library.Compose(
            [
                library.Affine(
                    scale=(0.92, 1.08), translate_percent=(-0.06, 0.06), rotate=(-10, 10), p=1
                ),
                library.HorizontalFlip(p=0.5),
            ]
        )
        begun = time.perf_counter()
        for image in images:
            change(image=image)
        return n / (time.perf_counter() - begun)

    ways = {
        "ours": lambda: ours(usable_cores()),
        "ours on one core": lambda: ours(1),
        "a loop around OpenCV": loop,
    }
    if importlib.util.find_spec("albumentations"):  # no dependency: measured where it is installed
        ways["Albumentations"] = albumentations
    found = take_turns(ways, rounds)
    for name, speeds in found.items():
        beside = f"; {format_ratios(found['ours'], speeds)}" if name != "ours" else ""
        print(f"augmenting: {name} {statistics.median(speeds):,.0f} images/s{beside}", flush=True)


@contextmanager
def serve_slowly(files: dict[str, bytes], seconds: float) -> Iterator[str]:
    """A web server on this machine that answers each request after so many seconds; its URL."""

    async def answer(request: web.Request) -> web.Response:
        await asyncio.sleep(seconds)
        content = files.get(request.path.lstrip("/"))
        return web.Response(status=404) if content is None else web.Response(body=content)

    loop = asyncio.new_event_loop()
    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(app)
    loop.run_until_complete(runner.setup())
    site = web.TCPSite(runner, "127.0.0.1", 0)
    loop.run_until_complete(site.start())
    port = runner.addresses[0][1]
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.run_until_complete(runner.cleanup())
        loop.close()


def bench_downloading(rounds: int, count: int = 624, seconds: float = 0.25) -> None:
    """Files that are each answered late, against one request after the other."""
    files = {f"images/{i}.png": b"x" * 4000 for i in range(count)}
    index = "files\n" + "\n".join(name.partition("/")[2] for name in files)

    def fetch(url: str) -> float:
        with tempfile.TemporaryDirectory() as place:
            folder, cache = Path(place) / "raw", Path(place) / "cache"
            folder.mkdir()
            begun = time.perf_counter()
            sources.download("late", url, folder, cache)
            return time.perf_counter() - begun

    with serve_slowly(files | {RAW_INDEX: index.encode()}, seconds) as url:
        taken = [fetch(url) for _ in range(rounds)]
    alone = [count * seconds] * rounds
    print(
        f"downloading: {count} files at {seconds * 1000:.0f} ms each: "
        f"{statistics.median(taken):.1f} s; one after the other {alone[0]:.0f} s or more; "
        f"{format_ratios(alone, taken)}"
    )


def draw_image(folder: Path, number: int) -> str:
    """Draw one JPEG of noise and shapes, 224x224 RGB; its name."""
    rng, kind = np.random.default_rng(number), number % len(KINDS)
    picture = Image.fromarray(rng.integers(90, 160, (28, 28, 3), dtype="uint8")).resize((224, 224))
    pen = ImageDraw.Draw(picture)
    for shape in range(3 + kind):
        x, y, r = (int(rng.integers(a, b)) for a, b in ((20, 200), (20, 200), (14, 45)))
        box, colour = (x - r, y - r, x + r, y + r), tuple(rng.integers(0, 256, 3).tolist())
        (pen.ellipse if (kind + shape) % 2 else pen.rectangle)(box, fill=colour)
    noise = rng.integers(-12, 13, (224, 224, 3))
    pixels = (np.asarray(picture).astype(int) + noise).clip(0, 255).astype("uint8")
    name = f"{KINDS[kind]}_{number // 25}_{number}.jpg"
    Image.fromarray(pixels).save(folder / name, quality=75)
    return name


def peak_memory(
    words: list[str], cwd: Path, env: dict[str, str], shown: bool = False, every: float = 0.05
) -> tuple[float, float]:
    """Seconds of a command, and the most anonymous memory of all its processes, in MiB.

    What forked processes share counts in each. The command's output is dropped unless `shown`.
    Looked at `every` so many seconds.
    """
    begun, peak = time.monotonic(), 0
    to = None if shown else subprocess.DEVNULL
    with subprocess.Popen(words, cwd=cwd, env=env, stdout=to, stderr=to) as process:
        while process.poll() is None:
            peak = max(peak, sum(map(_anonymous, _family(process.pid))))
            time.sleep(every)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, words)
    return time.monotonic() - begun, peak / 1024


def _family(pid: int) -> list[int]:
    try:
        return [pid, *(p.pid for p in psutil.Process(pid).children(recursive=True))]
    except psutil.NoSuchProcess:
        return []


def _anonymous(pid: int) -> int:
    """A process's anonymous memory, in KiB; outside Linux all that it holds."""
    try:
        if not psutil.LINUX:
            return int(psutil.Process(pid).memory_info().rss) >> 10
        found = re.search(r"RssAnon:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    except (OSError, psutil.Error):
        return 0
    return int(found[1]) if found else 0


def bench_memory(images: int) -> None:
    """Each stage over so many JPEGs of 224x224 RGB made 64x64, and over four times as many."""
    for count in (images, 4 * images):
        with tempfile.TemporaryDirectory() as at:
            drawn, place = Path(at) / "drawn/images", Path(at) / "project"
            drawn.mkdir(parents=True)
            place.mkdir()
            with ThreadPoolExecutor(usable_cores()) as pool:
                names = list(pool.map(partial(draw_image, drawn), range(count)))
            (drawn.parent / RAW_INDEX).write_text("files\n" + "\n".join(names) + "\n")
            text = LARGE.format(source=drawn.parent.as_uri())
            (place / PARAMS_FILE).write_text(yaml.safe_dump(yaml.safe_load(text)))
            (place / PACKAGES_FILE).write_bytes(PACKAGES_FILE.read_bytes())
            here = os.environ | {"PYTHONPATH": str(Path.cwd()), "WANDB_MODE": "disabled"}
            for stage, item in (
                *((s, "large") for s in ("download", "pickle", "normalise")),
                ("augment", "large_small"),
                ("train", "large_small-0"),
            ):
                words = [sys.executable, "-m", "stages", stage, item]
                seconds, peak = peak_memory(words, cwd=place, env=here)
                estimate = f" (estimated {_training_estimate()} MiB)" if stage == "train" else ""
                print(
                    f"memory: {count} images, {stage}: {seconds:.1f} s, {peak:.0f} MiB{estimate}",
                    flush=True,
                )


def _training_estimate() -> int:
    spec = check_params(yaml.safe_load(LARGE.format(source="embedded"))).experiments["large_small"]
    return training_memory(spec, (64, 64, 3), {"kind": len(KINDS)}) // MIB
