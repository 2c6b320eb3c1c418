"""The data that is drawn in place of a download: layout, counts, same bytes, and how hard it is."""

import csv
import hashlib
import subprocess
import sys
from collections import Counter
from importlib import import_module
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.linear_model import RidgeClassifier
from sklearn.model_selection import GroupShuffleSplit

from facet.datasets.embedded import wine
from tests.helpers import ROOT, SHARED, TIMEOUT

AGAIN = """
import pathlib, sys
from facet.datasets.embedded import faces, fungi
faces.PEOPLE = {userid: faces.PEOPLE[userid] for userid in ("tammo", "an2i")}
some = fungi._names()[::-5]
fungi._names = lambda: some
for module in (fungi, faces):
    folder = pathlib.Path(sys.argv[1], module.__name__.split(".")[-1])
    folder.mkdir()
    module.make(folder)
"""


def make(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).mkdir()
        import_module(f"facet.datasets.embedded.{name}").make(folder / name)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The four data sets; and the tables again, and some of the images by another process."""
    first, second = tmp_path_factory.mktemp("first"), tmp_path_factory.mktemp("second")
    with subprocess.Popen([sys.executable, "-c", AGAIN, str(second)], cwd=ROOT) as other:
        make(first, "faces", "fungi", "digits", "wine")
        make(second, "digits", "wine")
        assert other.wait(TIMEOUT) == 0
    return first, second


@pytest.fixture(scope="module")
def raw(made: tuple[Path, Path]) -> Path:
    return made[0]


def fingerprint(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.md5(p.read_bytes()).hexdigest() for p in files}


def listed(folder: Path) -> list[str]:
    with (folder / "files_list.csv").open(newline="") as file:
        return [row["files"] for row in csv.DictReader(file)]


@pytest.mark.parametrize(
    ("name", "files"), [("faces", 62), ("fungi", 50), ("digits", 1), ("wine", 1)]
)
def test_two_makes_give_the_same_bytes(made: tuple[Path, Path], name: str, files: int) -> None:
    first, second = (fingerprint(folder / name) for folder in made)
    second.pop("files_list.csv", None)
    assert len(second) == files
    assert second.items() <= first.items()


@pytest.mark.parametrize(("name", "count"), [("faces", 624), ("fungi", 250)])
def test_index_and_images_agree(raw: Path, name: str, count: int) -> None:
    names = listed(raw / name)
    assert len(set(names)) == len(names) == count
    assert set(fingerprint(raw / name)) == {"files_list.csv", *(f"images/{n}" for n in names)}
    pixels = Counter(Image.open(raw / name / "images" / n).tobytes() for n in names)
    assert max(pixels.values()) == 1


# How many photos of each person the real data have.
PHOTOS = {
    "an2i": 32,
    "at33": 32,
    "boland": 32,
    "bpm": 32,
    "ch4f": 32,
    "cheyer": 32,
    "choon": 31,
    "danieln": 31,
    "glickman": 30,
    "karyadi": 31,
    "kawamura": 31,
    "kk49": 32,
    "megak": 30,
    "mitchell": 28,
    "night": 32,
    "phoebe": 31,
    "saavik": 32,
    "steffi": 32,
    "sz24": 31,
    "tammo": 30,
}
# How many samples of each kind the 50 images are cut from.
SAMPLES = {"H1": 44, "H2": 44, "H3": 28, "H5": 42, "H6": 33}


def test_faces_have_the_real_counts_of_labels(raw: Path) -> None:
    labels = [name.removesuffix(".png").split("_") for name in listed(raw / "faces")]
    users, poses, expressions, eyes = (Counter(column) for column in zip(*labels, strict=True))
    assert users == PHOTOS
    assert set(poses) == {"left", "right", "straight", "up"}
    assert set(expressions) == {"angry", "happy", "neutral", "sad"}
    assert set(eyes) == {"open", "sunglasses"}


@pytest.mark.shared
def test_faces_have_the_real_names(raw: Path) -> None:
    assert set(listed(raw / "faces")) == set(listed(SHARED / "faces"))


@pytest.mark.shared
def test_fungi_have_as_many_samples_as_the_real_ones(raw: Path) -> None:
    drawn, real = (
        Counter(kind for kind, _ in {tuple(name.split("_")[:2]) for name in listed(folder)})
        for folder in (raw / "fungi", SHARED / "fungi")
    )
    assert drawn == real


def test_faces_come_grey_in_three_sizes(raw: Path) -> None:
    images = [Image.open(path) for path in (raw / "faces" / "images").iterdir()]
    assert {image.mode for image in images} == {"L"}
    sizes = Counter(image.size for image in images)
    assert set(sizes) == {(128, 120), (64, 60), (32, 30)}
    assert min(sizes.values()) > 624 / 4


def test_fungi_are_crops_of_samples(raw: Path) -> None:
    images = [Image.open(raw / "fungi" / "images" / name) for name in listed(raw / "fungi")]
    assert {(image.mode, image.size, image.format) for image in images} == {
        ("RGB", (224, 224), "JPEG")
    }
    labels = [name.removesuffix(".jpg").split("_") for name in listed(raw / "fungi")]
    assert Counter(kind for kind, _, _ in labels) == dict.fromkeys(SAMPLES, 50)
    samples = Counter((kind, sample) for kind, sample, _ in labels)
    assert Counter(kind for kind, _ in samples) == SAMPLES
    assert max(samples.values()) > 3
    assert all(1 <= int(sequence) <= 20 for _, _, sequence in labels)


def test_digits_are_laid_out_as_keras_does(raw: Path) -> None:
    with np.load(raw / "digits" / "digits.npz") as stored:
        digits = dict(stored)
    assert {name: (a.shape, a.dtype.name) for name, a in digits.items()} == {
        "x_train": ((1347, 8, 8), "uint8"),
        "y_train": ((1347,), "uint8"),
        "x_test": ((450, 8, 8), "uint8"),
        "y_test": ((450,), "uint8"),
    }
    assert (digits["x_train"].min(), digits["x_train"].max()) == (0, 255)
    assert set(digits["y_test"]) == set(range(10))


def test_wine_has_the_real_columns_shares_and_repeats(raw: Path) -> None:
    table = pd.read_csv(raw / "wine" / "wine_quality.csv")
    assert [*table] == [*wine.READINGS, "quality", "color"]
    assert len(table) == 6497
    assert table.duplicated().sum() == 1177
    assert table["color"].value_counts().to_dict() == {"white": 4898, "red": 1599}
    assert table["quality"].value_counts().to_dict() == {"ok": 4974, "good": 1277, "bad": 246}
    readings = table[[*wine.READINGS]]
    assert np.isfinite(readings).all(axis=None)
    assert (readings >= 0).all(axis=None)
    assert (readings.drop(columns="citric_acid") > 0).all(axis=None)


def test_wine_colour_shows_and_quality_hardly(raw: Path) -> None:
    table = pd.read_csv(raw / "wine" / "wine_quality.csv").drop_duplicates()
    x = table[[*wine.READINGS]].rank(pct=True).to_numpy()
    train = np.arange(len(x)) % 4 > 0

    def recall(column: str) -> float:
        """Balanced accuracy on the quarter left out."""
        y = table[column].to_numpy()
        model = RidgeClassifier(class_weight="balanced").fit(x[train], y[train])
        hit = model.predict(x[~train]) == y[~train]
        return float(np.mean([hit[y[~train] == label].mean() for label in np.unique(y)]))

    assert recall("color") > 0.95
    assert 0.45 < recall("quality") < 0.7


@pytest.fixture(scope="module")
def photos(raw: Path) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (624, 15, 16) of the faces, 0-1, and their labels (624, 4)."""
    names = listed(raw / "faces")
    small = [Image.open(raw / "faces" / "images" / name).resize((16, 15)) for name in names]
    labels = [name.removesuffix(".png").split("_") for name in names]
    return np.stack([np.asarray(image) / 255 for image in small]), np.array(labels)


def test_faces_can_be_learnt_but_for_the_expression(
    photos: tuple[np.ndarray, np.ndarray],
) -> None:
    x, labels = photos
    flat = x.reshape(len(x), -1)
    sittings = ["_".join(label) for label in labels[:, (0, 1, 3)]]
    halves = list(GroupShuffleSplit(2, test_size=0.25, random_state=0).split(x, groups=sittings))

    def accuracy(head: int) -> float:
        y = labels[:, head]
        scores = [
            RidgeClassifier(alpha=1.0).fit(flat[train], y[train]).score(flat[test], y[test])
            for train, test in halves
        ]
        return float(np.mean(scores))

    userid, pose, expression, eyes = map(accuracy, range(4))
    assert userid > 0.6
    assert pose > 0.7
    assert eyes > 0.7
    assert 0.2 < expression < 0.6


def test_a_mirrored_left_looks_right(photos: tuple[np.ndarray, np.ndarray]) -> None:
    x, labels = photos
    poses = labels[:, 1]
    model = RidgeClassifier(alpha=1.0).fit(x.reshape(len(x), -1), poses)
    for pose, other in (("left", "right"), ("right", "left")):
        mirrored = x[poses == pose][:, :, ::-1]
        assert (model.predict(mirrored.reshape(len(mirrored), -1)) == other).mean() > 0.8
