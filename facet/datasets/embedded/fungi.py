"""Drawn stand-ins for the DeFungi microscope images: five classes, a few crops of each sample.

A sample is one drawn field of view: what grows in it follows its class, while stain, lamp, focus,
magnification and crowding are its own. Images are crops of a sample, so those of one sample share
far more than their class, as the real ones do.
"""

import math
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SIDE, FIELD = 224, 320  # pixels of an image and of the sample it is cut from
PER_CLASS = 50
SAMPLES = {"H1": 44, "H2": 44, "H3": 28, "H5": 42, "H6": 33}  # as many as the real ones have
# Background, body and outline: unstained, blue, pink, brown, green, grey.
STAINS = (
    ((200, 205, 195), (176, 180, 172), (96, 104, 92)),
    ((186, 190, 206), (110, 130, 190), (48, 60, 128)),
    ((214, 180, 182), (190, 150, 170), (112, 78, 118)),
    ((206, 184, 140), (170, 130, 78), (92, 62, 34)),
    ((196, 204, 168), (120, 170, 150), (44, 96, 92)),
    ((158, 160, 160), (140, 142, 146), (84, 86, 92)),
)


class Slide:
    """Two grey layers of a sample, bodies and outlines; shapes are drawn on both."""

    def __init__(self, rng: np.random.Generator, zoom: float) -> None:
        self.rng, self.zoom = rng, zoom
        self.body, self.outline = (Image.new("L", (FIELD, FIELD)) for _ in range(2))
        self.on_body, self.on_outline = ImageDraw.Draw(self.body), ImageDraw.Draw(self.outline)

    def cell(self, x: float, y: float, radius: float, stretch: float = 1.0) -> None:
        """A round or upright oval cell with a wall."""
        a, b = radius * self.zoom, radius * self.zoom * stretch
        box = (x - a, y - b, x + a, y + b)
        self.on_body.ellipse(box, int(self.rng.integers(120, 255)))
        self.on_outline.ellipse(box, outline=230, width=max(1, round(0.16 * a)))

    def thread(
        self,
        x: float,
        y: float,
        angle: float,
        length: float,
        width: float,
        wiggle: float = 0.12,
        septa: float = 0,
        branches: float = 0,
    ) -> None:
        """A hypha from (x, y): a tube with two walls, cross walls `septa` apart, side branches."""
        step, width, points = 14 * self.zoom, width * self.zoom, [(x, y)]
        for turn in self.rng.normal(0, wiggle, int(length / 14)):
            angle += turn
            x, y = x + step * math.cos(angle), y + step * math.sin(angle)
            points.append((x, y))
            if self.rng.random() < branches:
                side = angle + self.rng.choice((-0.8, 0.8))
                self.thread(x, y, side, 0.6 * length, 0.85 * width / self.zoom, wiggle, septa, 0)
        joint = "curve" if width > 9 else None  # slow, and unseen in thin lines
        self.on_outline.line(points, 210, round(width) + 3, joint)
        self.on_outline.line(points, 40, max(1, round(width) - 1), joint)
        self.on_body.line(points, 190, round(width) + 1, joint)
        for px, py in points[1 :: max(1, round(septa / 14))] if septa else ():
            across = 0.5 * width
            self.on_outline.line((px - across, py - across, px + across, py + across), 210, 2)


def _grow(kind: str, slide: Slide, crowd: float) -> None:
    """What is seen of each class, more of it where `crowd` is high."""
    rng = slide.rng

    def places(n: float) -> list[list[float]]:
        """About n of x, y and an angle."""
        some = rng.random((max(2, int(n * crowd)), 3)) * (FIELD, FIELD, 2 * math.pi)
        return list(some.tolist())

    if kind == "H1":  # thin straight threads, crossing
        for x, y, angle in places(15):
            slide.thread(x, y, angle, 420, 5, 0.08, septa=45)
    elif kind == "H2":  # round spores, everywhere
        for x, y, _ in places(110):
            slide.cell(x, y, rng.uniform(7, 13))
    elif kind == "H3":  # thick branching hyphae
        for x, y, angle in places(4):
            slide.thread(x, y, angle, 340, 13, 0.2, septa=30, branches=0.2)
    elif kind == "H5":  # clumps of small budding ovals
        for x, y, _ in places(5):
            for dx, dy in rng.normal(0, 24 * slide.zoom, (26, 2)).tolist():
                slide.cell(x + dx, y + dy, rng.uniform(5, 8), 1.5)
    else:  # H6: a few big spherules among short curly threads
        for x, y, angle in places(16):
            slide.thread(x, y, angle, 130, 4, 0.5)
        for x, y, _ in places(4):
            slide.cell(x, y, rng.uniform(20, 34))
            slide.cell(x, y, rng.uniform(8, 16))


@lru_cache(maxsize=1)
def _sample(kind: str, sample: str) -> Image.Image:
    """The field of view, FIELD x FIELD RGB."""
    rng = np.random.default_rng(int.from_bytes(f"{kind}/{sample}".encode()))
    slide = Slide(rng, rng.uniform(0.7, 1.4))
    _grow(kind, slide, rng.uniform(0.5, 1.2))
    _grow(str(rng.choice(list(SAMPLES))), slide, rng.uniform(0, 0.4))  # contamination
    # Laboratories have their habits: half the samples of a class bear its usual stain.
    usual = rng.random() < 0.5
    stain = STAINS[list(SAMPLES).index(kind) if usual else rng.integers(len(STAINS))]
    ground, fill, wall = (np.array(stain) + rng.normal(0, 9, 3)).astype(int).tolist()
    lamp = np.asarray(Image.fromarray(rng.normal(0, 9, (5, 5))).resize((128, 128)))
    grainy = ground + (lamp + rng.normal(0, rng.uniform(4, 18), (128, 128)))[..., None]
    field = Image.fromarray(np.clip(grainy, 0, 255).astype(np.uint8))
    field = field.resize((FIELD, FIELD), Image.Resampling.BICUBIC)
    focus, strength = ImageFilter.GaussianBlur(rng.uniform(0.6, 3.2)), rng.uniform(0.35, 0.95)
    for layer, colour in ((slide.body, fill), (slide.outline, wall)):
        mask = layer.filter(focus).point([int(strength * i) for i in range(256)])
        field.paste(tuple(colour), mask=mask)
    return field


def _names() -> list[tuple[str, str, int]]:
    """Class, sample and sequence of each image: every sample has one, the first ones more."""
    names = []
    for kind, samples in SAMPLES.items():
        rng = np.random.default_rng(int.from_bytes(kind.encode()))
        numbers = rng.choice(np.arange(1, 140), samples, replace=False).tolist()
        # Squared, the draw favours the first few: some samples give five crops, most give one.
        more = (rng.random(PER_CLASS - samples) ** 2 * samples).astype(int).tolist()
        for i, number in enumerate(numbers):
            crops = rng.choice(np.arange(1, 21), 1 + more.count(i), replace=False).tolist()
            names += [(kind, f"{number}{'abcd'[number % 4]}", crop) for crop in crops]
    return names


def make(folder: Path) -> None:
    """Write files_list.csv (column `files`) and images/CLASS_SAMPLE_SEQUENCE.jpg.

    250 RGB images of 224 x 224 pixels, 50 of each of the classes H1, H2, H3, H5 and H6.
    """
    (folder / "images").mkdir()
    files = []
    for kind, sample, sequence in _names():
        # The sequence numbers count along five columns and four rows of overlapping crops.
        row, column = divmod(sequence - 1, 5)
        x, y = column * (FIELD - SIDE) // 4, row * (FIELD - SIDE) // 3
        files.append(f"{kind}_{sample}_{sequence}.jpg")
        image = _sample(kind, sample).crop((x, y, x + SIDE, y + SIDE))
        image.save(folder / "images" / files[-1], quality=85)
    (folder / "files_list.csv").write_text("\n".join(["files", *sorted(files)]) + "\n")
