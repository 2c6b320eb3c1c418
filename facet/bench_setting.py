"""Time the course's own setting from end to end, its sources served on this machine.

They come in the layouts of those who publish them: the faces' archive within a zip, the fungi's zip
with a folder for each class, Keras's mnist.npz, the wine tables in a zip. Faces, digits and wine
are the real ones; the fungi are drawn, as many JPEGs as DeFungi has.
"""

import contextlib
import functools
import http.server
import os
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import yaml

from facet.bench_data import draw_image, peak_memory
from facet.config import read_params
from facet.errors import InputError
from facet.names import PARAMS_FILE
from facet.processor import usable_cores

FUNGI = {"H1": 4404, "H2": 2334, "H3": 819, "H5": 818, "H6": 739}  # DeFungi's images by class
IMAGES_OF_A_SAMPLE = 25


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder, in whole files: no ranges, as some servers do."""

    def log_message(self, *_: object) -> None:
        """Keep requests off the terminal."""


@contextlib.contextmanager
def serve_folder(folder: Path) -> Iterator[str]:
    """A web server of a folder on this machine; its URL."""
    handler = functools.partial(QuietHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


def pack_sources(real: Path, folder: Path) -> None:
    """Put the sources into `folder`, packed as they are published.

    `real` has digits/mnist.npz and, in uci/, faces.tar.gz and the wine tables.
    """
    with zipfile.ZipFile(folder / "faces.zip", "w") as archive:
        archive.write(real / "uci/faces.tar.gz", "faces.tar.gz")
    with zipfile.ZipFile(folder / "wine.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for color in ("red", "white"):
            archive.write(real / f"uci/winequality-{color}.csv", f"winequality-{color}.csv")
        archive.writestr("winequality.names", "what the columns are\n")
    os.symlink((real / "digits/mnist.npz").resolve(), folder / "mnist.npz")
    drawn = folder / "drawn"
    drawn.mkdir()
    kinds = [kind for kind, count in FUNGI.items() for _ in range(count)]
    with (
        ThreadPoolExecutor(usable_cores()) as pool,
        zipfile.ZipFile(folder / "fungi.zip", "w") as archive,
    ):
        # The drawn shapes tell the class, as `draw_image` numbers them.
        numbers = [number * 5 + list(FUNGI).index(kind) for number, kind in enumerate(kinds)]
        names = pool.map(functools.partial(draw_image, drawn), numbers)
        for number, (kind, name) in enumerate(zip(kinds, names, strict=True)):
            sample = number // IMAGES_OF_A_SAMPLE
            archive.write(drawn / name, f"{kind}/{kind}_{sample}a_{number}.jpg")
            (drawn / name).unlink()


def bench_setting(name: str, real: Path, run: str) -> None:
    """Clone this project's last commit, lay setting `name` over it, run it; print time and memory.

    `run` names experiments, all if empty. Raises InputError where `real` has no data, or a command
    fails.
    """
    if not (real / "uci").exists():
        raise InputError(f"{real}: no digits/mnist.npz and uci/ with the published files there")
    with tempfile.TemporaryDirectory() as place:
        served, clone = Path(place) / "served", Path(place) / "clone"
        served.mkdir()
        pack_sources(real, served)
        subprocess.run(["git", "clone", "--quiet", str(Path.cwd()), str(clone)], check=True)
        facet = [sys.executable, "-m", "facet"]
        subprocess.run([*facet, "setting", name], cwd=clone, check=True)
        with serve_folder(served) as url:
            tree = read_params(clone / PARAMS_FILE)
            sources = {
                "faces": f"zip://faces.tar.gz::simplecache::{url}/faces.zip",
                "fungi": f"{url}/fungi.zip",
                "digits": f"{url}/mnist.npz",
                "wine": f"{url}/wine.zip",
            }
            for dataset, source in sources.items():
                tree["datasets"][dataset]["source"] = source
            (clone / PARAMS_FILE).write_text(yaml.safe_dump(tree, sort_keys=False))
            words = [*facet, "repro", "--run", run]
            seconds, peak = peak_memory(words, cwd=clone, env=dict(os.environ), shown=True)
        print(
            f"setting {name}: {seconds / 60:.1f} minutes; at most {peak / 1024:.1f} GiB of "
            "anonymous memory, all processes together"
        )
