"""Make the W&B project complete and lay out its workspace: `make dashboard`.

Complete means: also of the runs that DVC restored, and of which this machine trained nothing. What
W&B is told of those comes from their stored files; system samples do not, they belong to the
machine that ran.
"""

import contextlib
import importlib
import os
from pathlib import Path
from typing import Any

from stages import story, tracking
from stages.common import METRICS, RUN, Refused, command, read_csv
from stages.parameters import Comparison, Parameters, check, raw, runs
from tools import sync

VIEW = "facet"
CPU, MEMORY, GPU = "system.cpu", "system.proc.memory.rssMB", "system.gpu.0.gpu"
DISK = "system.disk./.usagePercent"

WHO = "query Viewer { viewer { entity } }"
KNOWN = """query KnownView($entity: String, $project: String, $view: String) {
  project(name: $project, entityName: $entity) {
    allViews(viewType: "project-view", viewName: $view) { edges { node { id } } }
  }
}"""


# --- what was never told ----------------------------------------------------------------------


def restore(parameters: Parameters) -> list[str]:
    """Record, as runs that wait for upload, what the server lacks of the stored runs; their names.

    Raises Refused where a run is not here to be told of.
    """
    stored = [r for r in runs(parameters) if Path(METRICS.format(r)).exists()]
    if absent := sorted(set(runs(parameters)) - set(stored)):
        print(f"{len(absent)} runs are not here (dvc pull, make repro): {', '.join(absent[:4])}")
    told = []
    for run in stored:
        if not (Path(RUN.format(run)) / "model.json").exists():
            raise Refused(f"{RUN.format(run)}: not here; bring it with `dvc pull`")
        id = story.id_of(run)
        known = lines(id)
        epochs = len(read_csv(Path(RUN.format(run)) / "history.csv"))
        # One more row than epochs: the pictures.
        if known <= epochs:
            tell(story.of_run(run, id), known)
            told.append(run)
    if story.COMPARED[0].exists() and not lines(story.comparisons_id()):
        tell(story.of_comparisons(), 0)
        told.append("comparisons")
    return told


def lines(id: str) -> int:
    """How many rows of a run's history the server has."""
    has = sync.held(tracking.project(), None, id)
    return has.lines if has else 0


def tell(told: tracking.Story, known: int) -> None:
    """Record a story but its first `known` rows, offline."""
    run = tracking.Run(told.id, joins=True, **told.options)
    run.tell(told, known)
    run.finish()


# --- the workspace ----------------------------------------------------------------------------


def workspace(parameters: Parameters, entity: str, project: str) -> Any:
    """The project's workspace: a section for each comparison, then the machine, pictures, runs."""
    wr = importlib.import_module("wandb_workspaces.reports.v2")
    ws = importlib.import_module("wandb_workspaces.workspaces")
    by_experiment: dict[str, Any] = {
        "groupby": wr.Config("provenance.experiment"),
        "groupby_aggfunc": "mean",
    }

    def lines(title: str, *metrics: str, x: str = "epoch", spread: str = "stddev") -> Any:
        return wr.LinePlot(
            title=title, x=x, y=list(metrics), groupby_rangefunc=spread, **by_experiment
        )  # fmt: skip

    def system(*metrics: str) -> list[Any]:
        # Over seconds: the machine's samples know no epoch.
        return [lines(m.removeprefix("system."), m, x="RelativeTime(Process)") for m in metrics]

    def section(name: str, c: Comparison) -> Any:
        head, metric = c.head, c.metric.replace("_", " ")
        question = f"**{c.candidate}** against **{c.baseline}**: better at *{head}*?"
        how = f"Judged by {metric} on the test part; mean and spread over seeds."
        panels = [
            wr.MarkdownPanel(markdown=f"{question}\n\n{how}\n\nVerdict: run `comparisons`."),
            lines(f"{head}: validation", f"validation/{head}_accuracy"),
            lines(f"{head}: training", f"train/{head}_accuracy"),
            wr.BarPlot(
                title=f"{head}: test {metric}, chance beside it",
                metrics=[f"test/{head}/{c.metric}", f"test/{head}/{chance(c.metric)}"],
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
        ws.Section(name="verdicts", panels=[
            wr.WeavePanelSummaryTable(table_name="comparisons"),
            wr.WeavePanelSummaryTable(table_name="runs"),
        ], is_open=True),
        ws.Section(name="loss", panels=[
            lines("validation loss", "validation/loss"), lines("training loss", "train/loss"),
            lines("learning rate", "learning_rate"),
            lines("items per second", "items_per_second"),
        ]),
        ws.Section(name="machine", panels=system(CPU, MEMORY, DISK, GPU)),
        ws.Section(name="confusion and galleries", panels=pictures),
        ws.Section(name="answers", panels=[wr.WeavePanelSummaryTable(table_name="answers")]),
        ws.Section(name="runs side by side", panels=[wr.RunComparer(diff_only="split")]),
    ]  # fmt: skip
    made = ws.Workspace(
        name="Facet",
        entity=entity,
        project=project,
        sections=sections,
        settings=ws.WorkspaceSettings(x_axis="epoch", max_runs=100),
        runset_settings=ws.RunsetSettings(groupby=[ws.Config("provenance.experiment")]),
    )
    # A name of its own, so that a second saving finds the first.
    made._internal_name = f"nw-{VIEW}-v"
    return made


def chance(metric: str) -> str:
    """The name of the figure that chance would get, beside a metric's."""
    return "balanced_chance" if metric == "balanced_accuracy" else "chance"


def main() -> None:
    """Upload what waits, tell what was never told, save the workspace; can be repeated."""
    parameters = check(raw())
    tracking.configure()
    sync.connected()
    entity = tracking.entity() or (sync.asked(WHO).get("viewer") or {}).get("entity") or ""
    if sync.waiting(tracking.folder()):
        sync.uploaded()
    os.environ["WANDB_MODE"] = "offline"
    if told := restore(parameters):
        print(f"{len(told)} runs told from what is stored: {', '.join(told[:4])}")
        sync.uploaded()
    project = tracking.project()
    made = workspace(parameters, entity, project)
    known = sync.asked(KNOWN, entity=entity, project=project, view=made._internal_name)
    with contextlib.suppress(LookupError, TypeError):
        made._internal_id = known["project"]["allViews"]["edges"][0]["node"]["id"]
    try:
        made.save()
    except Exception as e:  # whatever the client makes of a server's answer
        why = f"the workspace was not saved ({type(e).__name__}: {str(e)[:120]})"
        raise Refused(f"{tracking.address()}: {why}; try again later") from None
    print(f"the workspace: {made.url}")


if __name__ == "__main__":
    command(main)
