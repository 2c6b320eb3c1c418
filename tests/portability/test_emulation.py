"""The same bytes on each x86-64 processor with AVX2: limits in force, emulated ones agree."""

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from facet.base import processor
from facet.base.storage import md5
from facet.portability import emulation
from facet.portability.steps import FAULTS
from facet.tracking.provenance import describe_processor, name_processor
from tests.helpers import ONE_CORE, TIMEOUT, Project, run_program, words_of

# What each library says of the kernels that it uses, in a process that imported the library first.
IN_FORCE = """
import json, os
import facet.models.training
from facet.models.runtime import configure_tensorflow
from numpy.lib.introspect import opt_func_info
import scipy.linalg
from threadpoolctl import threadpool_info
os.environ["ONEDNN_VERBOSE"] = "1"
configure_tensorflow(1)
import tensorflow as tf
tf.ones((64, 640)) @ tf.ones((640, 64))
numpy = opt_func_info(func_name="^(exp|sin|multiply)$", signature="float32|float64")
print(json.dumps({
    "numpy": sorted({kind["current"] for f in numpy.values() for kind in f.values()}),
    "openblas": [[t["architecture"], t["num_threads"]] for t in threadpool_info()
                 if t["internal_api"] == "openblas"]}))
"""
CPUINFO = """processor\t: 0
vendor_id\t: GenuineIntel
cpu family\t: 6
model\t\t: 42
model name\t: Old
flags\t\t: fpu sse4_2 avx

processor\t: 1
"""


@pytest.mark.emulator
def test_an_emulated_processor_prepares_the_same_bytes() -> None:
    emulator = emulation.find_emulator()
    ours, theirs = (
        emulation.hash_steps(name, emulator, "--data") for name in (None, emulation.PROCESSORS[0])
    )
    assert {"resize", "augment", "elastic", "statistics", "numpy"} == set(ours)
    assert theirs == ours


@pytest.mark.slow
@pytest.mark.emulator
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", emulation.PROCESSORS[:3])
def test_an_emulated_processor_trains_the_same_bytes_and_finds_both_faults(name: str) -> None:
    emulator = emulation.find_emulator()
    ours, theirs = (emulation.hash_steps(p, emulator, "--faults") for p in (None, name))
    assert set(theirs) == set(ours)
    assert len(ours) > 6
    assert emulation.find_differences(ours, theirs) == list(FAULTS)


def test_where_and_by_whom_it_is_run_changes_no_byte(made_once: Project, tmp_path: Path) -> None:
    """Against what the grid made: in another folder, by another user's settings, on one core."""
    memory = Path("/dev/shm")
    other = Path(tempfile.mkdtemp(prefix="a folder, ä ", dir=memory if memory.is_dir() else None))
    home = tmp_path / "nobody"
    home.mkdir()
    strange = {
        "LC_ALL": "C",
        "TZ": "Pacific/Kiritimati",
        "PYTHONHASHSEED": "3",
        "HOME": str(home),
        "GIT_CONFIG_GLOBAL": os.devnull,
        "COLUMNS": "40",
        "OMP_NUM_THREADS": "2",
    }
    stages = [f"{s} faces" for s in ("download", "pickle", "normalise")]
    stages += ["augment dropped", "train dropped-0", "evaluate dropped-0"]
    try:
        folder = made_once.copy_to(other / "project").forget().folder
        for stage in stages:
            words = ["sh", "-c", 'umask 077; exec "$@"', "sh", *ONE_CORE]
            words += [sys.executable, "-m", "stages", *stage.split()]
            subprocess.run(words, cwd=folder, env=os.environ | strange, check=True, timeout=TIMEOUT)
        found = {
            path: md5(folder / path)
            for name in ("data", "metrics/runs")
            for path in (str(p.relative_to(folder)) for p in (folder / name).rglob("*.*"))
        }
        assert len(found) > 60
        assert found == {path: md5(made_once.folder / path) for path in found}
    finally:
        shutil.rmtree(other)


@pytest.mark.avx2
def test_each_library_uses_avx2_and_no_more_whatever_the_environment_says() -> None:
    environment = {
        "ONEDNN_MAX_CPU_ISA": "AVX512_CORE",
        "OPENBLAS_CORETYPE": "SkylakeX",
        "NPY_DISABLE_CPU_FEATURES": "",
        "TF_ENABLE_ONEDNN_OPTS": "0",
    }
    done = run_program(sys.executable, "-c", IN_FORCE, cold=True, **environment)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split(",")[4] for line in lines if ",info,cpu,isa:" in line] == ["isa:Intel AVX2"]
    facts = json.loads(next(line for line in lines if line.startswith("{")))
    assert facts["numpy"] == ["X86_V3"]
    assert facts["openblas"]
    assert all(t == ["Haswell", 1] for t in facts["openblas"])


def test_a_processor_that_promises_nothing_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processor, "CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.delenv("OPENBLAS_CORETYPE", raising=False)
    (tmp_path / "cpuinfo").write_text(CPUINFO)
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    assert "AVX2" in words_of(processor.why_other_bytes())
    assert processor.why_other_bytes() in processor.note_other_bytes()
    processor.limit_instructions()
    assert "OPENBLAS_CORETYPE" not in os.environ  # its kernels would end the process
    facts = describe_processor()
    assert (facts["vendor"], facts["family"], facts["model"], facts["name"]) == (
        "GenuineIntel",
        "6",
        "42",
        "Old",
    )
    assert (facts["flags"], facts["same_bytes"]) == (["sse4_2", "avx"], False)
    assert {"Old", "GenuineIntel", "6/42", "x86_64", "avx"} <= words_of(name_processor(facts))

    (tmp_path / "cpuinfo").write_text(CPUINFO.replace("avx", "avx avx2 fma"))
    assert processor.note_other_bytes() == ""
    processor.limit_instructions()
    assert os.environ["OPENBLAS_CORETYPE"] == "Haswell"
    assert describe_processor()["same_bytes"]
    assert not describe_processor(["a GPU"])["same_bytes"]
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert "aarch64" in words_of(processor.note_other_bytes())
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    (tmp_path / "cpuinfo").unlink()
    assert "cpuinfo" in processor.note_other_bytes()
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    assert "Darwin" in words_of(processor.note_other_bytes())
