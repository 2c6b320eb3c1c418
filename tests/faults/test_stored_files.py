"""Foreign bytes where a stored array or model should be: one line each, and nothing of them runs.

No format of this project can name code; what stands here are the ways in which others' can.
"""

import gzip
import io
import json
import pickle
import pickletools
import random
import shutil
import struct
import subprocess
import tarfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from facet.base.arrays import load_array, load_arrays, save_array, save_arrays
from facet.datasets.decode import decode_image
from facet.datasets.items import Items
from facet.datasets.sources import download
from facet.errors import InputError
from facet.prediction.trained_run import load_model, read_description
from tests.helpers import Project, decode_folder


class Caller:
    """Calls a function when it is unpickled, as malicious pickles do."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> Any:
        return self.call


def make_pickles(marker: Path) -> list[bytes]:
    """Pickles that would write `marker`, crash, hang or fill memory, and 200 mutants of them."""
    deep: Any = ()
    for _ in range(60):
        deep = (deep, deep)
    wide = b"\x80\x04" + b"(" * 10_000 + b"t" * 10_000 + b"."
    seeds = [
        pickle.dumps(Caller(marker.write_text, "run")),
        pickle.dumps(Caller(subprocess.call, ["touch", str(marker)])),
        pickle.dumps(Caller(eval, f"open({str(marker)!r}, 'w')")),
        pickle.dumps(Caller(np.ndarray, (1,), "O", b"AAAAAAAA")),
        pickle.dumps(np.array([Caller(marker.write_text, "run")], object)),
        pickle.dumps({"x": np.arange(9), "y": ["a"] * 9}),
        pickle.dumps(deep, 4),
        wide,
        b"\x80\x04\x8b\xff\xff\xff\x7f.",  # LONG4 of 2 GB
        b"\x80\x04r\xff\xff\xff\x7fN.",  # LONG_BINPUT
        f"cos\nsystem\n(S'touch {marker}'\ntR.".encode(),
        f"cbuiltins\nexec\n(Vopen({str(marker)!r}, 'w')\ntR.".encode(),
        f"(S'touch {marker}'\nios\nsystem\n.".encode(),
        b"\x80\x02c__builtin__\ngetattr\n.",
        b"\x80\x04\x8e" + struct.pack("<Q", 2**31) + b".",  # BINBYTES8 of 2 GB
        b"\x80\x05\x96" + struct.pack("<Q", 2**63 - 1) + b".",  # BYTEARRAY8 of all memory
        b"\x80\x04\x95" + struct.pack("<Q", 2**63 - 1) + b"N.",  # FRAME without end
        b"\x80\x02\x84\xff\xff\xff\x7f.",  # EXT4: a code of copyreg's
        b"Pfile:///etc/passwd\n.",  # PERSID
        f"(cos\nsystem\nS'touch {marker}'\no.".encode(),  # OBJ
        f"\x80\x04cos\nsystem\n(Vtouch {marker}\nt}}\x92.".encode("latin-1"),  # NEWOBJ_EX
        f"\x80\x02csys\nmodules\nVos\ncbuiltins\neval\nsVopen({str(marker)!r}, 'w')\n.".encode(
            "latin-1"
        ),  # SETITEM on a module's names
        b"\x80\x02cnumpy\nndarray\n)R}(V__array_interface__\nNub.",  # BUILD
        pickle.dumps([1]) + pickle.dumps(Caller(marker.write_text, "run")) * 3,  # one after another
        b"\xff\xfe" + pickle.dumps(Caller(marker.write_text, "run")),  # what is no opcode, first
        pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(Caller(marker.write_text, "run")),
    ]
    draw = random.Random(0)
    codes = [op.code.encode("latin-1") for op in pickletools.opcodes]
    mutants = []
    for i in range(200):
        content = bytearray(seeds[i % len(seeds)][:4000])
        for _ in range(draw.randint(1, 4)):
            place = draw.randrange(len(content))
            content[place : place + draw.randint(0, 2)] = draw.choice(codes)
        mutants.append(bytes(content))
    return seeds + mutants


def test_a_pickle_is_nowhere_taken_for_an_array(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    contents = make_pickles(marker)
    assert len(contents) >= 200
    for content in contents:
        for name, load in (("a.npy", load_array), ("a.npz", load_arrays)):
            (tmp_path / name).write_bytes(content)
            with pytest.raises(InputError, match=f"^{tmp_path}/{name}: ") as e:
                load(tmp_path / name)
            assert "\n" not in str(e.value)
    for wrap in (np.save, np.savez):
        file = io.BytesIO()
        wrap(file, np.array([Caller(marker.write_text, "run")], object), allow_pickle=True)  # type: ignore[operator]
        (tmp_path / "b").write_bytes(file.getvalue())
        for load in (load_array, load_arrays):
            with pytest.raises(InputError):
                load(tmp_path / "b")
    assert not marker.exists()


def make_wrapped(payload: bytes) -> dict[str, bytes]:
    """A pickle in what other programs open: archives, headers, files of two kinds at once."""

    def pack(*members: tuple[str, bytes]) -> bytes:
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            for name, content in members:
                archive.writestr(name, content)
        return file.getvalue()

    def pack_tar(name: str) -> bytes:
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w") as archive:
            (info := tarfile.TarInfo(name)).size = len(payload)
            archive.addfile(info, io.BytesIO(payload))
        return file.getvalue()

    def head(descr: str, shape: str) -> bytes:
        text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
        return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()

    torch = pack(
        ("archive/data.pkl", payload), ("archive/data/0", bytes(8)), ("archive/version", b"3")
    )
    member = pack(("x_train.npy", payload))
    at = member.index(b"PK\x01\x02")
    return {
        "torch": torch,
        "member": member,
        "pickle_and_zip": payload + torch,
        "zip_and_pickle": torch + payload,
        "inner_zip": pack(("x_train.npy", torch)),
        "checksum": member.replace(payload, payload[::-1]),
        "encrypted": member[:6] + b"\x01" + member[7 : at + 8] + b"\x01" + member[at + 9 :],
        "two_names": member.replace(b"x_train", b"y_train", 1),
        "no_directory": member[:at],
        "tar": pack_tar("pickle"),
        "tar_npy": pack_tar("a.npy"),
        "gzip": gzip.compress(payload),
        "seven_zip": b"7z\xbc\xaf\x27\x1c" + payload,
        "objects": head("'|O'", "(1,)") + payload,
        "objects_npz": pack(("x_train.npy", head("'|O'", "(1,)") + payload)),
        "record_of_objects": head("[('a', '|O')]", "(1,)") + payload,
        "numbers_and_pickle": head("'<i8'", "(1,)") + bytes(8) + payload,
        "call_in_header": head("__import__('os').system('true')", "(1,)") + payload,
        "escape_in_header": head("'\\e'", "(1,)") + payload,
        "deep_header": head("(" * 9000 + ")" * 9000, "(1,)") + payload,
        "no_size": head("'<U0'", "(1000000000000000,)"),
        "commas": head("'<i8'", "(" + "1" * 9000 + "x)"),
        "no_character": head("'<U1'", "(1,)") + b"\xff" * 4,
        "surrogate": head("'<U1'", "(1,)") + b"\x00\xd8\x00\x00",
        "shape": head("'<i8'", "(4611686018427387904, 4)"),
        "keras": pack(("config.json", payload), ("model.weights.h5", payload)),
        "hdf5": b"\x89HDF\r\n\x1a\n" + payload,
        "json": json.dumps({"py/object": "os.system", "py/reduce": payload.hex()}).encode(),
    }


@pytest.mark.filterwarnings("error")
def test_nothing_foreign_is_taken_for_anything_of_this_project(tmp_path: Path) -> None:
    """By any reader: each file a line that names it, within 2 seconds."""
    marker = tmp_path / "marker"
    payload = pickle.dumps(Caller(marker.write_text, "run"))
    contents = make_wrapped(payload) | {str(i): c for i, c in enumerate(make_pickles(marker)[:26])}

    def read_source(path: Path) -> Items:
        (folder := tmp_path / "raw").mkdir(exist_ok=True)
        download("a", path.as_uri(), folder, tmp_path / "cache" / path.name)
        return decode_folder(folder)

    def read_model(path: Path) -> Any:
        return load_model(path.parent)

    def describe(path: Path) -> Any:
        return read_description(path.parent)

    readers: dict[str, Callable[[Path], Any]] = {
        "a.npy": load_array,
        "a.npz": load_arrays,
        "b.npz": read_source,
        "c.zip": read_source,
        "d.tar": read_source,
        "model.keras": read_model,
        "model.json": describe,
        "e.png": decode_image,
    }
    for kind, content in contents.items():
        for name, read in readers.items():
            (tmp_path / name).write_bytes(content)
            started = time.monotonic()
            with pytest.raises(InputError) as e:
                read(tmp_path / name)
                pytest.fail(f"{kind} as {name} is accepted")
            assert time.monotonic() - started < 2, kind
            assert name in str(e.value)
            assert "\n" not in str(e.value)
            assert len(str(e.value)) < 600
            shutil.rmtree(tmp_path / "raw", ignore_errors=True)
            shutil.rmtree(tmp_path / "cache", ignore_errors=True)
    assert not marker.exists()


def test_a_mutant_of_an_array_is_refused_or_plain(tmp_path: Path) -> None:
    """Whatever bytes are changed: one line, or an array of numbers or text as long as its file."""
    save_array(whole := tmp_path / "whole.npy", np.arange(40, dtype="int64").reshape(8, 5))
    save_arrays(both := tmp_path / "both.npz", {"a": np.arange(9), "b": np.array(["x", "yy"])})
    draw = random.Random(1)
    for path, load in ((whole, load_array), (both, load_arrays)):
        good = path.read_bytes()
        for _ in range(600):
            content = bytearray(good)
            for _ in range(draw.randint(1, 3)):
                place = draw.randrange(min(len(content), 160))
                content[place : place + draw.randint(0, 2)] = draw.randbytes(draw.randint(0, 3))
            path.write_bytes(content)
            try:
                found = load(path)
            except InputError as e:
                assert str(e).startswith(f"{path}: ")  # noqa: PT017
                continue
            arrays = found.values() if isinstance(found, dict) else [found]
            assert sum(a.nbytes for a in arrays) <= len(content)
            assert all(a.dtype.kind in "biufU" for a in arrays)


# --- models ------------------------------------------------------------------------------------


@pytest.fixture
def folder(made_once: Project, tmp_path: Path) -> Path:
    """The folder of a run that was trained."""
    return Path(shutil.copytree(made_once.folder / "data/runs/plain-0", tmp_path / "plain-0"))


TABLE = {"columns": ["a", "b"], "mean": [0.5, 1.0], "spread": [1.0, 2.0]}


def edit(folder: Path, change: Callable[[Any], None], inside: str = "") -> None:
    """Change a run's model.json, or the JSON file `inside` its model."""
    path = folder / ("model.keras" if inside else "model.json")
    if not inside:
        tree = json.loads(path.read_text())
        change(tree)
        path.write_text(json.dumps(tree))
        return
    with zipfile.ZipFile(path) as members:
        parts = {name: members.read(name) for name in members.namelist()}
    tree = json.loads(parts[inside])
    change(tree)
    parts[inside] = json.dumps(tree).encode()
    with zipfile.ZipFile(path, "w") as members:
        for name, content in parts.items():
            members.writestr(name, content)


def set_key(*steps: Any) -> Callable[[Any], None]:
    """A change: the last of `steps` at the keys before it."""
    *keys, last, value = steps

    def change(tree: Any) -> None:
        for key in keys:
            tree = tree[key]
        tree[last] = value

    return change


DESCRIPTIONS = {
    "mean_too_short": set_key("input", TABLE | {"mean": [1.0]}),
    "mean_no_numbers": set_key("input", TABLE | {"mean": ["a", "b"]}),
    "mean_nan": set_key("input", TABLE | {"mean": [1.0, float("nan")]}),
    "spread_zero": set_key("input", TABLE | {"spread": [1.0, 0.0]}),
    "spread_gone": set_key("input", {k: v for k, v in TABLE.items() if k != "spread"}),
    "fill_too_long": set_key("input", TABLE | {"fill": [1.0] * 99}),
    "columns_no_list": set_key("input", TABLE | {"columns": "ab"}),
    "one_hot_widens": set_key("input", TABLE | {"one_hot": {"a": ["x", "y"]}}),
    "no_input": lambda t: t.pop("input"),
    "input_null": set_key("input", None),
    "input_empty": set_key("input", {}),
    "size_minus": set_key("input", {"size": [-1, 5], "mode": "L"}),
    "size_huge": set_key("input", {"size": [10**9, 10**9], "mode": "L"}),
    "size_of_three": set_key("input", {"size": [8, 8, 8], "mode": "L"}),
    "mode": set_key("input", {"size": [8, 8], "mode": "CMYK"}),
    "operation": set_key("input", {"size": [8, 8], "mode": "L", "operations": [{"melt": 1}]}),
    "no_heads": set_key("heads", {}),
    "heads_list": set_key("heads", ["a"]),
    "one_class": set_key("heads", {"pose": ["a"]}),
    "class_twice": set_key("heads", {"pose": ["a", "a"]}),
    "class_numbers": set_key("heads", {"pose": [1, 2]}),
    "seed_text": set_key("seed", "0"),
}


def test_the_descriptions_these_are_made_from_are_right(folder: Path) -> None:
    read_description(folder)
    edit(folder, set_key("input", TABLE))
    read_description(folder)


@pytest.mark.parametrize("name", DESCRIPTIONS)
def test_a_wrong_description_is_a_line(folder: Path, name: str) -> None:
    edit(folder, DESCRIPTIONS[name])
    with pytest.raises(InputError, match="not a run's description") as e:
        read_description(folder)
    assert str(e.value).startswith(f"{folder}/model.json: ")
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"{", b"[" * 50_000, b"\xff\xfe", b"{}"])
def test_a_description_that_is_no_json_of_ours_is_a_line(folder: Path, content: bytes) -> None:
    (folder / "model.json").write_bytes(content)
    with pytest.raises(InputError, match="not a run's description"):
        read_description(folder)


def put_softmax(tree: Any) -> None:
    """A layer that Keras would load, in the place of one that is built here."""
    layer = next(one for one in tree["config"]["layers"] if one["class_name"] == "ReLU")
    layer.update(class_name="Softmax", config={"name": layer["config"]["name"]})


MODELS = {
    "lambda": set_key("config", "layers", 1, "class_name", "Lambda"),
    "other_module": set_key("config", "layers", 1, "module", "os"),
    "layer_of_keras": put_softmax,
    "other_class": set_key("config", "layers", 1, "class_name", "TFSMLayer"),
    "function": lambda t: t["config"]["layers"][1]["config"].update(
        activation={"class_name": "function", "module": "builtins", "config": "eval"}
    ),
    "no_layers": set_key("config", "layers", []),
    "no_config": lambda t: t.pop("config"),
    "null": set_key("config", None),
    "deep": lambda t: t.update(config=json.loads("[" * 400 + "]" * 400)),
    "other_units": lambda t: next(
        layer for layer in t["config"]["layers"] if layer["class_name"] == "Dense"
    )["config"].update(units=7),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_foreign_model_is_a_line(folder: Path, name: str) -> None:
    edit(folder, MODELS[name], "config.json")
    with pytest.raises(InputError, match="not a whole model") as e:
        load_model(folder, read_description(folder))
    assert str(e.value).startswith(f"{folder}/model.keras: ")
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("share", [0, 0.3, 0.9, 0.999])
def test_a_model_cut_off_is_a_line(folder: Path, share: float) -> None:
    content = (folder / "model.keras").read_bytes()
    (folder / "model.keras").write_bytes(content[: int(share * len(content))])
    with pytest.raises(InputError, match="not a whole model"):
        load_model(folder)


def test_a_model_of_other_heads_is_not_taken_for_this_one(folder: Path) -> None:
    edit(folder, lambda t: t.update(heads={f"{h}x": c for h, c in t["heads"].items()}))
    with pytest.raises(InputError, match=r"it gives .*, model\.json says"):
        load_model(folder, read_description(folder))
