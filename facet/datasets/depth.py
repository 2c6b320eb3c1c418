"""Images deeper than 8 bits: a declared range of their values becomes 0 to 255."""

from dataclasses import dataclass, field

import numpy as np

from facet.errors import InputError

Scale = tuple[float, float]


class DepthError(InputError):
    """Images that are deeper than 8 bits, and no scale is declared.

    `found` says what they hold, `proposal` is a scale that fits.
    """

    def __init__(self, where: str, found: str, proposal: list[float]) -> None:
        super().__init__(
            f"{where}: {found}; say which values become black and white: read.scale: {proposal}"
        )
        self.found, self.proposal = found, proposal


@dataclass
class Extremes:
    """What deep images hold: their types, how many they are, the least and the greatest value."""

    types: set[str] = field(default_factory=set)
    count: int = 0
    least: float = np.inf
    greatest: float = -np.inf

    def add(self, pixels: np.ndarray, images: int = 1) -> None:
        """Take in the pixels of so many images."""
        self.types.add(describe_depth(pixels.dtype))
        self.count += images
        finite = pixels[np.isfinite(pixels)]
        self.least = min(self.least, float(finite.min()) if finite.size else np.inf)
        self.greatest = max(self.greatest, float(finite.max()) if finite.size else -np.inf)

    def refuse(self, where: str, whole: int) -> DepthError:
        """The error to raise for these, of `whole` images in all."""
        found = (
            f"{self.count} of {whole} images are deeper than 8 bits "
            f"({', '.join(sorted(self.types))}; least value {self.least:g}, greatest "
            f"{self.greatest:g})"
        )
        return DepthError(where, found, self.propose())

    def propose(self) -> list[float]:
        """A usual range that holds all values: [0, 1], or from 0 to 255, 1023, 4095, 65535, ..."""
        whole = not any(t.startswith("float") for t in self.types)
        if self.least >= 0 and not whole and self.greatest <= 1:
            return [0, 1]
        for bits in (8, 10, 12, 14, 16):
            if self.least >= 0 and self.greatest < 2**bits and (whole or bits == 8):
                return [0, 2**bits - 1]
        # A range needs two ends.
        return [self.least, self.greatest if self.greatest > self.least else self.least + 1]


def describe_depth(dtype: np.dtype) -> str:
    """`16-bit`, `32-bit`, `float32`, ..."""
    return str(dtype.newbyteorder("=")) if dtype.kind == "f" else f"{8 * dtype.itemsize}-bit"


def scale_pixels(pixels: np.ndarray, scale: Scale, where: str) -> np.ndarray:
    """Pixels as uint8: the ends of `scale` become 0 and 255, what is beyond them too; rounded."""
    low, high = scale
    values = pixels.astype("float64")
    if not np.isfinite(values).all():
        raise InputError(f"{where}: has pixels that are no finite numbers; repair it")
    return np.rint((values - low) * (255 / (high - low))).clip(0, 255).astype("uint8")
