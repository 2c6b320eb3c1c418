"""Time the course's own setting from end to end, its sources served on this machine.

They come in the layouts of those who publish them: the faces' archive within a zip, the fungi's zip
with a folder for each class, Keras's mnist.npz, the wine tables in a zip. Faces, digits and wine
are the real ones; the fungi are drawn, as many JPEGs as DeFungi has.
"""

import io
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import yaml

from facet.base.config import read_params
from facet.base.names import PARAMS_FILE
from facet.base.processor import usable_cores
from facet.bench_data import draw_image, peak_memory, serve_slowly
from facet.errors import InputError
from facet.setting import find_settings

# DeFungi's images by class.
FUNGI = {"H1": 4404, "H2": 2334, "H3": 819, "H5": 818, "H6": 739}
IMAGES_OF_A_SAMPLE = 25


def pack_sources(real: Path, fungi: dict[str, int] = FUNGI) -> dict[str, bytes]:
    """The sources as they are published, by the names of their files there.

    `real` has digits/mnist.npz and, in uci/, faces.tar.gz and the wine tables; `fungi` says how
    many are drawn of each class.
    """
    uci = real / "uci"
    return {
        "cmu+face+images.zip": _zip_files({"faces.tar.gz": (uci / "faces.tar.gz").read_bytes()}),
        "wine+quality.zip": _zip_files({p.name: p.read_bytes() for p in uci.glob("wine*.csv")}),
        "mnist.npz": (real / "digits/mnist.npz").read_bytes(),
        "defungi.zip": _zip_files(_draw_fungi(fungi)),
    }


def _zip_files(files: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return packed.getvalue()


def _draw_fungi(counts: dict[str, int]) -> dict[str, bytes]:
    kinds = [kind for kind, count in counts.items() for _ in range(count)]
    # The drawn shapes tell the class, as `draw_image` numbers them.
    numbers = [number * 5 + list(counts).index(kind) for number, kind in enumerate(kinds)]
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(usable_cores()) as pool:
        drawn = list(pool.map(partial(draw_image, Path(folder)), numbers))
        return {
            f"{kind}/{kind}_{i // IMAGES_OF_A_SAMPLE}a_{i}.jpg": (Path(folder) / name).read_bytes()
            for i, (kind, name) in enumerate(zip(kinds, drawn, strict=True))
        }


def move_sources(params: Path, url: str) -> None:
    """Have each data set of a parameters file take its published file from `url`, without pins.

    A file may have been packed anew since: the same items, other bytes.
    """
    tree = read_params(params)
    for dataset in tree["datasets"].values():
        dataset["source"] = re.sub(r"https://.*/([^/#]+)(#.*)?$", rf"{url}/\1", dataset["source"])
    params.write_text(yaml.safe_dump(tree, sort_keys=False))


def bench_setting(name: str, real: Path, run: str) -> None:
    """Clone this project's last commit, lay setting `name` over it, run it; print time and memory.

    `run` names experiments, all if empty. Raises InputError where `real` has no data, or a command
    fails.
    """
    find_settings(name)
    if not (real / "uci").exists():
        raise InputError(f"{real}: no digits/mnist.npz and uci/ with the published files there")
    with (
        tempfile.TemporaryDirectory() as clone,
        serve_slowly(pack_sources(real), seconds=0) as url,
    ):
        subprocess.run(["git", "clone", "--quiet", str(Path.cwd()), clone], check=True)
        facet = [sys.executable, "-m", "facet"]
        subprocess.run([*facet, "setting", name], cwd=clone, check=True)
        move_sources(Path(clone) / PARAMS_FILE, url)
        words = [*facet, "repro", "--run", run]
        seconds, peak = peak_memory(words, Path(clone), dict(os.environ), True, 0.5)
    print(
        f"setting {name}: {seconds / 60:.1f} minutes; at most {peak / 1024:.1f} GiB of "
        "anonymous memory, all processes together"
    )
