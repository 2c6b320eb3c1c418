"""Decode a data set's raw files once, into one file of plain arrays."""

import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageOps, UnidentifiedImageError
from tqdm import tqdm

from facet.errors import InputError
from facet.formats import Items
from facet.names import IMAGE_SUFFIXES, RAW_INDEX, RAW_MANIFEST

KEPT_MODES = ("L", "LA", "RGB", "RGBA")
MAX_PIXELS = 50_000_000


def decode_image(path: Path) -> np.ndarray:
    """One image as uint8, height x width for grey, else height x width x 2, 3 or 4 channels.

    Palettes become RGB (RGBA if they have a transparent entry), other modes the nearest kept one.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as opened:
                if opened.width * opened.height > MAX_PIXELS:
                    raise ValueError(f"{opened.width}x{opened.height} pixels are too many")
                image: Image.Image = ImageOps.exif_transpose(opened)
                if image.mode == "P":
                    image = image.convert("RGBA" if "transparency" in image.info else "RGB")
                elif image.mode.startswith("I"):  # 16 bits of grey: the upper 8
                    image = Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype("uint8"))
                elif image.mode not in KEPT_MODES:
                    image = image.convert("L" if image.mode in ("1", "F") else "RGB")
                return np.asarray(image)
    except Exception as e:
        # Pillow's decoders raise whatever they meet in broken bytes: all of it means the same.
        reason = "not an image" if isinstance(e, UnidentifiedImageError) else str(e)
        raise InputError(f"{path}: {reason}; repair it or take it out of the source") from None


def decode_images(folder: Path, paths: list[Path]) -> Items:
    """Names and pixels of images, the images of one shape stacked.

    `pixels` maps HEIGHTxWIDTH[xCHANNELS] to uint8 arrays (n, height, width[, channels]), `rows`
    the same keys to int64 places in `names`.
    """
    with ThreadPoolExecutor(2) as pool:
        decoded = list(
            tqdm(pool.map(decode_image, paths), "pickle", len(paths), unit="image", delay=1)
        )
    shapes: dict[str, list[int]] = {}
    for row, pixels in enumerate(decoded):
        shapes.setdefault("x".join(map(str, pixels.shape)), []).append(row)
    return {
        "names": np.array([p.relative_to(folder).as_posix() for p in paths]),
        "columns": {},
        "pixels": {k: np.stack([decoded[r] for r in rows]) for k, rows in shapes.items()},
        "rows": {k: np.array(rows, "int64") for k, rows in shapes.items()},
    }


def read_arrays(path: Path) -> Items:
    """Images and labels in the layout of Keras's mnist.npz, with its own split.

    The label is column `y`; `own` says train or test.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            x = {part: file[f"x_{part}"] for part in ("train", "test")}
            y = {part: file[f"y_{part}"] for part in ("train", "test")}
    except KeyError as e:
        raise InputError(f"{path}: {e.args[0]}; needs x_train, y_train, x_test, y_test") from None
    except Exception as e:
        raise InputError(f"{path}: not a whole .npz of plain arrays: {e}") from None
    for part, pixels in x.items():
        if pixels.dtype != np.uint8 or pixels.ndim not in (3, 4) or pixels.shape[0] == 0:
            raise InputError(f"{path}: x_{part} must be uint8, items x height x width[ x channels]")
        if y[part].shape != (len(pixels),):
            raise InputError(f"{path}: y_{part} has not one label for each of x_{part}")
    if x["train"].shape[1:] != x["test"].shape[1:]:
        raise InputError(f"{path}: x_train and x_test differ in shape")
    names = [f"{part}/{i:05d}" for part in x for i in range(len(x[part]))]
    pixels = np.concatenate([x["train"], x["test"]])
    return {
        "names": np.array(names),
        "columns": {"y": np.concatenate([y["train"], y["test"]]).astype(str)},
        "own": np.repeat(["train", "test"], [len(x["train"]), len(x["test"])]),
        "pixels": {"x".join(map(str, pixels.shape[1:])): pixels},
        "rows": {"x".join(map(str, pixels.shape[1:])): np.arange(len(pixels))},
    }


def read_tables(paths: list[Path]) -> Items:
    """Rows of CSV files (`,` or `;`) one after the other; numbers float64, the rest strings.

    `names` is FILE:ROW, counted from 1 after the header; blanks in column names become `_`.
    """
    frames = []
    for path in paths:
        try:
            with path.open(encoding="utf-8-sig") as file:
                separator = ";" if ";" in file.readline() else ","
            frame = pd.read_csv(path, sep=separator, encoding="utf-8-sig", index_col=False)
        except (ValueError, UnicodeDecodeError) as e:
            raise InputError(f"{path}: not a CSV table: {e}") from None
        if frame.empty:
            raise InputError(f"{path}: has no rows")
        frame.columns = [str(c).strip().replace(" ", "_") for c in frame.columns]
        if missing := [c for c in frame if frame[c].isna().any()]:
            row = int(frame[missing[0]].isna().to_numpy().argmax()) + 1
            raise InputError(f"{path}: row {row} has no {missing[0]}; fill it in or drop the row")
        frame.insert(0, "file", path.name)
        frame.insert(1, "row", range(1, len(frame) + 1))
        frames.append(frame)
    if len({tuple(f.columns) for f in frames}) > 1:
        raise InputError(f"{paths[0].parent}: the tables' columns differ")
    whole = pd.concat(frames, ignore_index=True)
    names = whole.pop("file") + ":" + whole.pop("row").astype(str)
    return {
        "names": names.to_numpy(str),
        "columns": {
            str(c): whole[c].to_numpy("float64" if pd.api.types.is_numeric_dtype(whole[c]) else str)
            for c in whole
        },
    }


def decode_items(folder: Path) -> Items:
    """All items of a raw folder, of whichever kind it holds: images, arrays or tables."""
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    files = [p for p in files if p.name not in (RAW_INDEX, RAW_MANIFEST)]
    pictures = [p for p in files if p.suffix.lower() in IMAGE_SUFFIXES]
    if pictures:
        return decode_images(
            folder / "images" if (folder / "images").is_dir() else folder, pictures
        )
    if len(files) == 1 and files[0].suffix == ".npz":
        return read_arrays(files[0])
    if files and {p.suffix for p in files} == {".csv"}:
        return read_tables(files)
    raise InputError(f"{folder}: holds neither images, nor one .npz, nor .csv tables alone")
