"""What the files hold is what facet/formats.py and docs/formats.md say."""

import json
from typing import Any, get_type_hints

import pytest
from pydantic import ConfigDict, TypeAdapter, ValidationError

from facet import formats
from facet.base.storage import read_csv
from tests.helpers import ROOT, Project

CONFIG = ConfigDict(extra="forbid", arbitrary_types_allowed=True)


def check(kind: Any, value: Any) -> None:
    """Assert that `value` has the keys and types of `kind`, and no others."""
    kind.__pydantic_config__ = CONFIG
    for inner in vars(formats).values():
        if hasattr(inner, "__required_keys__"):
            inner.__pydantic_config__ = CONFIG
    TypeAdapter(kind).validate_python(value)


def test_the_page_is_what_the_types_say() -> None:
    page = (ROOT / "docs/formats.md").read_text()
    assert page.rstrip() == formats.describe_formats().rstrip(), (
        "facet formats > docs/formats.md writes it anew"
    )


def test_files_hold_what_their_types_say(made_once: Project) -> None:
    folder = made_once.folder

    def read(path: str) -> Any:
        return json.loads((folder / path).read_text())

    check(formats.RawManifest, read("data/faces/raw/manifest.json"))
    check(formats.ItemsInfo, read("data/faces/pickled/about.json"))
    check(formats.DataInfo, read("data/faces/normalised/about.json"))
    check(formats.DataInfo, read("data/augmented/plain/about.json"))
    check(formats.ModelInfo, read("data/runs/plain-0/model.json"))
    check(formats.RunMetrics, read("metrics/runs/plain-0.json"))
    check(formats.RunCosts, read("metrics/costs/plain-0.json"))
    check(formats.Manifest, read("metrics/manifests/plain-0.json"))
    for result in read("metrics/comparisons.json").values():
        check(formats.ComparisonResult, result)
    for file, kind in (("runs.csv", formats.RunRow), ("curves.csv", formats.CurveRow)):
        for row in read_csv(folder / "metrics" / file):
            assert list(row) == list(get_type_hints(kind)), file

    with pytest.raises(ValidationError):
        check(formats.RunMetrics, read("metrics/runs/plain-0.json") | {"more": 1})
    with pytest.raises(ValidationError):
        check(formats.RunCosts, read("metrics/costs/plain-0.json") | {"threads": "one"})
