"""Judge one run on its test split: metrics with chance beside them, warnings, pictures."""

from facet.base.arrays import load_arrays
from facet.base.config import parse_run
from facet.base.names import AUGMENTED, EVALUATION, HISTORY_FILE, METRICS, PREDICTIONS_FILE, RUN
from facet.base.prepared import load_prepared, select_split
from facet.base.storage import atomic_write, read_csv, read_json, write_json
from facet.base.unchanged import read_input
from facet.evaluation.metrics import evaluate_run
from facet.evaluation.plots import draw_run
from facet.launch import run_stage
from facet.tracking.provenance import describe_processor
from facet.tracking.run_record import find_run_id, record_run
from facet.tracking.wandb_run import log_to_existing_run


def main(run: str) -> None:
    """Judge RUN: metrics/runs/RUN.json and the pictures in data/evaluations/RUN."""
    experiment, seed = parse_run(run)
    folder = read_input(RUN.format(run))
    about, history = read_json(folder / "model.json"), read_csv(folder / HISTORY_FILE)
    data = select_split(load_prepared(read_input(AUGMENTED.format(experiment))), seed)
    predictions = load_arrays(folder / PREDICTIONS_FILE)
    metrics = evaluate_run(data, predictions, about)
    with atomic_write(EVALUATION.format(run)) as aside:
        aside.mkdir()
        draw_run(aside, run, data, predictions, history, metrics)
    write_json(METRICS.format(run), metrics)
    here = describe_processor()
    log_to_existing_run(find_run_id(run), lambda id: record_run(run, id, processor=here))
    summary = ", ".join(
        f"{h} {m['accuracy']:.2f} (chance {m['chance']:.2f})"
        if m["accuracy"] is not None
        else f"{h} not applicable"
        for h, m in metrics["heads"].items()
    )
    print(f"{run}: {summary}")
    for warning in metrics["warnings"]:
        print(f"{run}: warning: {warning}")


if __name__ == "__main__":
    run_stage(main)
