"""The README's picture is what dvc.yaml and the code give."""

import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

from facet import readme_picture
from tests.helpers import ROOT


def test_the_picture_is_what_the_code_gives() -> None:
    drawn = readme_picture.draw_architecture(ROOT)
    assert (ROOT / "docs/architecture.svg").read_text().rstrip() == drawn.rstrip(), (
        "facet architecture > docs/architecture.svg draws it anew"
    )
    assert "](docs/architecture.svg)" in (ROOT / "README.md").read_text()


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A copy of the project's graph and code."""
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    for name in ("facet", "stages"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def read_texts(picture: str) -> list[str]:
    """What is written in the picture, line by line."""
    found = ElementTree.fromstring(picture).iter("{http://www.w3.org/2000/svg}text")
    return [str(element.text) for element in found]


def test_a_new_package_and_what_imports_it_show(copied: Path) -> None:
    (copied / "facet/pruning").mkdir()
    (copied / "facet/pruning/__init__.py").write_text("")
    (copied / "facet/pruning/cut.py").write_text("def f():\n    from facet.models import network\n")
    lines = read_texts(readme_picture.draw_architecture(copied))
    at = lines.index("pruning")
    assert lines[at + 1 : at + 3] == ["cut", "imports models"]
    assert at < lines.index("download")  # among those that commands alone use

    with (copied / "stages/compare.py").open("a") as file:
        file.write("from facet.pruning import cut\n")
    lines = read_texts(readme_picture.draw_architecture(copied))
    assert lines.index("pruning") > lines.index("compare")  # beneath the stage that imports it


def test_a_new_stage_shows_with_its_arrow(copied: Path) -> None:
    before = readme_picture.draw_architecture(copied)
    graph = yaml.safe_load((copied / "dvc.yaml").read_text())
    graph["stages"]["publish"] = {
        "foreach": "${experiments}",
        "do": {"cmd": "x", "deps": ["data/augmented/${key}"], "outs": ["data/${key}.tar"]},
    }
    (copied / "dvc.yaml").write_text(yaml.safe_dump(graph, sort_keys=False))
    after = readme_picture.draw_architecture(copied)
    lines = read_texts(after)
    at = lines.index("publish")
    assert " ".join(lines[at + 1 : at + 5]).startswith("each experiment data/ EXPERIMENT.tar")
    assert after.count('class="arrow"') == before.count('class="arrow"') + 1


def test_arrows_that_follow_from_others_are_left_out() -> None:
    graph = {"a": {"b", "c", "d"}, "b": {"c"}, "c": {"d"}, "d": set()}
    assert readme_picture.drop_implied(graph) == {"a": {"b"}, "b": {"c"}, "c": {"d"}, "d": set()}
