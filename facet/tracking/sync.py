"""Upload what W&B recorded and the server does not have yet: `make sync`.

Neither `wandb sync`'s exit status nor the marker it leaves says that a run arrived: it leaves one
also when the server refused the history. So the server is asked what it holds, and the marker of
what it lacks is taken away again.
"""

import base64
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
from wandb.errors import AuthenticationError
from wandb.sdk.lib import wbauth

from facet.errors import InputError
from facet.tracking import offline_records, wandb_run

SECONDS = 30  # for each folder of a run; a run of the default grid takes 2 on a loopback
STOP_AFTER = 3  # runs that fail one after the other
RUNNING = 60  # seconds without a word after which a run without an end is taken for killed
# Of one run: fields that W&B's own client asks for, when it resumes one and when it lists one's
# files and artifacts. `wandb.Api` (0.31.0) tells the same, but by four requests and 0.18 s where
# this is one and 0.01 s (server on this machine); it makes a folder ENTITY/PROJECT/RUN in the
# project for each run it is asked about; and it calls a server that does not answer and a key that
# is not accepted by the same name, a login that failed.
HELD_QUERY = """query Held($project: String!, $entity: String, $name: String!) {
  model(name: $project, entityName: $entity) {
    bucket(name: $name, missingOk: true) {
      historyTail historyLineCount
      files(first: 1000) { edges { node { name sizeBytes } } }
      outputArtifacts(first: 100) { edges { node { state artifactSequence { name } } } }
    }
  }
}"""


@dataclass
class Held:
    """What the server has of a run: its last step, the count of rows, what of the rest is whole."""

    step: int
    lines: int
    files: set[str]
    artifacts: set[str]


@dataclass
class Recorded:
    """What the folder of one process holds of a run."""

    file: Path
    id: str
    project: str
    entity: str | None
    steps: list[int]
    media: set[str]
    artifacts: dict[str, list[dict[str, Any]]]  # name: what is in it
    ended: bool

    @property
    def last(self) -> int:
        """The last step as the server numbers it: what resumes a run goes on after its end."""
        try:
            state = json.loads(self.file.with_name(self.file.name + ".syncstate").read_text())
            start = int(state.get("starting_step", 0))
        except (OSError, ValueError, AttributeError):
            start = 0
        return self.steps[-1] + max(0, start - self.steps[0]) if self.steps else -1

    @property
    def marker(self) -> Path:
        """The file that says that all of it arrived."""
        return self.file.with_name(self.file.name + ".synced")

    @property
    def answered(self) -> bool:
        """Whether some of it may be on the server already."""
        offline = self.file.parent.name.startswith("offline-")
        return not offline or self.file.with_name(self.file.name + ".syncstate").exists()


def read_recorded(file: Path) -> Recorded | None:
    """What a `.wandb` file holds, None for one that was killed before its run began."""
    try:
        found = offline_records.read_records(file)
    except subprocess.CalledProcessError:
        return None
    if "run" not in found:
        return None
    run = found["run"][-1]["run"]
    artifacts = [a["artifact"] for a in found.get("artifact", [])]
    return Recorded(
        file=file,
        id=run["run_id"],
        project=run["project"],
        entity=run.get("entity"),
        steps=[int(h["history"]["item"]["_step"]) for h in found.get("history", [])],
        media={
            f["path"]
            for r in found.get("files", [])
            for f in r["files"]["files"]
            if f["path"].startswith("media/")
        },
        artifacts={a["name"]: a["manifest"].get("contents", []) for a in artifacts},
        ended="exit" in found,
    )


def find_waiting(folder: Path) -> dict[str, list[Recorded]]:
    """The folders of each run that no marker calls uploaded, in order; not those still running."""
    found: dict[str, list[Recorded]] = defaultdict(list)
    for file in offline_records.record_files(folder):
        if file.with_name(file.name + ".synced").exists():
            continue
        recorded = read_recorded(file)
        if recorded and (recorded.ended or time.time() - file.stat().st_mtime > RUNNING):
            found[recorded.id].append(recorded)
    return dict(found)


def find_missing_files(run: list[Recorded]) -> list[str]:
    """Files of a run's artifacts that are no longer what they were; W&B would leave them out."""
    missing = []
    for recorded in run:
        for name, contents in recorded.artifacts.items():
            for entry in contents:
                path = Path(entry.get("local_path", ""))
                if entry.get("local_path") and not (
                    path.is_file() and base64_md5(path) == entry["digest"]
                ):
                    missing.append(f"{name}/{entry['path']} ({path})")
    return missing


def base64_md5(path: Path) -> str:
    """A file's MD5 as W&B writes it, in base64."""
    return base64.b64encode(hashlib.md5(path.read_bytes()).digest()).decode()


# --- the server -------------------------------------------------------------------------------


def api_key() -> str:
    """The key W&B would use: of the environment, what `wandb login` wrote, or the settings file."""
    url = wandb_run.server_url()
    try:
        found = os.environ.get("WANDB_API_KEY") or wbauth.read_netrc_auth(host=url)
    except AuthenticationError as e:
        raise InputError(f"{url}: {e}; log in again: wandb login --relogin") from None
    found = found or wandb_run.read_settings().get("api_key")
    if not found:
        raise InputError(f"{url}: no key for it; run `wandb login` or set WANDB_API_KEY")
    return found


def query_server(query: str, **variables: str | None) -> dict[str, Any]:
    """The data the server answers a GraphQL query with. Raises InputError where it does not."""
    host = wandb_run.server_url()
    try:
        answer = requests.post(
            f"{host}/graphql",
            json={"query": query, "variables": variables},
            auth=("api", api_key()),
            timeout=10,
        )
        if answer.status_code in (401, 403):
            raise InputError(
                f"{host}: does not accept the key; log in again: wandb login --relogin"
            )
        answer.raise_for_status()
        return answer.json()["data"] or {}
    except (requests.RequestException, ValueError, KeyError, TypeError) as e:
        reason = f"does not answer ({type(e).__name__})"
        raise InputError(f"{host}: {reason}; try again later") from None


def fetch_held(project: str, entity: str | None, id: str) -> Held | None:
    """What the server has of run `id`, None if nothing."""
    answer = query_server(
        HELD_QUERY, project=project, entity=entity or wandb_run.entity_name(), name=id
    )
    bucket = (answer.get("model") or {}).get("bucket")
    if bucket is None:
        return None
    tail = json.loads(bucket.get("historyTail") or "[]")

    def nodes(name: str) -> list[dict[str, Any]]:
        return [e["node"] for e in (bucket.get(name) or {"edges": []})["edges"]]

    return Held(
        step=json.loads(tail[-1]).get("_step", -1) if tail else -1,
        lines=bucket.get("historyLineCount") or 0,
        files={n["name"] for n in nodes("files") if int(n["sizeBytes"])},
        artifacts={
            n["artifactSequence"]["name"]
            for n in nodes("outputArtifacts")
            if n["state"] == "COMMITTED"
        },
    )


def find_lacking(run: list[Recorded]) -> str:
    """What of a run the server does not have, in words; empty if it has all."""
    held = fetch_held(run[0].project, run[0].entity, run[0].id)
    if held is None:
        return "the server does not have it"
    if held.step < (last := max(recorded.last for recorded in run)):
        return f"the server lacks steps {max(held.step, 0) + 1} to {last}"
    missing = {m for recorded in run for m in recorded.media} - held.files
    missing |= {a for recorded in run for a in recorded.artifacts} - held.artifacts
    return f"the server lacks {len(missing)} files: {min(missing)}" if missing else ""


def upload_run(run: list[Recorded]) -> str:
    """Upload all folders of one run; returns what went wrong, empty if all of it arrived."""
    # Cut off after the last byte, or logged online, all of it may be there.
    arrived = all(recorded.answered for recorded in run) and not find_lacking(run)
    problem = "" if arrived else call_wandb_sync(run) or find_lacking(run)
    for recorded in run:
        recorded.marker.unlink(missing_ok=True) if problem else recorded.marker.touch()
    return problem


def call_wandb_sync(run: list[Recorded]) -> str:
    """Call `wandb sync`; returns what it says went wrong. Ends by itself."""
    settings = {
        "WANDB_MODE": "online",
        "WANDB_SILENT": "false",
        "WANDB_QUIET": "false",
        "WANDB_X_GRAPHQL_RETRY_MAX": "2",
        "WANDB_X_FILE_STREAM_RETRY_MAX": "2",
        "WANDB_X_FILE_TRANSFER_RETRY_MAX": "2",
        "WANDB_X_GRAPHQL_TIMEOUT_SECONDS": "10",
        "WANDB_X_FILE_STREAM_TIMEOUT_SECONDS": "10",
    }
    words = [sys.executable, "-m", "wandb", "sync", "--include-online"]
    process = subprocess.Popen(
        [*words, *(str(recorded.file.parent) for recorded in run)],
        env=os.environ | settings,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=SECONDS * (1 + len(run)))
    except subprocess.TimeoutExpired:
        output = "ERROR the server took too long"
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    errors = [line.partition("ERROR")[2].strip() for line in output.splitlines() if "ERROR" in line]
    unmarked = [recorded for recorded in run if not recorded.marker.exists()]
    return errors[0] if errors else "wandb sync left no marker" if unmarked else ""


def upload_all(folder: Path) -> tuple[int, dict[str, str]]:
    """Upload all that waits; returns how many runs arrived, and of each other one why not."""
    runs, failed, failures_in_a_row = find_waiting(folder), {}, 0
    for place, (id, run) in enumerate(runs.items(), 1):
        if missing := find_missing_files(run):
            failed[id] = f"{missing[0]} is gone; bring it back with `dvc pull`, or upload without "
            failed[id] += f"it: wandb sync {run[0].file.parent}"
            problem = failed[id]
        elif failures_in_a_row == STOP_AFTER:
            failed[id] = problem = "not tried"
            continue
        elif problem := upload_run(run):
            failed[id], failures_in_a_row = problem, failures_in_a_row + 1
        else:
            failures_in_a_row = 0
        print(f"[{place}/{len(runs)}] {id}: {problem or 'uploaded'}", flush=True)
    return len(runs) - len(failed), failed


def sync_runs() -> None:
    """Upload the runs that wait; can be cut off and repeated."""
    wandb_run.configure_wandb()
    if find_waiting(wandb_run.runs_folder()):
        check_connection()
        upload_or_fail()
    else:
        print("nothing waits for upload")


def check_connection() -> None:
    """Raise InputError unless there is a key and something listens at the server's address."""
    api_key()
    if not wandb_run.server_reachable(5):
        raise InputError(f"{wandb_run.server_url()}: cannot be reached; try again later")


def upload_or_fail() -> None:
    """Upload all that waits; raises InputError if some of it did not arrive."""
    arrived, failed = upload_all(wandb_run.runs_folder())
    wandb_run.clear_offline_marker()
    print(f"{arrived} runs uploaded to {wandb_run.server_url()}")
    if failed:
        id, why = next(iter(failed.items()))
        raise InputError(f"{len(failed)} runs still wait; {id}: {why}; then repeat: make sync")
