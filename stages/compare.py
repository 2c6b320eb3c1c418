"""Bring all runs together: a row for each, their curves, and a verdict on each comparison."""

from pathlib import Path

from facet.base.config import get_params
from facet.base.names import (
    COMPARISONS_FILE,
    CURVES_TABLE,
    HISTORY_FILE,
    METRICS,
    RUN,
    RUNS_TABLE,
    SUMMARY_FILE,
)
from facet.base.storage import read_csv, write_json
from facet.base.unchanged import read_input
from facet.comparisons import (
    adjust_verdicts,
    compare_experiments,
    curve_rows,
    metric_rows,
    read_metrics,
    remove_leftovers,
    summarise_metrics,
    write_csv,
)
from facet.launch import run_stage
from facet.tracking.run_record import comparisons_id, record_comparisons
from facet.tracking.wandb_run import log_to_existing_run


def main() -> None:
    """Write runs.csv, curves.csv, summary.json and comparisons.json into metrics/ from all runs."""
    seeds, experiments, comparisons = get_params("seeds", "experiments", "comparisons")
    runs = [f"{e}-{s}" for e in experiments for s in seeds]
    # A run that params.yaml no longer names counts nowhere, and DVC would hash it as an input. What
    # DVC does not know is somebody's own.
    remove_leftovers(runs)
    for run in runs:
        read_input(RUN.format(run))
        read_input(METRICS.format(run))
    metrics = {run: read_metrics(run) for run in runs}
    curves = []
    for run, m in metrics.items():
        curves += curve_rows(m, read_csv(Path(RUN.format(run)) / HISTORY_FILE))
    write_csv(RUNS_TABLE, metric_rows(list(metrics.values())))
    write_csv(CURVES_TABLE, curves)
    verdicts = {n: compare_experiments(c, n, seeds, metrics) for n, c in comparisons.items()}
    adjust_verdicts(verdicts)
    write_json(COMPARISONS_FILE, verdicts)
    write_json(SUMMARY_FILE, summarise_metrics(list(metrics.values())))
    log_to_existing_run(comparisons_id(), lambda _: record_comparisons())
    print(f"{len(runs)} runs; " + ", ".join(f"{n}: {v['verdict']}" for n, v in verdicts.items()))


if __name__ == "__main__":
    run_stage(main)
