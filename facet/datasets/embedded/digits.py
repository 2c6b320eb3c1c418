"""scikit-learn's 1,797 handwritten digits (UCI 80, its test part) as Keras lays out MNIST."""

from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

# Writers come one after another, so the last quarter is mostly other people's hands: the data's
# own split.
TEST = 450


def make(folder: Path) -> None:
    """Write digits.npz: x_train (1347, 8, 8), y_train (1347,), x_test (450, 8, 8), y_test (450,).

    All uint8; pixels 0-255 (the source counts 0-16), labels 0-9.
    """
    source = load_digits()
    x = np.round(source.images * (255 / 16)).astype(np.uint8)
    y = source.target.astype(np.uint8)
    np.savez(
        folder / "digits.npz",
        x_train=x[:-TEST],
        y_train=y[:-TEST],
        x_test=x[-TEST:],
        y_test=y[-TEST:],
    )
