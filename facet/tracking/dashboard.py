"""Make the W&B project complete and lay out its workspace: `make dashboard`.

Complete means: also of the runs that DVC restored, and of which this machine trained nothing. What
W&B shows of those comes from their stored files; system samples do not, they belong to the
machine that ran.
"""

import contextlib
import importlib
import os
from pathlib import Path
from typing import Any

from facet.base.config import Comparison, Parameters, check_params, read_params, run_names
from facet.base.names import CHANCE, COMPARISONS_FILE, HISTORY_FILE, METRICS, RUN
from facet.base.storage import read_csv
from facet.errors import InputError
from facet.tracking import run_record, sync, wandb_run

VIEW = "facet"
CPU, MEMORY, GPU = "system.cpu", "system.proc.memory.rssMB", "system.gpu.0.gpu"
DISK = "system.disk./.usagePercent"
# `wandb.Api` and `Workspace.from_url` tell these too; sync.py says why the first is not asked. The
# second reads all of a view for its id, and refuses one that W&B's app has brought to a newer form.
VIEWER_QUERY = "query Viewer { viewer { entity } }"
VIEW_QUERY = """query KnownView($entity: String, $project: String, $view: String) {
  project(name: $project, entityName: $entity) {
    allViews(viewType: "project-view", viewName: $view) { edges { node { id } } }
  }
}"""


# --- what was never logged --------------------------------------------------------------------


def restore_runs(parameters: Parameters) -> list[str]:
    """Record, as runs that wait for upload, what the server lacks of the stored runs; their names.

    Raises InputError where a run's files are not here.
    """
    stored = [r for r in run_names(parameters) if Path(METRICS.format(r)).exists()]
    if absent := sorted(set(run_names(parameters)) - set(stored)):
        print(f"{len(absent)} runs are not here (dvc pull, make repro): {', '.join(absent[:4])}")
    restored = []
    for run in stored:
        if not (Path(RUN.format(run)) / "model.json").exists():
            raise InputError(f"{RUN.format(run)}: not here; bring it with `dvc pull`")
        id = run_record.find_run_id(run)
        known = count_server_rows(id)
        epochs = len(read_csv(Path(RUN.format(run)) / HISTORY_FILE))
        # One more row than epochs: the pictures.
        if known <= epochs:
            log_offline(run_record.record_run(run, id), known)
            restored.append(run)
    if COMPARISONS_FILE.exists() and not count_server_rows(run_record.comparisons_id()):
        log_offline(run_record.record_comparisons(), 0)
        restored.append("comparisons")
    return restored


def count_server_rows(id: str) -> int:
    """How many rows of a run's history the server has."""
    has = sync.fetch_held(wandb_run.project_name(), None, id)
    return has.lines if has else 0


def log_offline(record: wandb_run.RunRecord, known: int) -> None:
    """Log a record but its first `known` rows, offline."""
    run = wandb_run.Run(record.id, joins=True, **record.options)
    run.log_record(record, known)
    run.finish()


# --- the workspace ----------------------------------------------------------------------------


def make_workspace(parameters: Parameters, entity: str, project: str) -> Any:
    """The project's workspace: a section for each comparison, then the machine, pictures, runs."""
    wr = importlib.import_module("wandb_workspaces.reports.v2")
    ws = importlib.import_module("wandb_workspaces.workspaces")
    by_experiment: dict[str, Any] = {
        "groupby": wr.Config("experiment"),
        "groupby_aggfunc": "mean",
    }

    def lines(title: str, *metrics: str, x: str = "epoch", spread: str = "stddev") -> Any:
        return wr.LinePlot(
            title=title, x=x, y=list(metrics), groupby_rangefunc=spread, **by_experiment
        )

    def system(*metrics: str) -> list[Any]:
        # Over seconds: the machine's samples know no epoch.
        return [lines(m.removeprefix("system."), m, x="RelativeTime(Process)") for m in metrics]

    def section(name: str, c: Comparison) -> Any:
        head, metric = c.head, c.metric.replace("_", " ")
        question = f"**{c.candidate}** against **{c.baseline}**: better at *{head}*?"
        how = f"Judged by {metric} on the test part; mean and spread over seeds."
        panels = [
            wr.MarkdownPanel(markdown=f"{question}\n\n{how}\n\nVerdict: run `comparisons`."),
            lines(f"{head}: validation", f"val/{head}/accuracy"),
            lines(f"{head}: training", f"train/{head}/accuracy"),
            wr.BarPlot(
                title=f"{head}: test {metric}, chance beside it",
                metrics=[f"test/{head}/{c.metric}", f"test/{head}/{CHANCE[c.metric]}"],
                groupby_rangefunc="stddev",
                **by_experiment,
            ),
            *system(CPU, MEMORY),
        ]
        return ws.Section(name=name, panels=panels, is_open=True)

    heads = sorted({h for d in parameters.datasets.values() for h in d.heads})
    galleries = ["samples", "values", "classes", "curves", *(f"answers_{h}" for h in heads)]
    pictures = [
        wr.MediaBrowser(title=name, media_keys=[f"pictures/{name}"], num_columns=3)
        for name in ["confusion", *galleries]
    ]
    sections = [section(name, c) for name, c in parameters.comparisons.items()]
    sections += [
        ws.Section(
            name="verdicts",
            panels=[
                wr.WeavePanelSummaryTable(table_name="comparisons"),
                wr.WeavePanelSummaryTable(table_name="runs"),
            ],
            is_open=True,
        ),
        ws.Section(
            name="loss",
            panels=[
                lines("validation loss", "val/loss"),
                lines("training loss", "train/loss"),
                lines("learning rate", "learning_rate"),
                lines("items per second", "items_per_second"),
            ],
        ),
        ws.Section(name="machine", panels=system(CPU, MEMORY, DISK, GPU)),
        ws.Section(name="confusion and galleries", panels=pictures),
        ws.Section(name="answers", panels=[wr.WeavePanelSummaryTable(table_name="answers")]),
        ws.Section(name="runs side by side", panels=[wr.RunComparer(diff_only="split")]),
    ]
    made = ws.Workspace(
        name="Facet",
        entity=entity,
        project=project,
        sections=sections,
        settings=ws.WorkspaceSettings(x_axis="epoch", max_runs=100),
        runset_settings=ws.RunsetSettings(groupby=[ws.Config("experiment")]),
    )
    # A name of its own, so that a second saving finds the first.
    made._internal_name = f"nw-{VIEW}-v"
    return made


def update_dashboard() -> None:
    """Upload what waits, add what was never recorded, save the workspace; can be repeated."""
    parameters = check_params(read_params())
    wandb_run.configure_wandb()
    sync.check_connection()
    entity = (
        wandb_run.entity_name()
        or (sync.query_server(VIEWER_QUERY).get("viewer") or {}).get("entity")
        or ""
    )
    if sync.find_waiting(wandb_run.runs_folder()):
        sync.upload_or_fail()
    os.environ["WANDB_MODE"] = "offline"
    if restored := restore_runs(parameters):
        print(f"{len(restored)} runs uploaded from what is stored: {', '.join(restored[:4])}")
        sync.upload_or_fail()
    project = wandb_run.project_name()
    made = make_workspace(parameters, entity, project)
    known = sync.query_server(VIEW_QUERY, entity=entity, project=project, view=made._internal_name)
    with contextlib.suppress(LookupError, TypeError):
        made._internal_id = known["project"]["allViews"]["edges"][0]["node"]["id"]
    try:
        made.save()
    except Exception as e:  # whatever the client makes of a server's answer
        why = f"the workspace was not saved ({type(e).__name__}: {str(e)[:120]})"
        raise InputError(f"{wandb_run.server_url()}: {why}; try again later") from None
    print(f"the workspace: {made.url}")
