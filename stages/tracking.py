"""Weights & Biases, the only importer of it: a run that can never harm a training.

Configured by W&B's own environment variables and settings files; offline unless those say
otherwise. Whatever W&B does, the stage's result stands and a process loses seconds at most.
"""

import configparser
import os
import socket
import sys
import urllib.parse
from pathlib import Path
from typing import Any

PROJECT = "facet"
# Not result-changing, so not in params.yaml. Sampling and flushing often lets a run of seconds
# show its CPU, and leaves at most a second to lose to kill -9.
DEFAULTS = {
    "mode": "offline",
    "project": PROJECT,
    "x_stats_sampling_interval": "0.5",
    "x_transaction_log_flush_interval": "0.5",
    "x_disable_viewer": "true",
    "init_timeout": "5",
    "console": "off",
    "error_reporting": "false",
    "silent": "true",
}
FINISH_SECONDS = 8.0


def configure() -> str:
    """Set what neither the environment nor a settings file sets; returns the mode."""
    root = Path(os.environ.get("DVC_ROOT", ".")).resolve()
    os.environ.setdefault("WANDB_DIR", str(root))
    os.environ.setdefault("WANDB_DATA_DIR", str(root / ".wandb-data"))
    os.environ.setdefault("WANDB_CACHE_DIR", str(root / ".wandb-cache"))
    home = Path(os.environ.get("WANDB_CONFIG_DIR", Path.home() / ".config/wandb"))
    files = configparser.ConfigParser()
    files.read([home / "settings", Path(os.environ["WANDB_DIR"]) / "wandb/settings"])
    said = dict(files["default"]) if files.has_section("default") else {}
    for key, value in DEFAULTS.items():
        if key not in said:
            os.environ.setdefault(f"WANDB_{key.upper()}", value)
    return os.environ.get("WANDB_MODE") or said.get("mode", "offline")


def reachable(seconds: float = 1.0) -> bool:
    """Whether something listens where the W&B server should be."""
    url = urllib.parse.urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai"))
    port = url.port or (443 if url.scheme == "https" else 80)
    try:
        socket.create_connection((url.hostname or "", port), seconds).close()
    except OSError:
        return False
    return True


class Run:
    """One W&B run, or nothing where W&B does not work; no method raises."""

    def __init__(self, id: str, resumed: bool, **options: Any) -> None:
        """Start run `id`, or one beside it if this machine finished it before and it is repeated.

        `options` are those of wandb.init: config, group, job_type, tags, name.
        """
        self._run: Any = None
        self.id = id
        mode = configure()
        if mode == "disabled":
            return
        earlier = list((Path(os.environ["WANDB_DIR"]) / "wandb").glob(f"*run-*-{id}*"))
        if earlier and not resumed:
            self.id = f"{id}-r{len(earlier)}"
        if mode == "online" and not reachable():
            self._say("the server cannot be reached; going on offline, upload later: wandb sync")
            mode = "offline"
        for tried in dict.fromkeys([mode, "offline"]):
            try:
                import wandb

                settings = wandb.Settings(finish_timeout=FINISH_SECONDS, save_code=False)
                self._run = wandb.init(
                    id=self.id,
                    resume="allow",
                    mode=tried,  # type: ignore[arg-type]
                    settings=settings,
                    **options,
                )
                return
            except Exception as e:
                self._say(f"{tried} failed: {type(e).__name__}: {str(e)[:120]}")
                self._quietly("teardown")

    def log(self, values: dict[str, Any], step: int) -> None:
        """One row of the history."""
        self._quietly("log", values, step=step)

    def axis(self, name: str) -> None:
        """Draw every metric over `name`."""
        self._quietly("define_metric", name)
        self._quietly("define_metric", "*", step_metric=name)

    def summarise(self, values: dict[str, Any]) -> None:
        if self._run is not None:
            try:
                self._run.summary.update(values)
            except Exception as e:
                self._say(f"summary failed: {e}")

    def finish(self, failed: bool = False) -> None:
        """Write out and close; waits for a server FINISH_SECONDS at most."""
        self._quietly("finish", exit_code=int(failed))
        self._quietly("teardown")
        self._run = None

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
        print(f"tracking: {message}", file=sys.stderr)
