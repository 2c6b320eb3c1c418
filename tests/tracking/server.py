"""A W&B server on the loopback: holds what it is told, and fails as it is told to.

Its GraphQL is a server's own: a query is checked against schema.graphql, and the answer has the
fields that were asked for. Like the real one it wants the key, but not of who uploads a file: that
one has the file's own address.
"""

import base64
import gzip
import http.server
import itertools
import json
import re
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import graphql
import yaml

from tests.helpers import KEY

ENTITY = "someone"
SCHEMA = graphql.build_schema(Path(__file__).with_name("schema.graphql").read_text())
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


def connection(nodes: list[dict[str, Any]]) -> dict[str, Any]:
    """Nodes as GraphQL lists them."""
    return {"edges": [{"node": node} for node in nodes]}


class Server(http.server.ThreadingHTTPServer):
    """`runs` by id, `artifacts` by name with their files, `views` by name, `requests` in order.

    The methods named as a field of schema.graphql's Query or Mutation answer it.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.runs: dict[str, ReceivedRun] = {}
        self.artifacts: dict[str, dict[str, Any]] = {}
        self.views: dict[str, dict[str, Any]] = {}
        self.alerts: list[str] = []
        self.sweeps: dict[str, dict[str, Any]] = {}
        self.requests: list[str] = []
        self.fault: Fault = lambda _: None
        self.lock = threading.Lock()
        self._artifact: list[dict[str, Any]] = []

    def handle_error(self, *_: Any) -> None:
        """Clients that hang up are no news."""

    def run(self, project: str, name: str) -> ReceivedRun:
        return self.runs.setdefault(name, ReceivedRun(project, name))

    def answer(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        """The answer to a GraphQL query; errors for one that the schema does not allow."""
        fields = {*SCHEMA.query_type.fields, *SCHEMA.mutation_type.fields}  # type: ignore[union-attr]
        root = {name: getattr(self, name) for name in fields}
        with self.lock:
            done = graphql.graphql_sync(SCHEMA, query, root, variable_values=variables)
        return dict(done.formatted)

    # --- queries ------------------------------------------------------------------------------

    def viewer(self, _: Any) -> dict[str, Any]:
        user = {"id": "u", "entity": ENTITY, "username": ENTITY, "email": "", "flags": "{}"}
        return user | {"teams": connection([])}

    def serverInfo(self, _: Any) -> dict[str, Any]:  # noqa: N802
        return {"features": []}

    def project(
        self, _: Any, name: str | None = None, entityName: str | None = None
    ) -> dict[str, Any] | None:
        """A project of the key's own user; nothing of another's."""
        if entityName not in (None, ENTITY):
            return None

        def run(_: Any, name_of_run: str) -> dict[str, Any] | None:
            found = self.runs.get(name_of_run)
            return self.describe_run(found) if found and found.project == name else None

        def views(_: Any, viewName: str | None = None, **__: Any) -> dict[str, Any]:
            return connection([v for n, v in self.views.items() if viewName in (None, n)])

        return {
            "id": "p",
            "name": name,
            "entity": {"id": "e", "name": ENTITY},
            "run": lambda info, name: run(info, name),
            "bucket": lambda info, name, missingOk=False: run(info, name),
            "allViews": views,
            "sweep": lambda _, sweepName=None: self.sweeps.get(sweepName),
        }

    model = project

    def describe_run(self, run: ReceivedRun) -> dict[str, Any]:
        def tail(name: str) -> str:
            return json.dumps([json.dumps(line) for line in run.lines[name][-1:]])

        made = [
            {"id": a["id"], "state": a["state"], "artifactSequence": {"name": a["name"]}}
            for a in self._artifact
            if a["run"] == run.name
        ]
        held = [{"name": n, "sizeBytes": len(b)} for n, b in run.files.items()]
        return {
            "id": f"id-{run.name}",
            "name": run.name,
            "displayName": run.about.get("displayName"),
            "config": run.about.get("config", "{}"),
            "project": self.project(None, run.project),
            "tags": run.about.get("tags") or [],
            "summaryMetrics": json.dumps(run.summary),
            "wandbConfig": '{"t": {}}',
            "historyLineCount": len(run.lines["wandb-history.jsonl"]),
            "logLineCount": 0,
            "eventsLineCount": len(run.lines["wandb-events.jsonl"]),
            "historyTail": tail("wandb-history.jsonl"),
            "eventsTail": tail("wandb-events.jsonl"),
            "files": lambda _, first=50, **__: connection(held[:first]),
            "outputArtifacts": lambda _, first=50, **__: connection(made[:first]),
        }

    # --- mutations ----------------------------------------------------------------------------

    def upsertBucket(self, _: Any, input: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        new = input["name"] not in self.runs
        run = self.run(input["modelName"], input["name"])
        run.about |= {k: v for k, v in input.items() if v is not None}
        return {"bucket": self.describe_run(run), "inserted": new}

    def createRunFiles(self, _: Any, input: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        run = input["runName"]
        files = [
            {"name": f, "uploadUrl": f"{self.url}/store/run/{run}/{f}"} for f in input["files"]
        ]
        return {"runID": run, "uploadHeaders": [], "files": files}

    def createArtifact(self, _: Any, input: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        made = {
            "id": str(len(self._artifact)),
            "name": input["artifactCollectionName"],
            "type": input["artifactTypeName"],
            "run": input["runName"],
            "state": "PENDING",
            "files": {},
        }
        self._artifact.append(made)
        self.artifacts[made["name"]] = made
        return {"artifact": made | {"artifactSequence": {"latestArtifact": None}}}

    def createArtifactManifest(self, _: Any, input: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        url = f"{self.url}/store/manifest/{input['artifactID']}"
        file = {"id": "f", "uploadUrl": url, "uploadHeaders": []}
        return {"artifactManifest": {"id": "m", "file": file}}

    def createArtifactFiles(self, _: Any, input: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        files = [
            {
                "storagePath": f["name"],
                "uploadHeaders": [],
                "uploadUrl": f"{self.url}/store/artifact/{f['artifactID']}/{f['name']}",
                "artifact": {"id": f["artifactID"]},
            }
            for f in input["artifactFiles"]
        ]
        return {"files": connection(files)}

    def commitArtifact(self, _: Any, input: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        made = self._artifact[int(input["artifactID"])]
        made["state"] = "COMMITTED"
        return {"artifact": made | {"digest": "d"}}

    def notifyScriptableRunAlert(self, _: Any, input: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        self.alerts.append(input["title"])
        return {"success": True}

    def upsertView(self, _: Any, input: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        """A view that is sent without its id is another one, whatever its name."""
        id = input.get("id") or f"view-{len(self.views)}"
        new = input.get("id") not in [v["id"] for v in self.views.values()]
        name = input["name"] if not new or input["name"] not in self.views else f"{id} again"
        self.views[name] = input | {"id": id, "name": name}
        return {"view": self.views[name], "inserted": new}

    # --- sweeps -------------------------------------------------------------------------------

    def upsertSweep(self, _: Any, input: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        """A sweep over a grid of values; `left` are the points that no agent was given."""
        name = f"sweep{len(self.sweeps)}"
        grid = yaml.safe_load(input["config"])["parameters"]
        points = itertools.product(*(one["values"] for one in grid.values()))
        left = [dict(zip(grid, point, strict=True)) for point in points]
        self.sweeps[name] = input | {"name": name, "runs": connection([]), "left": left}
        return {"sweep": self.sweeps[name], "configValidationWarnings": []}

    def createAgent(self, _: Any, input: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        return {"agent": {"id": input["sweep"]}}

    def agentHeartbeat(self, _: Any, input: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        """The next point for an agent that runs nothing, whose id is its sweep's name."""
        sweep, commands = self.sweeps[input["id"]], []
        if not json.loads(input["runState"]) and sweep["left"]:
            args = {k: {"value": v} for k, v in sweep["left"].pop(0).items()}
            id = f"{sweep['name']}-{len(sweep['left'])}"
            program = yaml.safe_load(sweep["config"])["program"]
            commands = [{"type": "run", "run_id": id, "args": args, "program": program}]
        return {"agent": {"id": input["id"]}, "commands": json.dumps(commands)}


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

    def _has_key(self) -> bool:
        expected = base64.b64encode(f"api:{KEY}".encode()).decode()
        return self.headers.get("Authorization") == f"Basic {expected}"

    def handle_any(self) -> None:
        body, query = self._body(), {}
        operation = self.path.split("/")[1 if "/store/" in self.path else -1]
        if self.path == "/graphql":
            query = json.loads(body)
            name = re.search(r"(?:query|mutation)\s+(\w+)", query["query"])
            operation = name[1] if name else "?"
        self.server.requests.append(operation)
        fault = self.server.fault(operation)
        if fault == "hang":
            time.sleep(60)
        if fault in ("hang", "drop"):
            self.close_connection = True
        elif isinstance(fault, int):
            self._say(fault, b'{"error":"as told"}')
        elif operation == "store":
            self._store(body)
        elif not self._has_key():
            self._say(401, b'{"errors":[{"message":"user is not logged in"}]}')
        elif self.path == "/graphql":
            answer = self.server.answer(query["query"], query.get("variables") or {})
            self._say(200, json.dumps(answer).encode())
        elif operation == "file_stream":
            self._stream(json.loads(body))
        else:
            self._say(404)

    do_GET = do_POST = do_PUT = handle_any  # noqa: N815

    def _stream(self, body: dict[str, Any]) -> None:
        _, _, entity, project, name, _ = self.path.split("/")
        if entity != ENTITY:
            self._say(404)
            return
        with self.server.lock:
            run = self.server.run(project, name)
            for file, part in (body.get("files") or {}).items():
                if file == "output.log":
                    continue
                known = run.lines[file]
                if part["offset"] > len(known):  # rows in between would be lost
                    self._say(400)
                    return
                known[part["offset"] :] = [json.loads(line) for line in part["content"]]
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


@contextmanager
def serving() -> Iterator[Server]:
    server = Server()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
