"""What `facet inspect` proposes for data as people have them fits the data, and trains."""

import json
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from facet.base.arrays import load_arrays
from facet.base.config import read_params
from facet.base.prepared import load_prepared
from facet.datasets.inspection import find_source, inspect_source, make_name
from facet.errors import InputError
from tests.helpers import ROOT, Project, some_in_test, words_of
from tests.prediction.test_predict import check_answers

KINDS = ("circle", "square", "star")


def draw(kind: int, number: int, size: int = 16) -> np.ndarray:
    """A little picture whose brightest band tells its kind, height x width uint8."""
    pixels = np.random.default_rng(100 * kind + number).integers(0, 80, (size, size))
    pixels[kind * size // 3 : (kind + 1) * size // 3] += 150
    return pixels.astype("uint8")


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def class_folders(folder: Path) -> Path:
    for k, kind in enumerate(KINDS):
        for i in range(12):
            save(folder / kind / f"{i:03d}.png", draw(k, i))
    (folder / "readme.txt").write_text("?")
    return folder


def split_folders(folder: Path) -> Path:
    for part, numbers in (("train", range(12)), ("val", range(12, 16)), ("test", range(16, 22))):
        for k, kind in enumerate(KINDS):
            for i in numbers:
                save(
                    folder / part / kind / f"{i:03d}.png",
                    np.stack([draw(k, i)] * 2 + [draw(0, 0)], -1),
                )
    return folder


def index_beside_images(folder: Path) -> Path:
    rows = ["image,shape,author"]
    for i in range(36):
        save(folder / f"pictures/img{i}.png", draw(i % 3, i))
        rows.append(f"img{i},{KINDS[i % 3]},somebody {i}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return folder


def arrays(folder: Path) -> Path:
    folder.mkdir(parents=True)
    images = np.stack([draw(i % 3, i) for i in range(48)])[..., None]
    file = folder / "shapes.npz"
    np.savez(file, pictures=images, shape=np.array([KINDS[i % 3] for i in range(48)]))
    return file


def table(folder: Path) -> Path:
    folder.mkdir(parents=True)
    rng, rows = np.random.default_rng(0), ["id,length,town,remark,class"]
    for i in range(60):
        town = rng.choice(["Bern", "Chur", ""])
        length = "" if i % 15 == 4 else f"{i % 3 + rng.normal(0, 0.2):.3f}"
        rows.append(f"{i + 1000},{length},{town},note {i},0{i % 3}")
    file = folder / "plants.csv"
    file.write_text("\n".join(rows) + "\n")
    return file


def deep_greys(folder: Path) -> Path:
    for k, kind in enumerate(KINDS):
        for i in range(12):
            save(folder / kind / f"{i:03d}.png", draw(k, i).astype("uint16") * 17)  # 12 bits
    return folder


def zipped(folder: Path) -> Path:
    folder.mkdir(parents=True)
    made = class_folders(folder / "made")
    with zipfile.ZipFile(folder / "shapes.zip", "w") as file:
        for path in sorted(p for p in made.rglob("*") if p.is_file()):
            file.write(path, Path("shapes", path.relative_to(made)))
            file.writestr(f"__MACOSX/{path.parent.name}/._{path.name}", b"not an image")
    return folder / "shapes.zip"


LAYOUTS: dict[str, Callable[[Path], Path]] = {
    f.__name__: f
    for f in (class_folders, split_folders, index_beside_images, arrays, table, deep_greys, zipped)
}


def look(capsys: pytest.CaptureFixture[str], source: object, name: str = "") -> dict[str, Any]:
    """The entries that are printed for a source, and the comments under `comments`."""
    inspect_source(str(source), name, False)
    text = capsys.readouterr().out
    return yaml.safe_load(text) | {"comments": [x for x in text.splitlines() if "# " in x]}


@pytest.fixture
def proposed(
    project: Project,
    serve: Callable[..., Any],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[str], Project]:
    """Makes a project of what is printed for a layout, its data brought into one form."""

    def make(name: str) -> Project:
        monkeypatch.chdir(project.folder)
        given = project.folder.parent / "given" / name
        source: object = LAYOUTS[name](given)
        if name == "zipped":
            source = f"{serve(given)[0]}/shapes.zip"
        entries = look(capsys, source, name)
        assert entries["datasets"][name]["source"].endswith(str(source))
        project.parameters |= {k: entries[k] for k in ("datasets", "experiments")}
        project.parameters["comparisons"] = {}
        project.parameters["defaults"]["epochs"] = 1
        project.write()
        project.stage(f"download {name}", f"pickle {name}", f"normalise {name}")
        return project

    return make


HEADS = {"index_beside_images": "shape", "arrays": "label", "table": "class"}


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_is_read_as_was_printed(proposed: Callable[[str], Project], name: str) -> None:
    (data,) = load_prepared(proposed(name).folder / f"data/{name}/normalised")
    classes = ["00", "01", "02"] if name == "table" else list(KINDS)
    assert data.classes[HEADS.get(name, "kind")].tolist() == classes
    counts = [len(data.splits[split]) for split in ("train", "validation", "test")]
    assert sum(counts) == {"split_folders": 66, "arrays": 48, "table": 60}.get(name, 36)
    if name == "split_folders":
        assert counts == [36, 12, 18]
    assert data.about["input"].get("scale") == ([0, 4095] if name == "deep_greys" else None)


@pytest.mark.parametrize("name", some_in_test(LAYOUTS, "deep_greys", "table"))
def test_a_layout_trains_and_new_files_are_prepared_as_it_was(
    proposed: Callable[[str], Project], name: str
) -> None:
    project, run = proposed(name), f"{name}_small-0"
    project.stage(f"augment {name}_small", f"train {run}", f"evaluate {run}")
    metrics = json.loads((project.folder / f"metrics/runs/{run}.json").read_text())
    assert metrics["heads"][HEADS.get(name, "kind")]["accuracy"] is not None
    if name not in ("deep_greys", "table"):
        return
    # Scale, values as readings, gaps.
    raw = project.folder / f"data/{name}/raw"
    files = sorted(p for p in raw.rglob("*") if p.suffix in (".png", ".csv"))
    words = [sys.executable, "-m", "facet", "predict", run]
    lines = project.run(*words, *map(str, files), "--json").stdout.splitlines()
    items = {str(f): str(f.relative_to(raw / "images")) for f in files if f.suffix == ".png"}
    items |= {f"plants.csv:{row}": f"plants.csv:{row}" for row in range(1, 61)}
    answers = [json.loads(line) for line in lines]
    tested = load_arrays(project.folder / f"data/runs/{run}/predictions.npz")
    names = set(tested["names_test"].tolist())
    mine = [json.dumps(a) for a in answers if items[a["item"]] in names]
    check_answers(project, run, mine, items)
    if name == "table":
        other = project.folder / "other.csv"
        other.write_text("length,town\n1.5,Basel\n")
        done = project.run(*words, str(other), check=False)
        assert done.returncode == 1
        first = words_of(done.stderr.splitlines()[0])
        assert {"other.csv:1", "town", "Basel", "Bern", "Chur"} <= first


def test_what_is_found_left_out_and_not_known_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    folder = class_folders(tmp_path / "My shapes-2")
    (folder / "notes.csv").write_text("a,b\n1,2\n")
    printed = look(capsys, folder)
    assert set(printed["datasets"]) == {"my_shapes_2"}
    words = words_of(" ".join(printed["comments"]))
    assert {"36", "16x16x1", "circle", "12", "readme.txt", "notes.csv", "read.index"} <= words
    printed = look(capsys, table(tmp_path / "table"))
    words = words_of(" ".join(printed["comments"]))
    assert {"60", "5", "remark", "id", "class", "town", "22"} <= words


def test_names_tell_labels_groups_and_the_own_split(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    for i in range(96):
        label, group = ("plain", "striped", "dotted")[i % 3], i // 3 % 16
        save(tmp_path / f"tiles/{label}_g{group}_{i}.png", draw(i % 3, i))
    (tiles,) = look(capsys, tmp_path / "tiles")["datasets"].values()
    assert tiles["heads"] == {"part_1": {"part": "part_1"}}
    assert tiles["group"] == {"part_2": ["part_1", "part_2"]}
    assert tiles["split"]["by"] == "part_2"
    for part, numbers in (("train", range(40)), ("test", range(40, 60))):
        rows = [f"{i * 7 % 13}.5,{'xy'[i * 7 % 13 % 2]}" for i in numbers]
        (tmp_path / "two").mkdir(exist_ok=True)
        (tmp_path / f"two/{part}.csv").write_text("\n".join(["a,kind", *rows]) + "\n")
    (two,) = look(capsys, tmp_path / "two")["datasets"].values()
    assert two["split"]["by"] == "own"
    assert two["read"]["constants"]["test.csv"] == {"part": "test"}


@pytest.mark.parametrize(
    ("files", "named"),
    [
        ({"a.txt": b"?"}, {"images", "tables", "arrays"}),
        ({f"{k}/{i}.png": b"no image" for k in "ab" for i in "12"}, {"a/1.png", "not", "PNG"}),
        ({"x.csv": b"a,b\n1,2\n3,4\n"}, {"label", "heads.NAME.bins"}),
        ({"x.npz": b"no zip"}, {"npz"}),
        ({"x.zip": b"no zip"}, {"x.zip", "unpacked"}),
    ],
)
def test_what_cannot_be_used_is_told_in_one_line(
    tmp_path: Path, files: dict[str, bytes], named: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    for name, content in files.items():
        (tmp_path / "s" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "s" / name).write_bytes(content)
    source = tmp_path / "s" / ("x.zip" if "x.zip" in files else "")
    with pytest.raises(InputError) as e:
        inspect_source(str(source), "x", False)
    assert named <= words_of(e.value), e.value
    assert "\n" not in str(e.value)


def test_images_without_labels_and_at_different_depths_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    for i in range(12):
        save(tmp_path / f"a/{i}.png", draw(i % 3, i))
    with pytest.raises(InputError, match="no labels"):
        inspect_source(str(tmp_path / "a"), "x", False)
    class_folders(tmp_path / "a")
    with pytest.raises(InputError) as e:
        inspect_source(str(tmp_path / "a"), "x", False)
    assert {"0.png", "circle/000.png", "depths"} <= words_of(e.value)


def test_a_missing_source_is_not_found(project: Project) -> None:
    for source in ("no/such/folder", f"file://{project.folder}/absent", "absent.csv"):
        done = project.run(sys.executable, "-m", "facet", "inspect", source, check=False)
        assert done.returncode == 1
        assert done.stdout == ""
        assert done.stderr.rstrip().endswith(f"{source}: not found")
        assert done.stderr.count("\n") == 1


def test_an_entry_is_written_and_the_comments_stay(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    before = (tmp_path / "params.yaml").read_text()
    inspect_source(str(class_folders(tmp_path / "shapes")), "", True)
    printed = yaml.safe_load(capsys.readouterr().out)
    after = (tmp_path / "params.yaml").read_text()
    rest = iter(after.splitlines())
    assert all(line in rest for line in before.splitlines())  # all of them, in their order
    tree = read_params()
    assert tree["datasets"]["shapes"] == printed["datasets"]["shapes"]
    assert list(tree["experiments"])[-1] == "shapes_small"
    assert len(tree["comparisons"]) == len(yaml.safe_load(before)["comparisons"])
    with pytest.raises(InputError, match=r"shapes.*--name"):
        inspect_source("shapes", "", True)
    flow = "{" + ", ".join(f"{k}: {json.dumps(v)}" for k, v in tree.items()) + "}"
    (tmp_path / "params.yaml").write_text(flow)
    with pytest.raises(InputError, match="by hand"):
        inspect_source("shapes", "more", True)
    assert (tmp_path / "params.yaml").read_text() == flow


def test_a_data_set_is_named_after_its_source(tmp_path: Path) -> None:
    for url, name in (
        ("https://example.org/a/My%20Data-v2.tar.gz", "my_20data_v2"),
        ("file:///a/leaves.csv#sha256=" + "0" * 64, "leaves"),
        ("s3://bucket/2024/", "data_2024"),
    ):
        assert make_name(url) == name
    assert find_source("embedded") == "embedded"
    assert find_source(str(tmp_path)) == f"file://{tmp_path}"


def test_columns_and_arrays_tell_the_own_split(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    rows = ["file,part,age,kind"]
    for i in range(40):
        save(tmp_path / f"a/{i}.png", draw(i % 3, i))
        rows.append(f"{i}.png,{('Train', 'Valid', 'Test')[i // 15]},{i / 7:.1f},{i % 3}")
    (tmp_path / "a/more.csv").write_text("\n".join([*rows, "99.png,Test,1,0"]) + "\n")
    printed = look(capsys, tmp_path / "a")
    index = {"file": "more.csv", "column": "file", "unmatched": "drop"}
    assert printed["datasets"]["a"]["read"] == {"index": index, "own": {"field": "part"}}
    assert printed["datasets"]["a"]["heads"] == {"kind": {"column": "kind"}}
    words = words_of(" ".join(printed["comments"]))
    assert {"1", "rows", "age", "15", "10"} <= words

    x = np.stack([draw(i % 3, i) for i in range(30)])
    y, z = np.arange(30) % 3, np.arange(30) % 2
    named = {"kind_train": y, "big_train": z, "kind_val": y, "big_val": z, "idle": x}
    np.savez(tmp_path / "b.npz", x_train=x, x_val=x[::-1] + 1, **named)
    (entry,) = look(capsys, tmp_path / "b.npz")["datasets"].values()
    both = {
        "train": ["x_train", "kind_train", "big_train"],
        "test": ["x_val", "kind_val", "big_val"],
    }
    for part, (images, kind, big) in both.items():
        expected = {"x": images, "y": {"kind": kind, "big": big}}
        assert entry["read"]["arrays"][part] == expected
    assert entry["split"]["by"] == "own"

    rows = [
        f"{i},{i / 7:.2f},{'ABC'[i % 3]},{('train', 'test')[i // 40]},{i % 2}" for i in range(60)
    ]
    (tmp_path / "c.csv").write_text("\n".join(["Unnamed: 0,x,grade,set,y", *rows]) + "\n")
    (entry,) = look(capsys, tmp_path / "c.csv")["datasets"].values()
    own = {"own": {"field": "set"}}
    assert entry["read"] == own | {"ignore": ["Unnamed:_0"], "one_hot": ["grade"]}
    assert entry["heads"] == {"y": {"column": "y"}}


def test_transparency_sizes_and_a_missing_test_part_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    for i in range(24):
        part, kind = ("training", "dev")[i // 15], KINDS[i % 3]
        pixels = np.dstack([draw(i % 3, i, 200)] * 3 + [np.full((200, 200), 255 - i % 2)])
        save(tmp_path / f"a/{part}/{kind}/{i}.png", pixels[: 150 + i % 3 * 25].astype("uint8"))
    printed = look(capsys, tmp_path / "a")
    (entry,) = printed["datasets"].values()
    assert entry["read"]["own"] == {"field": "part", "validation": [], "test": ["dev"]}
    assert entry["read"]["alpha"] == "white"
    assert max(entry["size"]) == 64
    words = words_of(" ".join(printed["comments"]))
    assert {"200x150x4", "200x175x4", "grey", "read.alpha", "size", "validation"} <= words
