"""Feed the readers of foreign files with mutated ones: `make fuzz`.

A reader may refuse a file by an InputError. Any other exception, a warning on the terminal, a
crash, more than 2 seconds or 500 MB is a finding. Its file is made smaller and kept in
tests/faults/seeds, which tests/faults/test_seeds.py reads again ever after.

`python -m tests.faults.fuzz TARGET FILE` shows what a file does.
"""

import contextlib
import hashlib
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

SEEDS = Path(__file__).parent / "seeds"
CORPUS = Path(".fuzz")  # what the fuzzer has come upon; git ignores it
SECONDS, MEGABYTES = 2, 500
INSTRUMENTED = ["facet", "PIL", "yaml", "zipfile", "tarfile", "numpy.lib"]
SEPARATOR = b"\n--\n"  # between the parts of a file that a target puts together


# --- what reads a file, and files to begin with ---------------------------------------------------


def read_array(content: bytes, folder: Path) -> None:
    """A stored array, and what is done with it: texts are read."""
    from facet.base.arrays import load_array

    (folder / "a.npy").write_bytes(content)
    load_array(folder / "a.npy").tolist()


def read_stored_arrays(content: bytes, folder: Path) -> None:
    """An .npz as the project writes it."""
    from facet.base.arrays import load_arrays

    (folder / "a.npz").write_bytes(content)
    for array in load_arrays(folder / "a.npz").values():
        array.tolist()


def read_npz(content: bytes, folder: Path) -> None:
    """A source of arrays."""
    from facet.datasets.array_files import read_arrays

    (folder / "a.npz").write_bytes(content)
    items = read_arrays(folder / "a.npz", folder / "pixels.npy", None, None)
    assert items.images is not None
    assert len(items.images[len(items.names) - 1])


def read_members(content: bytes, folder: Path) -> None:
    """The same, with the checksums of its members right."""
    names = ("x_train", "y_train", "x_test", "y_test")
    with zipfile.ZipFile(folder / "b.npz", "w") as archive:
        for name, part in zip(names, content.split(SEPARATOR), strict=False):
            archive.writestr(f"{name}.npy", part)
    whole = (folder / "b.npz").read_bytes()
    read_npz(whole, folder)
    read_stored_arrays(whole, folder)


def read_image(content: bytes, folder: Path) -> None:
    """An image by its content."""
    from facet.base.terminal import silence_native_output
    from facet.datasets.decode import decode_image

    (folder / "a.png").write_bytes(content)
    with silence_native_output():
        decode_image(folder / "a.png")


def read_table(content: bytes, folder: Path) -> None:
    """A table, to the numbers and labels of a data set."""
    from facet.base.config import Dataset
    from facet.datasets.normalisation import normalise
    from facet.datasets.tables import read_tables
    from tests.faults.test_tables import SPEC

    (folder / "a.csv").write_bytes(content)
    normalise(read_tables([folder / "a.csv"]), "t", Dataset.model_validate(SPEC))


def read_list(content: bytes, folder: Path) -> None:
    """The index of a folder, and its columns beside images."""
    from facet.base.config import Index
    from facet.base.names import RAW_INDEX, RAW_INDEX_COLUMN
    from facet.datasets.sources import Bounds, fetch_folder
    from facet.datasets.tables import join_index

    (folder / "to").mkdir()
    (folder / "from").mkdir()
    (folder / "from/a.png").write_bytes(b"?")
    (folder / "from" / RAW_INDEX).write_bytes(content)
    with ignoring_input_errors():
        fetch_folder(f"file://{folder}/from", folder / "to", Bounds(None))
    index = Index(file=RAW_INDEX, column=RAW_INDEX_COLUMN, unmatched="drop")
    join_index(["a.png", "b/a.png", "ü.png"], folder / "from" / RAW_INDEX, index)


def read_parameters(content: bytes, folder: Path) -> None:
    """params.yaml."""
    from facet.base.config import check_params, read_params

    (folder / "params.yaml").write_bytes(content)
    check_params(read_params(folder / "params.yaml"))


def read_zip(content: bytes, folder: Path) -> None:
    """A zip, unpacked."""
    _unpack(content, folder / "to/a.zip")


def read_tar(content: bytes, folder: Path) -> None:
    """A tar of any kind, unpacked."""
    _unpack(content, folder / "to/a.tar")


def _unpack(content: bytes, archive: Path) -> None:
    from facet.datasets.archives import unpack_archive

    archive.parent.mkdir()
    archive.write_bytes(content)
    try:
        unpack_archive(archive)
    except OSError as e:
        if not e.filename:  # it is what errors_in_a_line names
            raise
    assert os.listdir(archive.parent.parent) == ["to"]


def read_model(content: bytes, folder: Path) -> None:
    """A model's description."""
    from facet.prediction.trained_run import read_description

    (folder / "model.json").write_bytes(content)
    read_description(folder)


MODEL: dict[str, Any] = {
    "dataset": "d",
    "split": {"by": "random", "seed": 0, "test": 0.2, "validation": 0.2},
    "augment": {
        **{"copies": 1, "seed": 0, "rotate": 0.0, "shear": 0.0, "translate": 0.0, "zoom": 0.0},
        "elastic": 0.0,
        "flip": {"probability": 0.5, "swap": {"pose": ["a", "b"]}},
    },
    "heads": {"pose": ["a", "b"]},
    "identity": "78358c5d3895d33a",
    "declared": {},
    "experiment": "a",
    "seed": 0,
    "epochs": 1,
    "wandb": {"id": "a-0"},
    "parameters": 5,
    "multiply_adds": 5,
}


TARGETS: dict[str, Callable[[bytes, Path], None]] = {
    "array": read_array,
    "stored_arrays": read_stored_arrays,
    "npz": read_npz,
    "members": read_members,
    "image": read_image,
    "table": read_table,
    "list": read_list,
    "parameters": read_parameters,
    "zip": read_zip,
    "tar": read_tar,
    "model": read_model,
}


def make_seeds(target: str) -> Iterator[bytes]:
    """Files to begin with: good ones, the tests' bad ones, all that broke the reader once."""
    import numpy as np
    import yaml

    from tests.faults import test_archives, test_images, test_params, test_tables
    from tests.helpers import small_parameters

    x, y = map(test_archives.as_npy, (test_archives.IMAGES, test_archives.LABELS))
    text = test_archives.as_npy(np.array(["a", "ü", ""]))
    if target == "array":
        yield from (x, y, text, test_archives.as_npy(np.zeros((0, 3), "float32")))
    elif target in ("npz", "stored_arrays"):
        if target == "stored_arrays":  # not packed
            pairs = (("x.npy", x), ("y.npy", text))
            yield test_archives.make_zip(*pairs, method=zipfile.ZIP_STORED)
        yield from (test_archives.pair(x, y), test_archives.pair(x, text))
        yield from (content for _, content, _ in test_archives.BAD_ARRAYS)
    elif target == "members":
        yield from (SEPARATOR.join((x, y) * 2), SEPARATOR.join((x, text) * 2))
    elif target == "image":
        for kind in test_images.SUFFIXES:
            for mode in ("L", "RGB", "1") if kind != "WEBP" else ("RGB",):
                with contextlib.suppress(OSError):  # not every kind has every mode
                    yield test_images.draw(kind, mode)
        yield from (content for _, content, _ in test_images.bad_images())
    elif target == "table":
        yield test_tables.GOOD.encode()
        yield from (content for _, content, _ in test_tables.BAD)
    elif target == "list":
        yield '\ufefffiles,kind\na.png,x\nb/a.png,"y\nz"\nü.png,\n'.encode()
        yield from (text.encode() for text, _ in test_tables.BAD_INDEXES if len(text) < 10_000)
    elif target == "parameters":
        yield yaml.safe_dump(small_parameters("embedded")).encode()
        yield Path("params.yaml").read_bytes()
        yield from (t.encode() for t, _ in test_params.FILES.values() if len(t) < 3000)
    elif target in ("zip", "tar"):
        files = (("x/a.csv", test_archives.CSV), ("b.csv", b"x\n1\n"))
        if target == "zip":
            yield test_archives.make_zip(*files)
        else:
            for mode in ("w:", "w:gz", "w:bz2", "w:xz"):
                yield test_archives.make_tar(*((n, c, {}) for n, c in files), mode=mode)
        yield from (c for name, c, _ in test_archives.BAD if f".{target}" in name or "tgz" in name)
    elif target == "model":
        images = {"size": [8, 8], "mode": "L", "operations": [{"crop": [0, 0, 4, 4]}]}
        table = {"columns": ["a"], "mean": [0.5], "spread": [1.5], "fill": [0.5]}
        for how in (images, table, table | {"one_hot": {"a": ["x"]}}):
            yield json.dumps(MODEL | {"input": how}).encode()
    yield from (path.read_bytes() for path in sorted(SEEDS.glob(f"{target}-*")))


# --- one file -------------------------------------------------------------------------------------


@contextlib.contextmanager
def ignoring_input_errors() -> Iterator[None]:
    from facet.errors import InputError

    try:
        yield
    except InputError as e:
        if "\n" in str(e) or len(str(e)) > 2000:
            raise AssertionError(f"no line: {e}") from None


def run_target(target: str, content: bytes) -> None:
    """Read a file of this content. Raises whatever is a finding."""
    shown: list[Any] = []
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.process_time()
    with tempfile.TemporaryDirectory() as place, warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = lambda *shows, **_: shown.append(shows[0])
        with ignoring_input_errors():
            TARGETS[target](content, Path(place))
    assert not shown, f"it warns: {shown[0]}"
    seconds = time.process_time() - started
    assert seconds < SECONDS, f"it takes {seconds:.1f} s"
    megabytes = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) / 1024
    assert megabytes < MEGABYTES, f"it takes {megabytes:.0f} MB"


def import_all(target: str) -> None:
    """Have a target import what it needs, so that it is not measured."""
    with ignoring_input_errors(), tempfile.TemporaryDirectory() as place:
        TARGETS[target](next(make_seeds(target)), Path(place))


def show_fault(target: str, content: bytes) -> str:
    """The last line of what a file does to a reader, in a process of its own; "" if nothing."""
    with tempfile.NamedTemporaryFile() as file:
        Path(file.name).write_bytes(content)
        words = [sys.executable, "-m", "tests.faults.fuzz", target, file.name]
        try:
            done = subprocess.run(words, capture_output=True, text=True, timeout=60)
        except subprocess.TimeoutExpired:
            return "it does not end"
    return f"{done.returncode} {done.stderr.strip()[-300:]}" if done.returncode else ""


def make_smaller(target: str, content: bytes, seconds: float = 120) -> bytes:
    """A part of `content` that has the same kind of fault."""

    def kind(fault: str) -> str:
        return fault.rpartition("\n")[2].partition(":")[0]

    wanted, end = kind(show_fault(target, content)), time.monotonic() + seconds
    length = len(content) // 2
    while length and time.monotonic() < end:
        for start in range(0, len(content), length):
            less = content[:start] + content[start + length :]
            if kind(show_fault(target, less)) == wanted:
                content = less
                break
        else:
            length //= 2
    return content


# --- the fuzzer -----------------------------------------------------------------------------------


def fuzz_target(target: str, seconds: float) -> str:
    """Fuzz one reader in a process of its own. Returns the fault it met, "" if none."""
    corpus = CORPUS / target
    corpus.mkdir(parents=True, exist_ok=True)
    for content in make_seeds(target):
        (corpus / hashlib.sha1(content).hexdigest()).write_bytes(content)
    with tempfile.TemporaryDirectory() as place, (CORPUS / f"{target}.log").open("w") as log:
        words = [sys.executable, "-m", "tests.faults.fuzz", "--fuzz", target, str(corpus)]
        flags = [f"-max_total_time={int(seconds)}", f"-artifact_prefix={place}/", "-timeout=60"]
        flags += ["-rss_limit_mb=2000", "-max_len=20000", f"-seed={random.randrange(1, 2**31)}"]
        done = subprocess.run([*words, *flags], stdout=log, stderr=subprocess.STDOUT)
        found = [p.read_bytes() for p in Path(place).iterdir() if not p.name.startswith("slow")]
    if not found:
        return f"ended with {done.returncode}: {CORPUS}/{target}.log" if done.returncode else ""
    content = make_smaller(target, found[0]) if show_fault(target, found[0]) else found[0]
    seed = SEEDS / f"{target}-{hashlib.sha1(content).hexdigest()[:8]}"
    SEEDS.mkdir(exist_ok=True)
    seed.write_bytes(content)
    return f"{seed}: {show_fault(target, content)}"


def enter_fuzzer(target: str, words: list[str]) -> None:
    """Become libFuzzer, which ends this process."""
    import atheris

    def run(content: bytes) -> None:
        try:
            run_target(target, content)
        except Exception:
            # Watched code is slower: what is a fault is one without it too.
            if show_fault(target, content):
                raise

    with atheris.instrument_imports(include=INSTRUMENTED):
        import_all(target)
    atheris.Setup(["fuzz", *words], run)
    atheris.Fuzz()


def main() -> None:
    """Fuzz each reader for its share of the time; or show what a file does."""
    if sys.argv[1:2] == ["--fuzz"]:
        enter_fuzzer(sys.argv[2], sys.argv[3:])
    elif sys.argv[1:2] and sys.argv[1] in TARGETS:
        import_all(sys.argv[1])
        run_target(sys.argv[1], Path(sys.argv[2]).read_bytes())
    else:
        seconds = float(sys.argv[1]) / len(TARGETS)
        faults = {target: fuzz_target(target, seconds) for target in TARGETS}
        for target, fault in faults.items():
            print(f"{target}: {fault or 'nothing found'}")
        sys.exit(any(faults.values()))


if __name__ == "__main__":
    main()
