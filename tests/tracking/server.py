"""A W&B server on the loopback: holds what it is told, and fails as it is told to."""

import csv
import gzip
import http.server
import json
import re
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from facet.storage import file_sha256
from facet.tracking import record

ENTITY = "someone"
# What a fault may answer for an operation: a status, no answer ever, or a cut connection.
Fault = Callable[[str], int | str | None]


class ReceivedRun:
    """What a server was told of one run."""

    def __init__(self, project: str, name: str) -> None:
        self.project, self.name = project, name
        self.about: dict[str, Any] = {}
        self.lines: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self.files: dict[str, bytes] = {}
        self.exit: int | None = None

    @property
    def history(self) -> list[dict[str, Any]]:
        """Rows by step; a step told again, as a repeated upload does, is one row."""
        rows: dict[int, dict[str, Any]] = {}
        for line in self.lines["wandb-history.jsonl"]:
            rows.setdefault(line["_step"], {}).update(line)
        return [rows[step] for step in sorted(rows)]

    @property
    def events(self) -> list[dict[str, Any]]:
        return self.lines["wandb-events.jsonl"]

    @property
    def summary(self) -> dict[str, Any]:
        lines = self.lines["wandb-summary.json"]
        return lines[-1] if lines else {}

    @property
    def config(self) -> dict[str, Any]:
        tree = json.loads(self.about.get("config") or "{}")
        return {k: v["value"] for k, v in tree.items() if k != "_wandb"}


class Server(http.server.ThreadingHTTPServer):
    """`runs` by id, `artifacts` by name with their files, `views` by name, `asked` in order."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.runs: dict[str, ReceivedRun] = {}
        self.artifacts: dict[str, dict[str, Any]] = {}
        self.views: dict[str, dict[str, Any]] = {}
        self.alerts: list[str] = []
        self.requests: list[str] = []
        self.fault: Fault = lambda _: None
        self.lock = threading.Lock()
        self._artifact: list[dict[str, Any]] = []

    def handle_error(self, *_: Any) -> None:
        """Clients that hang up are no news."""

    def run(self, project: str, name: str) -> ReceivedRun:
        return self.runs.setdefault(name, ReceivedRun(project, name))

    def answer(self, operation: str, v: dict[str, Any]) -> dict[str, Any] | None:
        """The data of a GraphQL answer, None for an operation this server does not know."""
        project = {"id": "p", "name": v.get("project"), "entity": {"id": "e", "name": ENTITY}}
        match operation:
            case "Viewer":
                return {
                    "viewer": {
                        "id": "u",
                        "entity": ENTITY,
                        "username": ENTITY,
                        "email": "",
                        "flags": "{}",
                        "teams": {"edges": []},
                    }
                }
            case "UpsertBucket":
                new = v["name"] not in self.runs
                run = self.run(v["project"], v["name"])
                run.about |= {k: x for k, x in v.items() if x is not None}
                return {"upsertBucket": {"bucket": self.bucket(run, project), "inserted": new}}
            case "RunResumeStatus":
                run = self.runs.get(v["name"])
                return {"model": project | {"bucket": run and self.bucket(run, project)}}
            case "Held":
                run = self.runs.get(v["name"])
                return {"model": {"bucket": run and self.bucket(run, project)}}
            case "NotifyScriptableRunAlert":
                self.alerts.append(v["title"])
                return {"notifyScriptableRunAlert": {"success": True}}
            case "CreateRunFiles":
                files = [
                    {"name": f, "uploadUrl": f"{self.url}/store/run/{v['run']}/{f}"}
                    for f in v["files"]
                ]
                return {"createRunFiles": {"runID": v["run"], "uploadHeaders": [], "files": files}}
            case "CreateArtifact":
                wanted = v["input"]
                name = wanted["artifactCollectionName"]
                new = {"type": wanted["artifactTypeName"], "run": wanted["runName"], "files": {}}
                self._artifact.append(new | {"state": "PENDING", "name": name})
                self.artifacts[name] = self._artifact[-1]
                id = str(len(self._artifact) - 1)
                return {
                    "createArtifact": {
                        "artifact": {
                            "id": id,
                            "state": "PENDING",
                            "artifactSequence": {"latestArtifact": None},
                        }
                    }
                }
            case "CreateArtifactManifest":
                file = {
                    "id": "f",
                    "uploadUrl": f"{self.url}/store/manifest/{v['artifactID']}",
                    "uploadHeaders": [],
                }
                return {"createArtifactManifest": {"artifactManifest": {"id": "m", "file": file}}}
            case "CreateArtifactFiles":
                edges = [
                    {
                        "node": {
                            "storagePath": f["name"],
                            "uploadHeaders": [],
                            "uploadMultipartUrls": None,
                            "uploadUrl": f"{self.url}/store/artifact/{f['artifactID']}/{f['name']}",
                            "artifact": {"id": f["artifactID"]},
                        }
                    }
                    for f in v["input"]["artifactFiles"]
                ]
                return {"createArtifactFiles": {"files": {"edges": edges}}}
            case "CommitArtifact":
                self._artifact[int(v["artifactID"])]["state"] = "COMMITTED"
                return {"commitArtifact": {"artifact": {"id": v["artifactID"], "digest": "d"}}}
            case "KnownView":
                found = [{"node": {"id": "v"}}] if v["view"] in self.views else []
                return {"project": {"allViews": {"edges": found}}}
            case "UpsertView2":
                self.views[v["name"]] = v
                return {
                    "upsertView": {
                        "inserted": True,
                        "view": {
                            "id": "v",
                            "name": v["name"],
                        },
                    }
                }
        return None

    def bucket(self, run: ReceivedRun, project: dict[str, Any]) -> dict[str, Any]:
        def count(name: str) -> int:
            return len(run.lines[name])

        def tail(name: str) -> str:
            return json.dumps([json.dumps(line) for line in run.lines[name][-1:]])

        made = [
            {"node": {"state": a["state"], "artifactSequence": {"name": a["name"]}}}
            for a in self._artifact
            if a["run"] == run.name
        ]
        held = [{"node": {"name": n, "sizeBytes": str(len(b))}} for n, b in run.files.items()]
        return {
            "files": {"edges": held},
            "outputArtifacts": {"edges": made},
            "id": f"id-{run.name}",
            "name": run.name,
            "displayName": run.about.get("displayName"),
            "description": None,
            "config": run.about.get("config", "{}"),
            "sweepName": None,
            "project": project | {"name": run.project},
            "tags": run.about.get("tags") or [],
            "summaryMetrics": json.dumps(run.summary),
            "notes": None,
            "wandbConfig": '{"t": {}}',
            "historyLineCount": count("wandb-history.jsonl"),
            "logLineCount": 0,
            "eventsLineCount": count("wandb-events.jsonl"),
            "historyTail": tail("wandb-history.jsonl"),
            "eventsTail": tail("wandb-events.jsonl"),
        }


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *_: Any) -> None:
        pass

    def _body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body

    def _say(self, status: int, body: bytes = b"{}") -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def handle_any(self) -> None:
        body, variables = self._body(), {}
        operation = self.path.split("/")[1 if "/store/" in self.path else -1]
        if self.path == "/graphql":
            query = json.loads(body)
            name = re.search(r"(?:query|mutation)\s+(\w+)", query["query"])
            operation, variables = name[1] if name else "?", query.get("variables") or {}
        self.server.requests.append(operation)
        fault = self.server.fault(operation)
        if fault == "hang":
            time.sleep(60)
        if fault in ("hang", "drop"):
            self.close_connection = True
        elif isinstance(fault, int):
            self._say(fault, b'{"error":"as told"}')
        elif self.path == "/graphql":
            with self.server.lock:
                data = self.server.answer(operation, variables)
            unknown = {"data": None, "errors": [{"message": f"no {operation} here"}]}
            self._say(200, json.dumps(unknown if data is None else {"data": data}).encode())
        elif operation == "file_stream":
            self._stream(json.loads(body))
        elif operation == "store":
            self._store(body)
        else:
            self._say(404)

    do_GET = do_POST = do_PUT = handle_any  # noqa: N815

    def _stream(self, body: dict[str, Any]) -> None:
        _, _, _, project, name, _ = self.path.split("/")
        with self.server.lock:
            run = self.server.run(project, name)
            for file, part in (body.get("files") or {}).items():
                if file == "output.log":
                    continue
                rows = [json.loads(line) for line in part["content"]]
                known = run.lines[file]
                known[part["offset"] :] = rows
            run.exit = body.get("exitcode") if body.get("complete") else run.exit
        self._say(200)

    def _store(self, body: bytes) -> None:
        _, _, kind, id, *rest = self.path.split("/")
        with self.server.lock:
            if kind == "run":
                self.server.runs[id].files["/".join(rest)] = body
            elif kind == "manifest":
                self.server._artifact[int(id)]["manifest"] = json.loads(body)
            else:
                self.server._artifact[int(id)]["files"]["/".join(rest)] = body
        self._say(200)


def check_received(server: Server, folder: Path, run: str) -> ReceivedRun:
    """Assert that all the server was told of a run is what the run's own files hold."""
    about = json.loads((folder / f"data/runs/{run}/model.json").read_text())
    metrics = json.loads((folder / f"metrics/runs/{run}.json").read_text())
    received = server.runs[about["wandb"]["id"]]
    with (folder / f"data/runs/{run}/history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [line["_step"] for line in received.history] == list(range(1, len(rows) + 2))
    for row, line in zip(rows, received.history, strict=False):
        for key, value in row.items():
            name = key.replace("val_", "validation/") if "val_" in key else f"train/{key}"
            name = key if key in ("epoch", "learning_rate") else name
            assert line[name] == pytest.approx(float(value), rel=1e-6), name
    parameters = yaml.safe_load((folder / "params.yaml").read_text())
    assert received.config["defaults"] == parameters["defaults"]
    assert received.config["experiments"] == {
        about["experiment"]: parameters["experiments"][about["experiment"]]
    }
    outputs = {p.name: file_sha256(p) for p in (folder / f"data/runs/{run}").iterdir()}
    outputs[f"{run}.json"] = file_sha256(folder / f"metrics/runs/{run}.json")
    assert received.config["outputs"] == outputs
    data = folder / f"data/augmented/{about['experiment']}.pkl"
    assert received.config["provenance"]["data_sha256"] == file_sha256(data)
    assert received.config["provenance"]["identity"] == about["identity"]
    for head, figures in metrics["heads"].items():
        for key in ("accuracy", "balanced_accuracy", "chance", "correct", "verdict"):
            assert received.summary[f"test/{head}/{key}"] == figures[key]
    losses = [float(r["val_loss"]) for r in rows]
    assert received.summary["best/validation/loss"] == pytest.approx(min(losses), rel=1e-6)
    assert received.summary["final/validation/loss"] == pytest.approx(losses[-1], rel=1e-6)
    assert received.summary["best_epoch"] == losses.index(min(losses)) + 1
    model = server.artifacts[f"model-{received.name}"]
    assert model["state"] == "COMMITTED"
    assert model["files"]["model.keras"] == (folder / f"data/runs/{run}/model.keras").read_bytes()
    stored = {p.read_bytes() for p in (folder / f"data/evaluations/{run}").glob("*.png")}
    assert stored <= {
        content for name, content in received.files.items() if "images/pictures" in name
    }
    table = server.artifacts[f"run-{received.name}-answers"]
    assert table["state"] == "COMMITTED"
    answers = json.loads(table["files"]["answers.table.json"])["data"]
    assert len(answers) == min(metrics["n_test"], record.TABLE_ROWS)
    assert received.about["groupName"] == about["experiment"]
    assert received.about["jobType"] == "train"
    assert set(received.about["tags"]) == {about["dataset"], about["experiment"]}
    warnings = {f"{run}: {w.partition(':')[0]}" for w in metrics["warnings"]}
    assert warnings <= set(server.alerts)
    return received


@contextmanager
def serving() -> Iterator[Server]:
    server = Server()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
