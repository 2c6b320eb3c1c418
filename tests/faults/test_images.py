"""Bad images: each is refused in one line that names it, or decoded as what it is."""

import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from facet.datasets import decode
from facet.errors import InputError

SUFFIXES = {
    "BMP": "bmp",
    "GIF": "gif",
    "JPEG": "jpg",
    "PNG": "png",
    "PPM": "ppm",
    "TIFF": "tif",
    "WEBP": "webp",
}
# What is no image of ours, whatever it is called, by its first bytes.
STRANGERS = {
    "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n",
    "pdf": b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n",
    "svg": b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>",
    "html": b"<!doctype html><title>Not found</title>",
    "text": b"this is a picture of a face\n",
    "empty": b"",
    "zeros": bytes(4096),
    "zip": b"PK\x05\x06" + bytes(18),
    "gzip": b"\x1f\x8b\x08" + bytes(20),
    "tar": b"a.png".ljust(257, b"\0") + b"ustar\x0000" + bytes(800),
    "pickle": b"\x80\x04\x95\x05\x00\x00\x00\x00\x00\x00\x00K\x01.",
    "npy": b"\x93NUMPY\x01\x00v\x00{'descr': '|u1'}" + bytes(90),
    "elf": b"\x7fELF\x02\x01\x01" + bytes(57),
    "icon": b"\x00\x00\x01\x00\x01\x00\x10\x10" + bytes(40),
    "cursor": b"\x00\x00\x02\x00\x01\x00\x10\x10" + bytes(40),
    "psd": b"8BPS\x00\x01" + bytes(30),
    "heic": b"\x00\x00\x00\x18ftypheic" + bytes(30),
    "avif": b"\x00\x00\x00\x18ftypavif" + bytes(30),
    "jpeg2000": b"\x00\x00\x00\x0cjP  \r\n\x87\n" + bytes(40),
    "fits": b"SIMPLE  =                    T".ljust(2880),
    "xbm": b"#define a_width 8\n#define a_height 8\nstatic char a_bits[] = {0};\n",
    "xpm": b'/* XPM */\nstatic char *a[] = {\n"1 1 1 1",\n"a c #000000",\n"a"};\n',
    "pcx": b"\x0a\x05\x01\x08" + bytes(130),
    "sgi": b"\x01\xda\x00\x01" + bytes(520),
    "sun": b"\x59\xa6\x6a\x95" + bytes(40),
    "dds": b"DDS \x7c\x00\x00\x00" + bytes(130),
    "qoi": b"qoif\x00\x00\x00\x04\x00\x00\x00\x04\x03\x00" + bytes(20),
    "wmf": b"\xd7\xcd\xc6\x9a" + bytes(40),
    "blp": b"BLP2" + bytes(160),
    "gribber": b"GRIB" + bytes(40),
    "hdf5": b"\x89HDF\r\n\x1a\n" + bytes(60),
    "fli": bytes([0, 0, 0, 0, 0x11, 0xAF]) + bytes(130),
    "mpeg": b"\x00\x00\x01\xb3" + bytes(40),
    "riff": b"RIFF\x24\x00\x00\x00WAVEfmt " + bytes(40),
}


def draw(kind: str, mode: str = "RGB") -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 20, 3), "uint8")
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, kind)
    return file.getvalue()


def png_chunk(kind: bytes, content: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + checksum


def png(width: int, height: int, depth: int, color: int, data: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    parts = png_chunk(b"IHDR", header), png_chunk(b"IDAT", data), png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def bad_images() -> Iterator[tuple[str, bytes, str]]:
    """Names, bytes, and a word of the message that is due."""
    for name, content in STRANGERS.items():
        yield f"{name}.png", content, "not one of BMP, GIF, JPEG, PNG, PPM, TIFF, WEBP"
    for kind, suffix in SUFFIXES.items():
        whole = draw(kind)
        for share in (0.02, 0.3, 0.6, 0.9):
            yield f"cut_{share}.{suffix}", whole[: int(len(whole) * share)], "repair it"
        grey = draw(kind, "L")
        for share in (0.4, 0.8):
            yield f"grey_{share}.{suffix}", grey[: int(len(grey) * share)], "repair it"
        # A file of one kind under the name of another is an image; a stranger with its head is not.
        yield f"head.{suffix}", whole[:12] + bytes(200), "repair it"
    packed = zlib.compress(bytes(10))
    for width, height in ((0, 5), (5, 0), (2**31, 5), (60_000, 60_000), (8000, 8000), (10**9, 1)):
        yield f"{width}x{height}.png", png(width, height, 8, 0, packed), "repair it"
    for depth, color in ((3, 0), (8, 1), (8, 7), (16, 3), (0, 0), (255, 2)):
        yield f"depth_{depth}_{color}.png", png(4, 4, depth, color, packed), "repair it"
    yield "no_data.png", png(4, 4, 8, 0, b""), "repair it"
    yield "not_deflated.png", png(4, 4, 8, 0, b"not deflated"), "repair it"
    yield "bomb.ppm", b"P6\n100000 100000\n255\n", "repair it"
    yield "minus.ppm", b"P6\n-4 4\n255\n" + bytes(48), "repair it"
    yield "letters.ppm", b"P6\nx y\n255\n" + bytes(48), "repair it"
    yield "digits.ppm", b"P6\n" + b"9" * 5000 + b" 1\n255\n", "repair it"
    yield "deep.ppm", b"P6\n2 2\n99999\n" + bytes(48), "repair it"
    yield "text.ppm", b"P3\n2 2\n255\n1 2 x", "repair it"
    broken = bytearray(draw("PNG"))
    broken[-20] ^= 255
    yield "checksum.png", bytes(broken), "repair it"
    tiff = draw("TIFF")
    for name, place in (("offset", 4), ("order", 0), ("magic", 2)):
        yield f"{name}.tif", tiff[:place] + b"\xff\xff\xff\x7f" + tiff[place + 4 :], "repair it"


BAD = list(bad_images())


def test_there_are_a_hundred() -> None:
    assert len(BAD) >= 100


@pytest.mark.parametrize(("name", "content", "expected"), BAD, ids=[name for name, _, _ in BAD])
def test_a_bad_image_is_refused_in_a_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str, content: bytes, expected: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as e:
        decode.decode_images(tmp_path, [name], tmp_path / "pixels.npy", None)
    message = str(e.value)
    assert message.startswith(f"{tmp_path / name}: ")
    assert expected in message
    assert "\n" not in message
    assert capfd.readouterr() == ("", "")  # libtiff speaks for itself


def test_a_file_under_another_ending_is_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(draw("BMP"))
    (tmp_path / "b.png").write_bytes(draw("PNG"))
    a, b = (decode.decode_image(tmp_path / name) for name in ("a.png", "b.png"))
    assert (a == b).all()


def test_of_several_frames_the_first_is_taken(tmp_path: Path) -> None:
    frames = [Image.new("L", (4, 4), value) for value in (10, 200)]
    for name in ("a.gif", "a.tif", "a.webp"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        assert decode.decode_image(tmp_path / name).max() <= 12, name


def test_out_of_memory_is_no_broken_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise MemoryError

    (tmp_path / "a.png").write_bytes(draw("PNG"))
    monkeypatch.setattr(Image.Image, "load", refuse)
    with pytest.raises(MemoryError):
        decode.decode_image(tmp_path / "a.png")
