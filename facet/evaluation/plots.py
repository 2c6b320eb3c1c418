"""Draw a run's pictures: its data, its curves, its answers. Pure: arrays in, PNG files out."""

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib import font_manager
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

from facet.base.arrays import CHUNK_ITEMS
from facet.base.prepared import SplitData, StoredData
from facet.formats import HeadMetrics, RunMetrics

RIGHT, WRONG, BLUE = "#1b7837", "#b2182b", "#2166ac"
TILE = 108  # pixels
MOST_NAMED = 60  # classes that an axis names each; of more every so many, and the title says so
# The font that comes with Matplotlib alone: a list of fonts in the home folder may name others.
font_manager.fontManager.ttflist.clear()
for _font in ("DejaVuSans.ttf", "DejaVuSans-Bold.ttf"):
    font_manager.fontManager.addfont(f"{matplotlib.get_data_path()}/fonts/ttf/{_font}")
matplotlib.rcdefaults()  # whatever a file `matplotlibrc` here or in the home folder says
matplotlib.rcParams.update(
    {
        "text.parse_math": False,  # a dollar in a class's name is a dollar
        "figure.dpi": 90,
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": 10,
        "axes.titley": 1.0,  # else Matplotlib measures every label to see what a title might cover
    }
)


def draw_run(
    folder: Path,
    run: str,
    data: StoredData,
    predictions: dict[str, np.ndarray],
    history: list[dict[str, str]],
    metrics: RunMetrics,
) -> None:
    """Write every picture of a run into `folder`; one that cannot be drawn is left out, and named.

    Raises OSError where the disk takes no more, and MemoryError: those say nothing of the picture.
    """
    heads = list(metrics["heads"])
    is_images = data.splits["test"].X.ndim == 4
    pictures: dict[str, Callable[[], Any]] = {
        "values": lambda: draw_values(data, is_images),
        "classes": lambda: draw_class_balance(data, heads),
        "curves": lambda: draw_curves(history, heads, run),
        "confusion": lambda: draw_confusions(metrics["heads"], run),
    }
    if is_images:
        pictures["samples"] = lambda: draw_samples(data, heads)
    for head in heads:
        if metrics["heads"][head]["accuracy"] is not None:
            p = predictions[f"{head}_test"]
            pictures[f"answers_{head}"] = partial(draw_predictions, data, head, p, run)
    for name, draw in pictures.items():
        path = folder / f"{name}.png"
        try:
            _save(draw(), path)
        except (MemoryError, OSError):
            raise
        except Exception as e:
            path.unlink(missing_ok=True)
            print(f"{run}: {path.name} is left out: {type(e).__name__}: {str(e)[:200]}")


def _save(figure: Any, path: Path) -> None:
    if isinstance(figure, Image.Image):
        figure.save(path)
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph", UserWarning)  # a box is drawn in its place
        # Without the version in it, the file changes only when the picture does.
        figure.savefig(path, metadata={"Software": None})


def _named(classes: Sequence[str]) -> tuple[range, list[str], str]:
    """Which classes an axis names, their names, and words on those that it does not."""
    step = -(-len(classes) // MOST_NAMED)
    where = range(0, len(classes), step)
    note = f"; of {len(classes)} classes one in {step} is named" if step > 1 else ""
    return where, [shorten(classes[i]) for i in where], note


def shorten(name: str, most: int = 16) -> str:
    """A class's name as a picture has room for it."""
    name = " ".join(str(name).split())
    return name if len(name) <= most else f"{name[: most - 1]}\u2026"


def to_rgb(x: np.ndarray) -> np.ndarray:
    """An image, height x width x channels, as height x width x 3."""
    return np.repeat(x, 3, -1) if x.shape[-1] == 1 else x


def draw_samples(data: StoredData, heads: list[str], columns: int = 8, rows: int = 2) -> Any:
    """A sheet of training images, untouched above, augmented below, with their labels."""
    train = data.splits["train"]
    first = train.originals
    chosen = first[np.linspace(0, len(first) - 1, columns * rows).astype(int)]
    copies = np.flatnonzero(train.copies == 1)
    if len(copies):
        chosen = np.concatenate([chosen, copies[chosen[:columns]]])

    def caption(i: int) -> list[str]:
        return [str(data.classes[h][train.y[h][i]]) for h in heads]

    tiles = [
        (x, caption(i), BLUE if i in copies else "black")
        for x, i in zip(train.X[chosen], chosen, strict=True)
    ]
    title = "Training images" + ("; the last row augmented" if len(copies) else "")
    return draw_sheet(title, [tiles[i : i + columns] for i in range(0, len(tiles), columns)])


def draw_sheet(title: str, rows: list[list[tuple[np.ndarray, list[str], str]]]) -> Image.Image:
    """Rows of tiles, each an input, lines of caption and their colour, as one picture.

    Drawn by Pillow: a grid of Matplotlib axes takes twenty times as long.
    """
    font, line = ImageFont.load_default(13), 16
    lines = max((len(words) for row in rows for _, words, _ in row), default=1)
    height = TILE + lines * line + 14
    width = max(8 + max(map(len, rows)) * (TILE + 12), 8 * len(title))
    canvas = Image.new("RGB", (width, 30 + len(rows) * height), "white")
    pen = ImageDraw.Draw(canvas)
    pen.text((8, 6), title, "black", ImageFont.load_default(15))
    for r, row in enumerate(rows):
        for c, (x, words, color) in enumerate(row):
            left, top = 8 + c * (TILE + 12), 30 + r * height
            canvas.paste(draw_tile(x), (left, top))
            for i, word in enumerate(words):
                pen.text((left, top + TILE + 3 + i * line), word[:17], color, font)
        if not row:
            pen.text((8, 30 + r * height), "none", "black", font)
    return canvas


def draw_tile(x: np.ndarray) -> Image.Image:
    """An image, uint8, enlarged, or a table's readings as bars from -4 to 4, TILE pixels square."""
    if x.ndim == 3:
        image = Image.fromarray(to_rgb(x))
        factor = TILE / max(image.size)
        size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
        out = Image.new("RGB", (TILE, TILE), "white")
        out.paste(image.resize(size, Image.Resampling.NEAREST))
        return out
    out = Image.new("RGB", (TILE, TILE), "#f0f0f0")
    pen, step = ImageDraw.Draw(out), TILE / len(x)
    gap = 1 if step >= 2 else 0
    for i, value in enumerate(x.clip(-4, 4)):
        ends = sorted((TILE / 2, TILE * (4 + float(value)) / 8))
        pen.rectangle((ends[0], i * step + gap, ends[1], (i + 1) * step - gap), "#878787")
    return out


def count_values(items: SplitData, is_images: bool) -> tuple[list[np.ndarray], np.ndarray]:
    """How often inputs are in each of 64 ranges, by channel, (64,) each, and the ranges' 65 ends.

    Of the items as they came, chunk by chunk.
    """
    edges = np.linspace(*((0, 1) if is_images else (-4, 4)), 65)
    counts = [np.zeros(64) for _ in range(items.X.shape[-1] if is_images else 1)]
    rows = items.originals
    for start in range(0, len(rows), CHUNK_ITEMS):
        x = items.scale(rows[start : start + CHUNK_ITEMS])
        for c, count in enumerate(counts):
            count += np.histogram(x[..., c] if is_images else x, bins=edges)[0]
    return counts, edges


def draw_values(data: StoredData, is_images: bool) -> Any:
    """The histogram of inputs, by split: pixel values by channel, or readings."""
    figure = Figure(figsize=(6, 3))
    axis = figure.subplots()
    _margins(figure, 1)
    for split, style in (("train", "-"), ("test", "--")):
        counts, edges = count_values(data.splits[split], is_images)
        channels = len(counts)
        for c, count in enumerate(counts):
            height = count / max(count.sum(), 1) / np.diff(edges)
            color = (
                ["#d73027", "#1a9850", "#4575b4"][c]
                if channels == 3
                else {"train": "#4575b4", "test": "#d73027"}[split]
            )
            name = f"{split} {['red', 'green', 'blue'][c]}" if channels == 3 else split
            axis.stairs(height, edges, label=name, linestyle=style, color=color)
    axis.set(
        xlabel="pixel value, 0 black to 1 full" if is_images else "standardised reading",
        ylabel="density",
        title="Pixel values" if is_images else "Readings",
    )
    axis.legend(fontsize=8, ncols=2)
    return figure


def draw_class_balance(data: StoredData, heads: list[str]) -> Any:
    """The share of each class in each split, a panel a head."""
    figure, axes = _panels(
        len(heads), lambda h: max(2.2, 0.19 * min(len(data.classes[h]), MOST_NAMED)), heads
    )
    for axis, head in zip(axes, heads, strict=False):
        classes = data.classes[head]
        for k, (split, color) in enumerate(
            (("train", "#4575b4"), ("validation", "#fdae61"), ("test", "#d73027"))
        ):
            y = data.splits[split].y[head]
            if len(y):
                share = np.bincount(y, minlength=len(classes)) / len(y)
                axis.barh(
                    np.arange(len(classes)) + (k - 1) * 0.27, share, 0.27, label=split, color=color
                )
        where, names, note = _named(classes.tolist())
        axis.set_yticks(where, names, fontsize=8)
        axis.invert_yaxis()
        axis.set(title=f"{head}{note}", xlabel="share of items")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="lower center", ncols=3)
    return figure


def _panels(n: int, height: Any, heads: list[str]) -> tuple[Any, list[Any]]:
    """A row of `n` panels, as high as the highest needs."""
    figure = Figure(figsize=(max(4, 3.1 * n), 1.6 + max(height(h) for h in heads)))
    axes = figure.subplots(1, n, squeeze=False)
    _margins(figure, n, bottom=0.85)
    return figure, list(axes.flat)


def _margins(
    figure: Any, n: int, left: float = 0.95, bottom: float = 0.5, top: float = 0.55
) -> None:
    """Room in inches for the labels of a row of `n` axes.

    Said and not worked out: Matplotlib's layouts draw each figure several times, which took two
    thirds of the time of all pictures.
    """
    width, height = figure.get_size_inches()
    inside = (width - 0.15 - n * left) / n
    figure.subplots_adjust(
        left=left / width,
        right=1 - 0.15 / width,
        bottom=bottom / height,
        top=1 - top / height,
        wspace=left / inside,
    )


def draw_curves(history: list[dict[str, str]], heads: list[str], run: str) -> Any:
    """Loss and each head's accuracy over epochs, training against validation."""
    held = "val_loss" in history[0]
    epochs = [int(float(row["epoch"])) for row in history]
    figure, axes = _panels(1 + len(heads), lambda _: 2.2, ["", *heads])
    for axis, name in zip(axes, ["loss", *(f"{h}_accuracy" for h in heads)], strict=True):
        axis.plot(
            epochs,
            [float(r[name]) for r in history],
            label="training, with dropout and augmentation" if name == "loss" else "training",
            color="#4575b4",
        )
        if held:
            axis.plot(
                epochs,
                [float(r[f"val_{name}"]) for r in history],
                label="validation",
                color="#d73027",
                linestyle="--",
            )
        axis.set(
            title=name.replace("_", " "),
            xlabel="epoch",
            ylabel="nats" if name == "loss" else "fraction right",
        )
        if name != "loss":
            axis.set_ylim(0, 1.02)
        axis.xaxis.get_major_locator().set_params(integer=True)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="lower center", ncols=2)
    figure.suptitle(run)
    return figure


def draw_confusions(heads: dict[str, HeadMetrics], run: str) -> Any:
    """A confusion matrix a head: rows true, columns predicted, shares of the row."""
    shown = {h: m for h, m in heads.items() if m["confusion"] is not None}
    if not shown:
        return Figure(figsize=(4, 1))
    sizes = [max(1.6, 0.25 * min(len(m["classes"]), MOST_NAMED)) for m in shown.values()]
    figure = Figure(figsize=(sum(sizes) + 1.2 * len(sizes) + 0.15, max(sizes) + 2))
    axes = figure.subplots(1, len(shown), squeeze=False, width_ratios=sizes)
    _margins(figure, len(shown), left=1.2, bottom=1.2, top=0.8)
    for axis, (head, m) in zip(axes.flat, shown.items(), strict=True):
        counts = np.array(m["confusion"])
        share = counts / counts.sum(1, keepdims=True).clip(1)
        axis.imshow(share, cmap="Blues", vmin=0, vmax=1)
        n = len(counts)
        for i, j in np.argwhere(counts > 0) if n <= 25 else []:
            axis.text(
                j,
                i,
                counts[i, j],
                ha="center",
                va="center",
                fontsize=8 if n < 8 else 6,
                color="white" if share[i, j] > 0.5 else "black",
            )
        where, names, note = _named(m["classes"])
        axis.set_xticks(where, names, rotation=90, fontsize=8 if n < 12 else 7)
        axis.set_yticks(where, names, fontsize=8 if n < 12 else 7)
        axis.set(
            title=f"{head}: {m['accuracy']:.2f}, chance {m['chance']:.2f}{note}",
            xlabel="predicted",
            ylabel="true",
        )
        axis.spines[:].set_visible(True)
    figure.suptitle(run)
    return figure


def draw_predictions(data: StoredData, head: str, p: np.ndarray, run: str) -> Any:
    """Nine right and nine wrong answers on test items, with both labels and the probability.

    The surest of each: right answers that were hard won tell less than confident errors.
    """
    test, classes = data.splits["test"], data.classes[head]
    y = test.y[head]
    predicted, sure = p.argmax(1), p.max(1)
    rows = []
    for right, color in ((True, RIGHT), (False, WRONG)):
        chosen = np.flatnonzero((predicted == y) == right)
        chosen = chosen[np.argsort(-sure[chosen], kind="stable")][:9]
        rows.append(
            [
                (
                    x,
                    [
                        f"true {classes[y[i]]}",
                        f"predicted {classes[predicted[i]]}",
                        f"{sure[i]:.0%} sure",
                    ],
                    color,
                )
                for x, i in zip(test.X[chosen], chosen, strict=True)
            ]
        )
    what = "" if test.X.ndim == 4 else "; bars: standardised readings, -4 to 4"
    return draw_sheet(f"{run}: {head}; right above, wrong below, the surest first{what}", rows)
