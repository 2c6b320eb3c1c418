"""W&B is told what the run's own files hold, and its failures cost seconds, never a result."""

import contextlib
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from facet.base.prepared import PreparedData, SplitData
from facet.tracking import offline_records, run_record, wandb_run
from tests.helpers import KEY, Project, run_program, some_in_test, wait_until, wandb_environment
from tests.tracking.helpers import recorded, track
from tests.tracking.server import Fault, Server


def test_an_offline_run_shows_the_machine_and_stays_inside_the_project(
    made_once: Project, made: Project
) -> None:
    about = json.loads((made.folder / "data/runs/dropped-0/model.json").read_text())
    here = offline_records.record_files(made.folder / "wandb", about["wandb"]["id"])
    trained, evaluated = (offline_records.read_records(file) for file in here)
    keys = {k for s in trained["stats"] for k in s["stats"]["item"]}
    assert {"cpu", "memory_percent", "proc.memory.rssMB", "disk./.usagePercent"} <= keys
    assert all("items_per_second" in h["history"]["item"] for h in trained["history"])
    assert "stats" not in evaluated  # its load is not the training's
    config = json.dumps(trained["run"] + trained.get("config", []))
    for word in ("data_sha256", "commit", "identity", "learning_rate", "processor"):
        assert word in config
    # The model waits where it lies: no second copy.
    copies = (made.folder / ".wandb-data").rglob("*")
    model = (made.folder / "data/runs/dropped-0/model.keras").read_bytes()
    assert not any(p.read_bytes() == model for p in copies if p.is_file())
    assert list((made_once.folder.parent / "home").rglob("*")) == []
    ignored = made.run("git", "status", "--porcelain").stdout
    assert "wandb" not in ignored


def test_comparisons_are_a_run_with_the_tables_and_plots(made: Project) -> None:
    (file,) = offline_records.record_files(made.folder / "wandb", "comparisons-*")
    found = offline_records.read_records(file)
    assert found["run"][0]["run"]["job_type"] == "compare"
    names = {a["artifact"]["name"].rpartition("-")[2] for a in found["artifact"]}
    assert {"comparisons", "runs"} <= names
    text = json.dumps(found["summary"])
    verdict = json.loads((made.folder / "metrics/comparisons.json").read_text())["dropout"]
    assert f'"dropout/verdict": "{verdict["verdict"]}"' in text
    assert "curves/dropout" in json.dumps(found["history"])


# --- a run without a training ----------------------------------------------------------------

IDS = """
import os, shutil
from pathlib import Path
from facet.tracking import wandb_run
def record_run(*how):
    run = wandb_run.Run("plain-0-abc", *how)
    run.finish()
    print(run.id)
record_run(), record_run(False, True), record_run(), record_run(True)
for folder in Path("wandb").glob("*-abc-r1"):
    shutil.rmtree(folder)
Path("wandb/pruned").write_text("plain-0-abc-r1\\n")
record_run()
"""


def test_a_repeat_is_a_run_beside_the_first_and_what_joins_is_no_repeat(tmp_path: Path) -> None:
    done = run_program(sys.executable, "-c", IDS, folder=tmp_path, **wandb_environment())
    first, second = "plain-0-abc", "plain-0-abc-r1"
    assert done.stdout.split() == [first, first, second, second, "plain-0-abc-r2"], done.stderr


@pytest.mark.parametrize(
    "moment", some_in_test(["before its first checkpoint", "in the middle"], "in the middle")
)
def test_a_killed_and_resumed_training_is_one_run_with_each_epoch_once(
    prepared: Project, moment: str
) -> None:
    words = [sys.executable, "-m", "stages", "train", "dropped-0"]
    env = os.environ | wandb_environment() | {"PYTHONPATH": ""}
    process = subprocess.Popen(
        words, cwd=prepared.folder, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    where = ".ckpt/*/state.npz" if moment == "in the middle" else "wandb/*run-*/*.wandb"
    wait_until(lambda: list(prepared.folder.glob(where)), moment)
    time.sleep(0.05 if moment == "in the middle" else 0.2)
    everything = psutil.Process(process.pid).children(recursive=True)
    for one in [*everything, psutil.Process(process.pid)]:
        with contextlib.suppress(psutil.Error):
            one.kill()
    process.wait(60)
    prepared.run(*words, **wandb_environment())
    files = offline_records.record_files(prepared.folder / "wandb")
    assert len(files) == 2
    assert len({file.name for file in files}) == 1  # the run's id
    histories = [offline_records.read_records(file).get("history", []) for file in files]
    steps = [h["history"]["item"]["_step"] for rows in histories for h in rows]
    assert steps == list(range(1, 41))


def test_kill_9_loses_no_epoch_and_three_seconds_show_the_cpu(tmp_path: Path) -> None:
    track(tmp_path, "killed,long")
    found = recorded(tmp_path)
    assert [h["history"]["item"]["epoch"] for h in found["history"]] == [1, 2, 3, 4, 5]
    assert sum("cpu" in s["stats"]["item"] for s in found["stats"]) >= 2


def test_disabled_imports_nothing_and_writes_nothing(tmp_path: Path) -> None:
    assert not track(tmp_path, cold=True, WANDB_MODE="disabled").imported_wandb
    assert not list(tmp_path.iterdir())


# --- what a server can do --------------------------------------------------------------------

FAULTS: dict[str, Fault] = {
    "hangs": lambda _: "hang",
    "answers 500": lambda _: 500,
    "does not know the key": lambda _: 401,
    "cuts every connection": lambda _: "drop",
    "takes no history": lambda what: "hang" if what == "file_stream" else None,
}


@pytest.mark.parametrize("what", some_in_test(["is not there", *FAULTS], "is not there", "hangs"))
def test_a_bad_server_costs_seconds_and_nothing_is_lost(
    tmp_path: Path, server: Server, what: str
) -> None:
    server.fault = FAULTS.get(what, lambda _: None)
    url = server.url if what in FAULTS else "http://127.0.0.1:9"
    errors = track(tmp_path, **wandb_environment(url)).errors
    assert "make sync" in errors
    assert "Traceback" not in errors
    assert len(recorded(tmp_path)["history"]) == 5
    if what == "hangs":  # what comes next in the grid does not even ask
        server.requests.clear()
        track(tmp_path, **wandb_environment(url))
        assert server.requests == []
        assert len(recorded(tmp_path)["history"]) == 10
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or KEY.encode() not in path.read_bytes(), path


def test_a_settings_file_is_heard_and_the_environment_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "environ", {"WANDB_CONFIG_DIR": str(tmp_path), "HOME": "/nowhere"})
    assert wandb_run.configure_wandb() == "offline"
    assert os.environ["WANDB_X_STATS_SAMPLING_INTERVAL"] == "0.5"
    assert (wandb_run.project_name(), wandb_run.entity_name()) == ("facet", None)
    (tmp_path / "settings").write_text(
        "[default]\nmode = online\nx_stats_sampling_interval = 9\nproject = faces\nentity = us\n"
    )
    monkeypatch.setattr(os, "environ", {"WANDB_CONFIG_DIR": str(tmp_path)})
    assert wandb_run.configure_wandb() == "online"
    assert "WANDB_X_STATS_SAMPLING_INTERVAL" not in os.environ
    assert (wandb_run.project_name(), wandb_run.entity_name()) == ("faces", "us")
    os.environ["WANDB_MODE"] = "disabled"
    assert wandb_run.configure_wandb() == "disabled"


# --- GPUs ------------------------------------------------------------------------------------

NVML = """
#include <string.h>
typedef struct { unsigned int gpu, memory; } Rates;
typedef struct { unsigned long long total, free, used; } Memory;
typedef struct { unsigned int version; unsigned long long total, reserved, free, used; } Memory2;
#define GIVE(name, value) \\
    int name(void *device, unsigned int *out) { *out = value; return 0; }
#define GIVE_OF(name, value) \\
    int name(void *device, int kind, unsigned int *out) { *out = value; return 0; }
#define TEXT(name, value) \\
    int name(void *device, char *out, unsigned int n) { strncpy(out, value, n); return 0; }
static int device;
int nvmlInit_v2(void) { return 0; }
int nvmlInitWithFlags(unsigned int flags) { return 0; }
int nvmlShutdown(void) { return 0; }
int nvmlSystemGetCudaDriverVersion(int *v) { *v = 12000; return 0; }
int nvmlSystemGetCudaDriverVersion_v2(int *v) { *v = 12000; return 0; }
int nvmlSystemGetDriverVersion(char *out, unsigned int n) { strncpy(out, "1", n); return 0; }
int nvmlDeviceGetCount_v2(unsigned int *n) { *n = 1; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned int i, void **d) { *d = &device; return i != 0; }
int nvmlDeviceGetUtilizationRates(void *d, Rates *r) { r->gpu = 42; r->memory = 17; return 0; }
int nvmlDeviceGetMemoryInfo(void *d, Memory *m)
    { m->total = 1000; m->used = 250; m->free = 750; return 0; }
int nvmlDeviceGetMemoryInfo_v2(void *d, Memory2 *m)
    { m->total = 1000; m->used = 250; m->free = 750; m->reserved = 0; return 0; }
int nvmlDeviceGetArchitecture(void *d, unsigned int *out) { *out = 8; return 0; }
TEXT(nvmlDeviceGetName, "Fake")
TEXT(nvmlDeviceGetUUID, "GPU-fake")
GIVE(nvmlDeviceGetPowerUsage, 50000)
GIVE(nvmlDeviceGetEnforcedPowerLimit, 100000)
GIVE(nvmlDeviceGetNumGpuCores, 1)
GIVE_OF(nvmlDeviceGetTemperature, 55)
GIVE_OF(nvmlDeviceGetClockInfo, 1000)
"""


@pytest.mark.compiler
def test_gpu_samples_would_flow(tmp_path: Path) -> None:
    """By a stand-in of NVIDIA's library."""
    (tmp_path / "nvml.c").write_text(NVML)
    library = tmp_path / "lib/libnvidia-ml.so.1"
    library.parent.mkdir()
    words = ["cc", "-shared", "-fPIC", "-o", str(library), str(tmp_path / "nvml.c")]
    subprocess.run(words, check=True)
    track(tmp_path, "long", LD_LIBRARY_PATH=str(library.parent))
    samples = [s["stats"]["item"] for s in recorded(tmp_path)["stats"]]
    seen = [s for s in samples if "gpu.0.gpu" in s]
    assert len(seen) >= 2
    assert seen[-1]["gpu.0.gpu"] == 42
    assert seen[-1]["gpu.0.temp"] == 55
    assert seen[-1]["gpu.0.memoryAllocated"] == pytest.approx(25)


# --- what a record holds ---------------------------------------------------------------------


def test_the_worst_answers_come_first_and_not_too_many() -> None:
    n = 2 * run_record.TABLE_ROWS
    sure = np.linspace(0.01, 0.99, n)
    names, X = np.arange(n).astype(str), np.full((n, 2, 2, 1), 128, "uint8")
    test = SplitData(X, {"a": np.zeros(n, int)}, names, names)
    data = PreparedData({}, {"a": np.array(["no", "yes"])}, {"test": test})  # type: ignore[typeddict-item]
    table = run_record.prediction_table(data, {"a_test": np.stack([sure, 1 - sure], 1)}, ["a"])
    assert table.columns == ["name", "image", "a_true", "a_predicted", "a_probability"]
    assert [row[0] for row in table.rows] == [str(i) for i in range(run_record.TABLE_ROWS)]
    assert table.rows[0][2:4] == ["no", "yes"]
    assert table.rows[0][1].dtype == np.uint8
    data.splits["test"] = replace(test, X=np.zeros((n, 3), "float32"))
    table = run_record.prediction_table(data, {"a_test": np.stack([sure, 1 - sure], 1)}, ["a"])
    assert "image" not in table.columns


def test_the_curves_of_a_comparison_are_means_over_seeds() -> None:
    curves = [
        {"experiment": e, "head": h, "part": p, "epoch": str(n), "value": str(value)}
        for (e, h, p, n), values in {
            ("plain", "pose", "training", 1): (0.1, 0.3),
            ("plain", "pose", "training", 2): (0.2, 0.6),
            ("plain", "pose", "validation", 1): (0.5, 0.7),
            ("dropped", "pose", "training", 1): (0.8,),
            ("plain", "eyes", "training", 1): (0.9,),
            ("other", "pose", "training", 1): (0.9,),
        }.items()
        for value in values
    ]
    c: Any = {"head": "pose", "baseline": "plain", "candidate": "dropped"}
    lines = run_record.plot_comparison("x", c, curves).lines
    assert lines == {
        "plain, training": ([1, 2], pytest.approx([0.2, 0.4])),
        "plain, validation": ([1], pytest.approx([0.6])),
        "dropped, training": ([1], [0.8]),
    }


def test_a_warning_of_a_run_is_an_alert(made: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(made.folder)
    file = Path("metrics/runs/plain-0.json")
    metrics = json.loads(file.read_text()) | {"warnings": ["odd: pose: 0.10 is little"]}
    file.write_text(json.dumps(metrics))
    assert run_record.record_run("plain-0").alerts == {"plain-0: odd": "odd: pose: 0.10 is little"}


def test_the_model_is_dvcs_own_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("model.keras").write_bytes(b"model")
    for words in (
        "git init -q",
        "dvc init -q",
        "dvc cache dir -q --local ../elsewhere",
        "dvc add -q model.keras",
    ):
        subprocess.run(words.split(), check=True, capture_output=True)
    Path("model.keras").unlink()
    Path("model.keras").write_bytes(b"model")
    held = run_record.find_cached(Path("model.keras"))
    assert held.read_bytes() == b"model"
    assert (tmp_path.parent / "elsewhere").resolve() in held.parents
    Path("model.keras").write_bytes(b"another")
    assert run_record.find_cached(Path("model.keras")) == tmp_path / "model.keras"
