"""Draw a run's pictures: its data, its curves, its answers. Pure: arrays in, PNG files out."""

import warnings
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt

RIGHT, WRONG = "#1b7837", "#b2182b"
plt.rcParams.update(
    {
        "figure.dpi": 90,
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": 10,
        "figure.constrained_layout.use": True,
    }
)


def draw(
    folder: Path,
    run: str,
    content: dict[str, Any],
    predictions: dict[str, Any],
    history: list[dict[str, str]],
    metrics: dict[str, Any],
) -> None:
    """Write every picture of a run into `folder`."""
    heads = list(metrics["heads"])
    is_images = content["X_test"].ndim == 4
    if is_images:
        _save(samples(content, heads), folder / "samples.png")
    _save(values(content, is_images), folder / "values.png")
    _save(balance(content, heads), folder / "classes.png")
    _save(curves(history, heads, run), folder / "curves.png")
    _save(confusions(metrics["heads"], run), folder / "confusion.png")
    for head in heads:
        if metrics["heads"][head]["accuracy"] is not None:
            p = predictions[f"{head}_test"]
            _save(answers(content, head, p, run), folder / f"answers_{head}.png")


def _save(figure: Any, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # glyphs a font lacks are drawn as boxes
        # Without the version in it, the file changes only when the picture does.
        figure.savefig(path, metadata={"Software": None})
    plt.close(figure)


def picture(x: np.ndarray) -> np.ndarray:
    """An image, height x width x channels in 0-1, as height x width x 3."""
    return np.repeat(x, 3, -1) if x.shape[-1] == 1 else x


def samples(content: dict[str, Any], heads: list[str], columns: int = 8, rows: int = 3) -> Any:
    """A grid of training images, untouched above, augmented below, with their labels."""
    first = np.flatnonzero(content["copy_train"] == 0)
    chosen = first[np.linspace(0, len(first) - 1, columns * (rows - 1)).astype(int)]
    copies = np.flatnonzero(content["copy_train"] == 1)
    if len(copies):
        chosen = np.concatenate([chosen, copies[chosen[:columns]]])
    figure, axes = plt.subplots(
        -(-len(chosen) // columns),
        columns,
        squeeze=False,
        figsize=(columns * 1.35, rows * (1.25 + 0.15 * len(heads))),
    )
    for axis, i in zip(axes.flat, chosen, strict=False):
        axis.imshow(picture(content["X_train"][i]), interpolation="nearest")
        names = [str(content[f"classes_{h}"][content[f"y_train_{h}"][i]]) for h in heads]
        axis.set_title(
            "\n".join(names),
            fontsize=8,
            color="black" if content["copy_train"][i] == 0 else "#2166ac",
        )
    for axis in axes.flat:
        axis.axis("off")
    figure.suptitle("Training images" + ("; last row augmented" if len(copies) else ""))
    return figure


def values(content: dict[str, Any], is_images: bool) -> Any:
    """The histogram of inputs, by part: pixel values by channel, or readings."""
    figure, axis = plt.subplots(figsize=(6, 3))
    for part, style in (("train", "-"), ("test", "--")):
        X = (
            content[f"X_{part}"][content["copy_train"] == 0]
            if part == "train"
            else content[f"X_{part}"]
        )
        channels = X.shape[-1] if is_images else 1
        for c in range(channels):
            x = X[..., c] if is_images else X
            color = (
                ["#d73027", "#1a9850", "#4575b4"][c]
                if channels == 3
                else {"train": "#4575b4", "test": "#d73027"}[part]
            )
            height, edges = np.histogram(
                x, bins=64, range=(0, 1) if is_images else (-4, 4), density=True
            )
            name = f"{part} {['red', 'green', 'blue'][c]}" if channels == 3 else part
            axis.stairs(height, edges, label=name, linestyle=style, color=color)
    axis.set(
        xlabel="pixel value, 0 black to 1 full" if is_images else "standardised reading",
        ylabel="density",
        title="Pixel values" if is_images else "Readings",
    )
    axis.legend(fontsize=8, ncols=2)
    return figure


def balance(content: dict[str, Any], heads: list[str]) -> Any:
    """The share of each class in each part, a panel a head."""
    figure, axes = _panels(
        len(heads), lambda h: max(2.2, 0.19 * len(content[f"classes_{h}"])), heads
    )
    for axis, head in zip(axes, heads, strict=False):
        classes = content[f"classes_{head}"]
        for k, (part, color) in enumerate(
            (("train", "#4575b4"), ("validation", "#fdae61"), ("test", "#d73027"))
        ):
            y = content[f"y_{part}_{head}"]
            if len(y):
                share = np.bincount(y, minlength=len(classes)) / len(y)
                axis.barh(
                    np.arange(len(classes)) + (k - 1) * 0.27, share, 0.27, label=part, color=color
                )
        axis.set_yticks(range(len(classes)), classes.tolist(), fontsize=8)
        axis.invert_yaxis()
        axis.set(title=head, xlabel="share of items")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def _panels(n: int, height: Any, heads: list[str]) -> tuple[Any, list[Any]]:
    """A row of `n` panels, as high as the highest needs."""
    figure, axes = plt.subplots(
        1, n, squeeze=False, figsize=(max(4, 3.1 * n), 0.8 + max(height(h) for h in heads))
    )
    return figure, list(axes.flat)


def curves(history: list[dict[str, str]], heads: list[str], run: str) -> Any:
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
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    figure.suptitle(run)
    return figure


def confusions(heads: dict[str, Any], run: str) -> Any:
    """A confusion matrix a head: rows true, columns predicted, shares of the row."""
    shown = {h: m for h, m in heads.items() if m["confusion"] is not None}
    if not shown:
        return plt.figure(figsize=(4, 1))
    sizes = [max(2.4, 0.27 * len(m["classes"]) + 1.2) for m in shown.values()]
    figure, axes = plt.subplots(
        1,
        len(shown),
        squeeze=False,
        width_ratios=sizes,
        figsize=(sum(sizes) + 0.4, max(sizes) + 0.5),
    )
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
        axis.set_xticks(range(n), m["classes"], rotation=90, fontsize=8 if n < 12 else 7)
        axis.set_yticks(range(n), m["classes"], fontsize=8 if n < 12 else 7)
        axis.set(
            title=f"{head}: {m['accuracy']:.2f}, chance {m['chance']:.2f}",
            xlabel="predicted",
            ylabel="true",
        )
        axis.spines[:].set_visible(True)
    figure.suptitle(run)
    return figure


def answers(content: dict[str, Any], head: str, p: np.ndarray, run: str) -> Any:
    """Nine right and nine wrong answers on test items, with both labels and the probability.

    The surest of each: right answers that were hard won tell less than confident errors.
    """
    y, X, classes = content[f"y_test_{head}"], content["X_test"], content[f"classes_{head}"]
    predicted = p.argmax(1)
    sure = p.max(1)
    figure, axes = plt.subplots(2, 9, figsize=(12.5, 4.1))
    for row, (right, color) in enumerate(((True, RIGHT), (False, WRONG))):
        chosen = np.flatnonzero((predicted == y) == right)
        chosen = chosen[np.argsort(-sure[chosen], kind="stable")][:9]
        for axis in axes[row]:
            axis.axis("off")
        for axis, i in zip(axes[row], chosen, strict=False):
            if X.ndim == 4:
                axis.imshow(picture(X[i]), interpolation="nearest")
            else:
                axis.barh(range(X.shape[1]), X[i].clip(-4, 4), color="#878787")
                axis.set_xlim(-4, 4)
            text = f"true {classes[y[i]]}\n" + f"said {classes[predicted[i]]}\n{sure[i]:.0%} sure"
            axis.set_title(text, fontsize=8, color=color)
        if not len(chosen):
            axes[row][0].text(0, 0.5, f"no {'right' if right else 'wrong'} answers", color=color)
    what = "" if X.ndim == 4 else "; bars: standardised readings, -4 to 4"
    figure.suptitle(f"{run}: {head}, right above, wrong below, the surest first{what}")
    return figure
