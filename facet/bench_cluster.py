"""Measure what many runs cost besides their training: the coordinator of a cluster with workers
that make nothing, and DVC's graph and lock at growing sizes: `facet bench-cluster`."""

import contextlib
import os
import resource
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from distributed import LocalCluster, Worker

from facet.base.config import check_params, read_params
from facet.base.names import LOCK_FILE, PARAMS_FILE
from facet.grid.cluster import Cluster, ClusterRun
from facet.grid.cluster_plugin import TargetPlugin
from facet.grid.dvc_session import read_lock, write_lock
from facet.grid.plan import Plan
from facet.grid.progress import Progress
from facet.grid.worker import TargetResult
from facet.grid.worktree import LOGS, PROGRESS
from facet.memory import format_bytes

EMPTY_TAR = "H4sIAOmtC2sC/+3BAQ0AAADCoPdPbQ43oAAAAAAAAAAAAIA3A5reHScAKAAA"
WORKERS = 2


class StubPlugin(TargetPlugin):
    """Answers at once, with entries of the size of real ones."""

    def setup(self, worker: Worker) -> None:
        """Nothing is prepared."""
        self.worker = worker

    def teardown(self, worker: Worker) -> None:
        """Nothing is left."""

    def make(self, request: dict[str, Any]) -> dict[str, Any]:
        """What a target's process would answer."""
        out = {"path": "data/x", "hash": "md5", "md5": "0" * 32, "size": 1, "nfiles": 9}
        entry = {"cmd": "python -m stages x", "deps": [out] * 6, "outs": [out], "params": {}}
        return {
            "status": 0,
            "seconds": 0.0,
            "output": "made\n" * 20,
            "entries": request["entries"] | dict.fromkeys(request["stages"], entry),
            "ran": dict.fromkeys(request["stages"], 0.0),
            "notes": EMPTY_TAR,
            "worker": self.worker.address,
            "machine": "here",
        }


def bench_coordinator(runs: int) -> None:
    """Print what a coordinator takes for each of so many runs on a local cluster."""
    before = [f"{stage}@one" for stage in ("download", "pickle", "normalise", "augment")]
    plan: Plan = {"augment@one": ([], before)}
    made = {"augment@one": before}
    for number in range(runs):
        target = f"evaluate@run-{number}"
        made[target] = [f"train@run-{number}", target]
        plan[target] = (["augment@one"], [*before, *made[target]])
    parameters = check_params(read_params())
    results: dict[str, TargetResult] = {}
    options: dict[str, Any] = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}
    with in_new_folder(), LocalCluster(WORKERS, threads_per_worker=2, **options) as local:
        for folder in (LOGS, PROGRESS):
            folder.mkdir(parents=True)
        cluster = Cluster(local.scheduler_address, plugin=StubPlugin)
        begun, busy = time.monotonic(), time.process_time()
        progress = Progress(plan, set(), parameters, WORKERS, Path.cwd())
        progress.expected = {target: dict.fromkeys(made[target], 1.0) for target in plan}
        progress.live = None
        with progress, open(os.devnull, "w") as nowhere:
            progress.console.file = nowhere
            ClusterRun(cluster, plan, made, {}, progress, Path.cwd(), results).run()
        seconds, busy = time.monotonic() - begun, time.process_time() - busy
    assert len(results) == len(plan)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(
        f"coordinator and scheduler: {runs} runs that are made at once, on {WORKERS} workers: "
        f"{seconds:.1f} s; {1000 * busy / runs:.1f} ms of processor time a run; peak memory "
        f"{format_bytes(peak)}"
    )


@contextlib.contextmanager
def in_new_folder() -> Iterator[None]:
    """Work in an empty folder for a while."""
    with tempfile.TemporaryDirectory() as place, contextlib.chdir(place):
        yield


def bench_graph(stages: int) -> None:
    """Print what DVC takes for a graph of so many stages: a source, and copies of it."""
    graph = {
        "source": {"cmd": "echo 1 > source", "outs": ["source"]},
        "copy": {
            "foreach": "${items}",
            "do": {
                "cmd": "cp source copies/${key}",
                "deps": ["source"],
                "params": ["items.${key}"],
                "outs": ["copies/${key}"],
            },
        },
    }
    one = {"hash": "md5", "md5": "b026324c6904b2a9cb4b88d6d61c81d1", "size": 2}
    names = [f"n{number}" for number in range(stages - 1)]
    entries: dict[str, Any] = {
        "source": {"cmd": "echo 1 > source", "outs": [{"path": "source"} | one]}
    }
    for name in names:
        entries[f"copy@{name}"] = {
            "cmd": f"cp source copies/{name}",
            "deps": [{"path": "source"} | one],
            "params": {str(PARAMS_FILE): {f"items.{name}": 1}},
            "outs": [{"path": f"copies/{name}"} | one],
        }
    with in_new_folder():
        for words in (["git", "init", "--quiet"], ["dvc", "init", "--quiet"]):
            subprocess.run(words, check=True)
        Path("dvc.yaml").write_text(yaml.safe_dump({"stages": graph}))
        PARAMS_FILE.write_text(yaml.safe_dump({"items": dict.fromkeys(names, 1)}))
        Path("copies").mkdir()
        for name in ["source", *(f"copies/{name}" for name in names)]:
            Path(name).write_text("1\n")
        begun = time.monotonic()
        write_lock(LOCK_FILE, entries)
        writing = time.monotonic() - begun
        begun = time.monotonic()
        read_lock(LOCK_FILE)
        reading = time.monotonic() - begun
        begun = time.monotonic()
        subprocess.run(["dvc", "status", "--json"], check=True, capture_output=True)
        looking = time.monotonic() - begun
    print(
        f"{stages} stages: dvc.lock written in {writing:.1f} s (for each stage by plain dvc repro, "
        f"once by facet repro), read in {reading:.1f} s; dvc status {looking:.1f} s"
    )


def run_benchmarks(runs: int, stages: str) -> None:
    """Measure the coordinator with `runs` runs, and DVC with each number of `stages`."""
    if runs:
        bench_coordinator(runs)
    for number in filter(None, stages.split(",")):
        bench_graph(int(number))
