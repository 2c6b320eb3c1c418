"""Bad archives and array files: each is refused in one line, and nothing is written outside."""

import io
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from facet.datasets import archives, array_files
from facet.errors import InputError

CSV = b"x,y\n1,2\n"
IMAGES, LABELS = np.zeros((6, 4, 3), "uint8"), np.arange(6)


def make_tar(*members: tuple[str, bytes, dict[str, Any]], mode: str = "w:gz") -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as archive:  # type: ignore[call-overload]
        for name, content, more in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for key, value in more.items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


def make_zip(*members: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return file.getvalue()


def patch_zip(content: bytes, local: int, central: int, value: bytes) -> bytes:
    """A zip of one member with `value` in the fields at these places of its two headers."""
    out, at = bytearray(content), content.index(b"PK\x01\x02")
    out[local : local + len(value)] = value
    out[at + central : at + central + len(value)] = value
    return bytes(out)


def sparse_tar(size: int) -> bytes:
    """A tar of some bytes whose one member is `size` zeros."""
    info = tarfile.TarInfo("a.csv")
    info.pax_headers = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": "a.csv",
        "GNU.sparse.realsize": str(size),
    }
    data = f"1\n{size - 1}\n1\n".encode().ljust(512, b"\0") + b"x".ljust(512, b"\0")
    info.size = len(data)
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


def bad_archives() -> Iterator[tuple[str, bytes, str]]:
    """Names, bytes, and a word of the message that is due."""
    good = make_zip(("a.csv", CSV * 400))
    yield "encrypted.zip", patch_zip(good, 6, 8, b"\x01\x00"), "password"
    yield "deflate64.zip", patch_zip(good, 8, 10, b"\x09\x00"), "deflate64"
    yield "unknown_method.zip", patch_zip(good, 8, 10, b"\x63\x00"), "cannot be unpacked"
    yield "checksum.zip", patch_zip(good, 14, 16, b"\0\0\0\0"), "CRC"
    yield "longer.zip", patch_zip(good, 22, 24, struct.pack("<I", 10**6)), "cannot be unpacked"
    yield "garbled.zip", good[:60] + b"\xff" * 30 + good[90:], "cannot be unpacked"
    for share in (0.0, 0.1, 0.5, 0.97):
        yield f"cut_{share}.zip", good[: int(len(good) * share)], "cannot be unpacked"
    tars = {
        "tar": make_tar(("a.csv", CSV * 900, {}), mode="w:"),
        "tar.gz": make_tar(("a.csv", np.random.default_rng(0).bytes(9000), {})),
        "tar.bz2": make_tar(("a.csv", CSV * 900, {}), mode="w:bz2"),
        "tar.xz": make_tar(("a.csv", CSV * 900, {}), mode="w:xz"),
        "tgz": make_tar(("a.csv", np.random.default_rng(1).bytes(9000), {})),
    }
    for ending, whole in tars.items():
        for share in (0.0, 0.2, 0.6):
            yield f"cut_{share}.{ending}", whole[: int(len(whole) * share)], "cannot be unpacked"
        yield f"text.{ending}", b"not an archive", "cannot be unpacked"
        yield f"zip.{ending}", good, "cannot be unpacked"
    yield "nothing.zip", make_zip(), "holds no images, tables or arrays"
    yield "nothing.tar", make_tar(mode="w:"), "holds no images, tables or arrays"
    yield "other.zip", make_zip(("a.exe", b"MZ")), "holds no images, tables or arrays"
    yield "hidden.zip", make_zip((".a.csv", CSV)), "holds no images, tables or arrays"
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE):
        link = make_tar(("a.csv", b"", {"type": kind, "linkname": "/etc/passwd"}))
        yield f"link_{kind.decode()}.tar.gz", link, "holds no images, tables or arrays"
    for i, name in enumerate(("../a.csv", "/a.csv", "x/../../a.csv", "..\\a.csv")):
        yield f"outside_{i}.zip", make_zip((name, CSV)), "outside"
        if "\\" not in name:
            yield f"outside_{i}.tar.gz", make_tar((name, CSV, {})), "outside"
    for i, (a, b) in enumerate((("a.csv", "a.csv"), ("a.csv", "./a.csv"), ("a.csv", "A.CSV"))):
        yield f"twice_{i}.tar.gz", make_tar((a, CSV, {}), (b, CSV, {})), "same file"
    yield "twice.zip", make_zip(("x/a.csv", CSV), ("x\\a.csv", CSV)), "same file"
    yield "both.zip", make_zip(("a.csv", CSV), ("a.csv/b.csv", CSV)), "is a file and a folder"
    yield "sparse.tar.gz", sparse_tar(21_800_000_000), "#most=22GB"
    huge = patch_zip(good, 22, 24, struct.pack("<I", 4_000_000_000))
    yield "ratio.zip", huge, "#most=4GB"
    yield "long.zip", make_zip(("a" * 300 + ".csv", CSV)), "File name too long"


BAD = list(bad_archives())


@pytest.mark.parametrize(("name", "content", "expected"), BAD, ids=[name for name, _, _ in BAD])
def test_a_bad_archive_is_refused_in_a_line(
    tmp_path: Path, name: str, content: bytes, expected: str
) -> None:
    (folder := tmp_path / "a/b").mkdir(parents=True)
    (folder / name).write_bytes(content)
    with pytest.raises((InputError, OSError)) as e:
        archives.unpack_archive(folder / name)
    message = str(e.value)
    assert expected in message
    assert name in message or "too long" in expected
    assert "\n" not in message
    assert [p for p in tmp_path.rglob("*.csv") if not p.is_relative_to(folder)] == []
    assert sum(p.stat().st_size for p in tmp_path.rglob("*") if p.is_file()) < 10**6


def test_what_is_large_is_unpacked_where_its_address_says_so(tmp_path: Path) -> None:
    (tmp_path / "a.tar.gz").write_bytes(sparse_tar(1_500_000_000))
    with pytest.raises(InputError, match="most=2GB"):
        archives.unpack_archive(tmp_path / "a.tar.gz", 10**9)
    archives.check_size(tmp_path / "a.tar.gz", 1_500_000_000, 2 * 10**9)


def test_endings_are_read_in_any_case(tmp_path: Path) -> None:
    for name, content in (("A.ZIP", make_zip(("a.csv", CSV))), ("B.TAR.GZ", None)):
        (tmp_path / name).write_bytes(content or make_tar(("b.csv", CSV, {})))
        archives.unpack_archive(tmp_path / name)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.csv", "b.csv"]


def test_folders_of_a_zip_from_windows_are_folders(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(make_zip(("cat\\1.png", b"?"), ("dog\\1.png", b"?")))
    archives.unpack_archive(tmp_path / "a.zip")
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.png")) == [
        "cat/1.png",
        "dog/1.png",
    ]


# --- array files -------------------------------------------------------------------------------


def npy(header: str, data: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    """An .npy file with this header, whatever it says."""
    text = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY" + version + struct.pack("<H", len(text)) + text + data


def as_npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, array, allow_pickle=True)
    return file.getvalue()


def pair(x: bytes, y: bytes) -> bytes:
    names = (f"{name}_{part}.npy" for part in ("train", "test") for name in ("x", "y"))
    return make_zip(*zip(names, (x, y, x, y), strict=True))


def bad_arrays() -> Iterator[tuple[str, bytes, str]]:
    """Names, bytes, and a word of the message that is due."""
    x, y = as_npy(IMAGES), as_npy(LABELS)
    whole = pair(x, y)
    for share in (0.0, 0.3, 0.7, 0.98):
        yield f"cut_{share}", whole[: int(len(whole) * share)], "not a whole .npz"
    yield "text", b"x,y\n1,2\n", "not a whole .npz"
    yield "pickle", pickle.dumps({"x": [1]}), "not a whole .npz"
    yield "objects", pair(x, as_npy(np.array([{}] * 6, object))), "y_train"
    huge = "{'descr': '|u1', 'fortran_order': False, 'shape': (1000000000, 4, 3), }"
    yield "longer", pair(npy(huge, bytes(72)), y), "not as long as it says"
    yield "shorter", pair(x + bytes(9), y), "not as long as it says"
    for i, descr in enumerate(("'|O'", "'<c16'", "'<M8[s]'", "'|V4'", "[('a', '<i8')]", "'x'")):
        header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': (6,), }}"
        size = {0: 8, 1: 16, 2: 8, 3: 4, 4: 8, 5: 8}[i]
        yield f"labels_{i}", pair(x, npy(header, bytes(6 * size))), ".npz: "
    for i, header in enumerate(
        (
            "{'descr': '|u1', 'fortran_order': False}",
            "{'descr': '|u1', 'fortran_order': False, 'shape': (-6, 4, 3), }",
            "{'descr': '|u1', 'fortran_order': False, 'shape': (6.5,), }",
            "__import__('os').system('true')",
            "[" * 100,
            "",
        )
    ):
        yield f"header_{i}", pair(npy(header, bytes(72)), y), ".npz: "
    yield "version", pair(npy("{}", version=b"\x09\x00"), y), ".npz: "
    yield "few_labels", pair(x, as_npy(LABELS[:5])), "not one label for each of the 6"
    yield "two_labels", pair(x, as_npy(np.zeros((6, 2)))), "not one label for each of the 6"
    yield "nan", pair(x, as_npy(np.array([1, 2, np.nan, 4, 5, 6]))), "y_train[2] is no label"
    yield "empty_text", pair(x, as_npy(np.array(["a", "", "c", "d", "e", "f"]))), "y_train[1]"
    yield "bytes", pair(x, as_npy(np.array([b"\xff"] * 6))), "not UTF-8"
    for shape in ((6, 0, 3), (0, 4, 3), (6, 4), (6, 4, 3, 5), (6, 1, 4, 3, 1), (6,)):
        empty = pair(as_npy(np.zeros(shape, "uint8")), y)
        yield f"images_{len(shape)}_{shape[-1]}_{shape[0]}", empty, "holds no images"
    yield "fortran", pair(as_npy(np.asfortranarray(IMAGES)), y), "Fortran"
    yield "text_images", pair(as_npy(np.array([["a"] * 4] * 6)[:, :, None]), y), "no numbers"
    small = as_npy(np.zeros((11_000_000, 1, 1), "uint8"))
    yield "bomb", make_zip(("x_train.npy", small)), "MB packed"
    yield "name_twice", make_zip(("x_train", x), ("x_train.npy", x)), "two arrays x_train"
    yield (
        "no_character",
        pair(x, npy("{'descr': '<U1', 'fortran_order': False, 'shape': (6,), }", b"\xff" * 24)),
        "characters that there are not",
    )
    yield "no_labels", make_zip(("x_train.npy", x), ("x_test.npy", x)), "has no array y_train"


BAD_ARRAYS = list(bad_arrays())


def test_there_are_sixty() -> None:
    assert len(BAD) + len(BAD_ARRAYS) >= 60


@pytest.mark.parametrize(
    ("name", "content", "expected"), BAD_ARRAYS, ids=[n for n, _, _ in BAD_ARRAYS]
)
def test_bad_arrays_are_refused_in_a_line(
    tmp_path: Path, name: str, content: bytes, expected: str
) -> None:
    path = tmp_path / f"{name}.npz"
    path.write_bytes(content)
    with pytest.raises(InputError) as e:
        array_files.read_arrays(path, tmp_path / "pixels.npy", None, None)
    message = " ".join(str(e.value).split())
    assert message.startswith(f"{path}: ")
    assert expected in message
    assert len(message) < 600


@pytest.mark.parametrize("channels", [(), (1,), (2,), (3,), (4,)])
def test_images_of_an_array_have_any_usual_channels(
    tmp_path: Path, channels: tuple[int, ...]
) -> None:
    X = np.arange(6 * 4 * 3 * int(np.prod(channels, dtype=int)), dtype="uint8").reshape(
        (6, 4, 3, *channels)
    )
    path = tmp_path / "a.npz"
    path.write_bytes(pair(as_npy(X), as_npy(LABELS)))
    items = array_files.read_arrays(path, tmp_path / "pixels.npy", None, None)
    assert items.images is not None
    assert items.images[2].squeeze().tolist() == X[2].squeeze().tolist()
