"""The course's setting takes the sources as they are published."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from facet.bench_data import serve_slowly
from facet.bench_setting import move_sources, pack_sources
from tests.helpers import ROOT, SHARED, run_program


@pytest.mark.slow
@pytest.mark.shared
def test_published_sources_are_pickled(tmp_path: Path) -> None:
    for name in ("params.yaml", "requirements.lock"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "settings", tmp_path / "settings")
    datasets = ("faces", "fungi", "digits", "wine")
    with serve_slowly(pack_sources(SHARED, {"H1": 3, "H6": 2}), seconds=0) as url:
        commands = [["facet", "setting", "class"]]
        for dataset in datasets:
            commands += [["stages", stage, dataset] for stage in ("download", "pickle")]
        for command in commands:
            done = run_program(sys.executable, "-m", *command, folder=tmp_path)
            assert done.returncode == 0, done.stderr
            move_sources(tmp_path / "params.yaml", url)
    items = [len(np.load(tmp_path / f"data/{d}/pickled/names.npy")) for d in datasets]
    assert items == [1872, 5, 70000, 6497]
