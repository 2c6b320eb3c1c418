"""Weights & Biases, the only importer of it: a run that can never harm a stage.

Configured by W&B's own environment variables and settings files; offline unless those say
otherwise. Whatever W&B does, the stage's result stands and a process loses seconds at most.
"""

import configparser
import contextlib
import importlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import numpy as np
import requests

from facet.base.config import parse_run
from facet.tracking import offline_records

PROJECT = "facet"
SERVER = "https://api.forge.coreweave.com"  # W&B's own default; under it `wandb login` has the key
# Not result-changing, so not in params.yaml. Sampling and flushing often lets a run of seconds
# show its CPU, and leaves at most a second to lose to kill -9.
DEFAULTS = {
    "mode": "offline",
    "project": PROJECT,
    "x_stats_sampling_interval": "0.5",
    "x_transaction_log_flush_interval": "0.5",
    "x_disable_viewer": "true",
    "init_timeout": "4",
    "console": "off",
    "error_reporting": "false",
    "silent": "true",
}
FINISH_SECONDS = 7.0
JOINED = "joined"  # lies in the folder of a process that added to another's run
PRUNED = "pruned"  # names the runs whose folders were removed after their upload
OFFLINE = "offline"  # lies beside the runs' folders after a server failed
READ_SECONDS = 3.0  # for a server's first answer
GATEWAY_ERRORS = (502, 503, 504)  # what a proxy says of a server that it cannot reach
ASK_AGAIN = 600  # seconds for which that keeps the other processes from asking it too


@dataclass
class Table:
    """Columns and rows; a cell that is an array, height x width x channels uint8, is an image."""

    columns: list[str]
    rows: list[list[Any]]


@dataclass
class Plot:
    """Lines over one axis: `lines` names each one's (x, y) lists."""

    title: str
    x: str
    lines: dict[str, tuple[list[float], list[float]]]


class RunOptions(TypedDict):
    """How W&B shows a run: arguments of `wandb.init`."""

    name: str
    group: NotRequired[str]
    job_type: str
    tags: list[str]


@dataclass
class RunRecord:
    """What W&B records of one run; plain things and paths, made from the run's stored files."""

    id: str
    options: RunOptions
    config: dict[str, Any] = field(default_factory=dict)
    rows: list[dict[str, float]] = field(default_factory=list)  # steps 1, 2, ...
    shown: dict[str, Path | Table | Plot] = field(default_factory=dict)  # one step after the rows
    summary: dict[str, float | str] = field(default_factory=dict)
    files: dict[str, Path] = field(default_factory=dict)  # of the artifact of type model
    alerts: dict[str, str] = field(default_factory=dict)


# --- a run as W&B shows it -------------------------------------------------------------------


def describe_run(run: str, dataset: str) -> RunOptions:
    """Name, group, job type and tags of a run."""
    experiment, _ = parse_run(run)
    return {"name": run, "group": experiment, "job_type": "train", "tags": [dataset, experiment]}


def epoch_metrics(row: dict[str, float]) -> dict[str, float]:
    """A row of a run's history under the names W&B shows: `train/loss`, `val/HEAD/accuracy`."""

    def name(key: str) -> str:
        if key in ("epoch", "learning_rate"):
            return key
        part = "val" if key.startswith("val_") else "train"
        metric = key.removeprefix("val_")
        head = metric.removesuffix("_accuracy")
        return f"{part}/{metric}" if head == metric else f"{part}/{head}/accuracy"

    return {name(k): v for k, v in row.items()}


# --- W&B's settings --------------------------------------------------------------------------


def configure_wandb() -> str:
    """Set what neither the environment nor a settings file sets; returns the mode."""
    root = Path(os.environ.get("DVC_ROOT", ".")).resolve()
    os.environ.setdefault("WANDB_DIR", str(root))
    os.environ.setdefault("WANDB_DATA_DIR", str(root / ".wandb-data"))
    os.environ.setdefault("WANDB_CACHE_DIR", str(root / ".wandb-cache"))
    settings = read_settings()
    for key, value in DEFAULTS.items():
        if key not in settings:
            os.environ.setdefault(f"WANDB_{key.upper()}", value)
    return os.environ.get("WANDB_MODE") or settings.get("mode", "offline")


def read_settings() -> dict[str, str]:
    """What W&B's settings files say, the project's over the user's."""
    home = Path(os.environ.get("WANDB_CONFIG_DIR", Path.home() / ".config/wandb"))
    files = configparser.ConfigParser(interpolation=None)
    try:
        files.read([home / "settings", runs_folder() / "settings"])
        return dict(files["default"])
    except (configparser.Error, KeyError, UnicodeDecodeError):
        return {}


def runs_folder() -> Path:
    """Where W&B keeps its runs."""
    return Path(os.environ.get("WANDB_DIR", ".")) / "wandb"


def server_url() -> str:
    """The W&B server's URL."""
    url = os.environ.get("WANDB_BASE_URL") or read_settings().get("base_url", SERVER)
    return url.rstrip("/")


def project_name() -> str:
    """The W&B project runs go to."""
    return os.environ.get("WANDB_PROJECT") or read_settings().get("project", PROJECT)


def entity_name() -> str | None:
    """The user or team whose project it is; None for the key's own user."""
    return os.environ.get("WANDB_ENTITY") or read_settings().get("entity")


def server_reachable(seconds: float = 1.0) -> bool:
    """Whether something answers where the W&B server should be, through a proxy if one is set."""
    try:
        answer = requests.head(server_url(), timeout=(seconds, READ_SECONDS), allow_redirects=False)
    except (requests.ReadTimeout, requests.exceptions.SSLError):
        return True  # something is there, and W&B may know its certificate
    except (requests.RequestException, ValueError):
        return False
    return answer.status_code not in GATEWAY_ERRORS


def recently_failed() -> bool:
    """Whether a process found the server failing minutes ago, so that others need not ask it."""
    try:
        return time.time() - (runs_folder() / OFFLINE).stat().st_mtime < ASK_AGAIN
    except OSError:
        return False


def clear_offline_marker() -> None:
    """Let the next process ask the server again."""
    (runs_folder() / OFFLINE).unlink(missing_ok=True)


def local_run_ids(id: str) -> list[str]:
    """The ids under which this machine trained run `id`, its deliberate repeats after it."""
    here = runs_folder()
    # By the file: two runs that begin within a second have their folders numbered.
    found = {
        p.stem.removeprefix("run-")
        for p in here.glob(f"*run-*/run-{id}*.wandb")
        if not (p.parent / JOINED).exists()
    }
    if (here / PRUNED).exists():
        found |= {i for i in (here / PRUNED).read_text().splitlines() if i.startswith(id)}
    return sorted(found, key=lambda i: int(i.removeprefix(id).removeprefix("-r") or 0))


def read_progress(id: str) -> tuple[int, bool]:
    """The last step that this machine recorded of run `id`, and whether it came to an end.

    (0, True) of one that is no longer here: it was uploaded and removed.
    """
    step, ended, files = 0, False, offline_records.record_files(runs_folder(), id)
    for file in files:
        if (file.parent / JOINED).exists():
            continue
        try:
            records = offline_records.read_records(file)
        except (OSError, subprocess.CalledProcessError, ValueError):
            return 0, True  # nothing can be said of it
        # One that a signal or an error ended has an exit too.
        ended = ended or any(r["exit"].get("exit_code", 0) == 0 for r in records.get("exit", []))
        steps = [int(r["history"]["item"]["_step"]) for r in records.get("history", [])]
        step = max([step, *steps])
    return step, ended or not files


# --- a run -----------------------------------------------------------------------------------


def import_wandb() -> None:
    """Import now what a run will: before TensorFlow, since it asks each module that is imported
    for its name, 80 times over.
    """
    if configure_wandb() == "disabled":
        return
    for name in ("wandb", "wandb.sdk.launch.inputs.internal"):  # the latter at each start of a run
        with contextlib.suppress(Exception):  # the run says what is wrong
            importlib.import_module(name)


class Run:
    """One W&B run, or nothing where W&B does not work; no method raises."""

    def __init__(self, id: str, resumed: bool = False, joins: bool = False, **options: Any) -> None:
        """Start run `id`, or one beside it if this machine trained it before and it is repeated.

        A `resumed` training goes on in the run it was in. A process that `joins` adds to a run
        that another made, and does not pass its own load off as that one's. `options` are those
        of wandb.init: config, group, job_type, tags, name.
        """
        self._run: Any = None
        self.id = id
        self._online = False
        self._logged = 0  # steps that this machine recorded before
        try:
            self._start(resumed, joins, options)
        except Exception as e:
            self._say(f"not tracked: {type(e).__name__}: {str(e)[:120]}")

    def _start(self, resumed: bool, joins: bool, options: dict[str, Any]) -> None:
        mode = configure_wandb()
        if mode == "disabled":
            return
        self._earlier = local_run_ids(self.id.partition("-r")[0] if joins else self.id)
        if self._earlier and not joins:
            last = self._earlier[-1].removeprefix(self.id).removeprefix("-r") or 0
            steps, ended = read_progress(self._earlier[-1])
            # One that was killed goes on in its run, before its first checkpoint too.
            goes_on = resumed or not ended
            self.id = self._earlier[-1] if goes_on else f"{self.id}-r{int(last) + 1}"
            self._logged = steps if goes_on else 0
        if mode == "online" and recently_failed():
            mode = "offline"
        elif mode == "online" and not server_reachable():
            self._fail("the server cannot be reached")
            mode = "offline"
        for tried in dict.fromkeys([mode, "offline"]):
            try:
                import wandb

                # A sweep's id that was left in a settings file, or for a command, would have W&B
                # take another id than this run's. A sweep's own run has the id that the agent gave.
                if os.environ.get("WANDB_RUN_ID") != self.id:
                    wandb.setup().settings.sweep_id = None
                self._run = wandb.init(
                    id=self.id,
                    resume="allow",
                    mode=tried,  # type: ignore[arg-type]
                    settings=wandb.Settings(
                        finish_timeout=FINISH_SECONDS,
                        finish_timeout_raises=True,
                        save_code=False,
                        x_save_requirements=not joins,
                        x_disable_stats=joins,
                    ),
                    **options,
                )
                self._online = tried == "online"
                if joins:
                    (Path(self._run.settings.sync_dir) / JOINED).touch()
                return
            except Exception as e:
                message = f"{tried} failed: {type(e).__name__}: {str(e)[:120]}"
                self._fail(message) if tried == "online" else self._say(message)
                self._quietly("teardown")

    def log(self, values: dict[str, Any], step: int) -> None:
        """One row of the history."""
        # Without commit W&B holds the row back until the next one: an epoch to lose to kill -9.
        self._quietly("log", values, step=step, commit=True)

    def log_missing(self, rows: list[dict[str, float]]) -> None:
        """The rows, steps 1, 2, ..., that were lost when a training was killed."""
        known = self._logged
        if self._online and self._run is not None:
            known = max(self._run.step - 1, 0)
        for step, row in enumerate(rows, 1):
            if step > known:
                self.log(row, step)

    def define_axis(self, name: str) -> None:
        """Draw the metrics of epochs over `name`."""
        self._quietly("define_metric", name)
        # Not "*": a row of pictures, which has no epoch, would be given epoch 0.
        for metric in ("train/*", "val/*", "learning_rate", "items_per_second"):
            self._quietly("define_metric", metric, step_metric=name)

    def log_record(self, record: RunRecord, known: int | None = None) -> None:
        """Tell all of `record` but the rows W&B has, of which there are `known`.

        Unless given, that is what the server says or, offline, all if this machine trained the run.
        """
        if self._run is None:
            return
        try:
            if known is None:
                trained_here = len(record.rows) if self.id in self._earlier else 0
                known = max(self._run.step - 1, 0) if self._online else trained_here
            self._log_record(record, known)
        except Exception as e:
            self._say(f"{type(e).__name__}: {str(e)[:120]}")

    def _log_record(self, record: RunRecord, known: int) -> None:
        import wandb

        if record.rows:
            self.define_axis("epoch")
        for step, row in enumerate(record.rows, 1):
            if step > known:
                self.log(row, step)
        # The provenance of a training is not written again: the machine is in it.
        self._run.config.update(
            {k: v for k, v in record.config.items() if not known or k != "provenance"},
            allow_val_change=True,
        )
        shown = {name: _media(wandb, thing) for name, thing in record.shown.items()}
        if shown:
            self.log(shown, max(len(record.rows), known, self._run.step - 1) + 1)
        self._run.summary.update(record.summary)
        if record.files:
            artifact = wandb.Artifact(f"model-{self.id}", "model")
            for name, path in record.files.items():
                # No second copy: the original is uploaded, now or by `make sync`.
                artifact.add_file(str(path), name, skip_cache=True, policy="immutable")
            self._run.log_artifact(artifact)
        for title, text in record.alerts.items():
            self._run.alert(title, text, wait_duration=0)

    def finish(self, failed: bool = False) -> None:
        """Write out and close; waits for a server FINISH_SECONDS at most."""
        try:
            if self._run is not None:
                self._run.finish(exit_code=int(failed))
        except Exception as e:
            self._fail(f"not all of {self.id} was sent: {type(e).__name__}")
        self._quietly("teardown")
        self._run = None

    def _fail(self, message: str) -> None:
        """Say it, and spare the processes that follow the wait."""
        self._say(f"{message}; going on offline; upload later with: make sync")
        try:
            runs_folder().mkdir(parents=True, exist_ok=True)
            (runs_folder() / OFFLINE).write_text(message + "\n")
        except OSError:
            return

    def _quietly(self, method: str, *args: Any, **options: Any) -> None:
        try:
            if method == "teardown":
                # Closes the file for good: finish alone may return before the last flush.
                sys.modules["wandb"].teardown() if "wandb" in sys.modules else None
            elif self._run is not None:
                getattr(self._run, method)(*args, **options)
        except Exception as e:
            self._say(f"{method} failed: {type(e).__name__}: {str(e)[:120]}")

    @staticmethod
    def _say(message: str) -> None:
        print(f"tracking: {' '.join(message.split())}", file=sys.stderr)


def log_to_existing_run(id: str, make_record: Callable[[str], RunRecord]) -> None:
    """Add the record of a run to W&B, as a process beside the one that trained it."""
    if configure_wandb() == "disabled":
        return
    try:
        record = make_record(id)
        run = Run(id, joins=True, **record.options)
        run.log_record(record)
        run.finish()
    except Exception as e:
        Run._say(f"{id}: {type(e).__name__}: {str(e)[:120]}")


def _media(wandb: Any, thing: Path | Table | Plot) -> Any:
    """A picture, table or plot as W&B's own object."""
    if isinstance(thing, Path):
        return wandb.Image(str(thing))
    if isinstance(thing, Plot):
        xs, ys = zip(*thing.lines.values(), strict=True)
        return wandb.plot.line_series(xs, ys, list(thing.lines), thing.title, thing.x)

    def cell(value: Any) -> Any:
        return wandb.Image(value) if isinstance(value, np.ndarray) else value

    return wandb.Table(
        thing.columns, [[cell(v) for v in row] for row in thing.rows], allow_mixed_types=True
    )
