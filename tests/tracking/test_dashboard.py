"""A fresh clone fills an empty W&B project from what is stored; the workspace is code."""

import json
import shutil
from typing import Any

from facet.base.config import check_params, read_params
from facet.tracking.dashboard import make_workspace
from tests.helpers import ROOT, Project
from tests.tracking.helpers import call, check_received, waiting
from tests.tracking.server import Server

RANDOM = {"__id__", "id", "ref", "isAuto"}


def spec(tree: Any) -> dict[str, Any]:
    """A workspace of params.yaml's `tree` as the server is sent it, without random names."""
    view = make_workspace(check_params(tree), "someone", "facet")._to_model()
    return plain(json.loads(view.spec.model_dump_json(by_alias=True, exclude_none=True)))


def plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items() if k not in RANDOM}
    return [plain(v) for v in value] if isinstance(value, list) else value


def sections(tree: Any) -> dict[str, list[dict[str, Any]]]:
    found = spec(tree)["section"]["panelBankConfig"]["sections"]
    return {s["name"]: s["panels"] for s in found}


def metrics(panels: list[dict[str, Any]]) -> list[str]:
    return [m for p in panels for m in p["config"].get("metrics", [])]


def test_a_fresh_clone_fills_an_empty_project(made: Project, server: Server) -> None:
    for folder in ("wandb", ".wandb-data", ".wandb-cache", "metrics/costs"):
        shutil.rmtree(made.folder / folder)
    done = call(made.folder, server.url, "dashboard")
    assert done.returncode == 0, done.stderr
    assert len(server.runs) == 3
    assert waiting(made.folder) == set()
    for run in ("plain-0", "dropped-0"):
        record = check_received(server, made.folder, run)
        assert record.events == []  # the machine that ran is not here
    assert any(name.startswith("comparisons-") for name in server.runs)
    (view,) = server.views.values()
    assert json.loads(view["spec"])
    assert f"{server.url}/someone/facet?nw=facet" in done.stdout

    # Every metric the workspace draws is one that was logged, GPUs and the machine's aside.
    known = {k for r in server.runs.values() for row in [*r.history, r.summary] for k in row}
    drawn = {m for p in sections(made.parameters).values() for m in metrics(p)}
    assert {m for m in drawn if not m.startswith("system.")} <= known | {"items_per_second"}
    pictures = {
        k
        for p in sections(made.parameters).values()
        for panel in p
        for k in panel["config"].get("mediaKeys", [])
    }
    assert pictures <= known

    server.requests.clear()
    done = call(made.folder, server.url, "dashboard")
    assert done.returncode == 0, done.stderr
    assert "file_stream" not in server.requests
    assert list(server.views) == [view["name"]]  # the same one, saved again


def test_the_workspace_asks_what_the_comparisons_ask() -> None:
    tree = read_params(ROOT / "params.yaml")
    found = sections(tree)
    for name, c in tree["comparisons"].items():
        panels = found[name]
        lines = [p for p in panels if p["viewType"] == "Run History Line Plot"]
        assert metrics(lines)[:2] == [
            f"val/{c['head']}/accuracy",
            f"train/{c['head']}/accuracy",
        ]
        assert {"system.cpu", "system.proc.memory.rssMB"} <= set(metrics(lines))
        for panel in lines:
            assert panel["config"]["groupBy"] == "experiment.value"
            assert panel["config"]["groupAgg"] == "mean"
            assert panel["config"]["groupArea"] == "stddev"
        assert [p["config"]["xAxis"] for p in lines[:2]] == ["epoch", "epoch"]
        assert f"test/{c['head']}/{c['metric']}" in metrics(panels)
        text = json.dumps(panels[0]["config"])
        assert c["baseline"] in text
        assert c["candidate"] in text
    kinds = [p["viewType"] for panels in found.values() for p in panels]
    assert kinds.count("Run Comparer") == 1
    assert kinds.count("Media Browser") >= 5
    assert set(metrics(found["machine"])) >= {"system.cpu", "system.gpu.0.gpu"}
    grouping = spec(tree)["section"]["runSets"][0]["grouping"]
    assert grouping[0]["name"] == "experiment.value"


def test_the_workspace_follows_params_yaml() -> None:
    tree = read_params(ROOT / "params.yaml")
    before = sections(tree)
    tree["comparisons"]["another"] = tree["comparisons"].pop("faces_depth")
    after = sections(tree)
    assert set(after) ^ set(before) == {"another", "faces_depth"}
    assert after["another"] == before["faces_depth"]
    assert spec(tree) == spec(tree)
