"""Train one run, EXPERIMENT-SEED, and save the model, its history and its predictions."""

import shutil
import time

from facet.base.config import parse_run, read_experiment
from facet.base.names import AUGMENTED, COSTS
from facet.base.prepared import load_prepared, select_split
from facet.base.processor import note_other_bytes
from facet.base.storage import write_json
from facet.base.unchanged import read_input
from facet.launch import note_progress, run_stage
from facet.memory import check_memory, machine_memory, peak_memory
from facet.models.checkpoint import (
    CHECKPOINTS,
    load_checkpoint,
    run_fingerprint,
    run_inputs,
    save_run,
    train_to_end,
)
from facet.models.kinds import make_training
from facet.models.runtime import configure_tensorflow, visible_gpus
from facet.tracking import provenance, wandb_run
from facet.tracking.run_config import describe_config


def main(run: str) -> None:
    """Train RUN, EXPERIMENT-SEED, into data/runs/RUN."""
    started = time.monotonic()
    name, seed = parse_run(run)
    wandb_run.import_wandb()
    path = read_input(AUGMENTED.format(name))
    data = select_split(load_prepared(path), seed)
    spec, declared = read_experiment(name)
    if message := note_other_bytes():
        print(message)
    heads = {h: len(data.classes[h]) for h in spec.heads or data.about["heads"]}
    train = data.splits["train"]
    check_memory(name, spec, train.X.shape[1:], heads, machine_memory(), len(train))
    configure_tensorflow(spec.threads)
    fingerprint = run_fingerprint(run, spec, path)
    checkpoint = CHECKPOINTS / fingerprint / "state.npz"
    dataset = data.about["dataset"]
    origin = provenance.make_provenance(run, dataset, fingerprint, path)
    origin["processor"] = provenance.describe_processor(visible_gpus())
    tracked = wandb_run.Run(
        f"{run}-{fingerprint[:8]}",
        checkpoint.exists(),
        config=describe_config(run, declared, data.about) | {"provenance": origin},
        **wandb_run.describe_run(run, dataset),
    )

    def log_epoch(row: dict[str, float], seconds: float) -> None:
        """Tell W&B of an epoch, and who watches the grid."""
        note_progress("train", int(row["epoch"]), spec.epochs)
        speed = {"items_per_second": len(train) / seconds}
        tracked.log(wandb_run.epoch_metrics(row) | speed, step=int(row["epoch"]))

    try:
        training = make_training(spec, data, seed)
        resumed = load_checkpoint(training, checkpoint)
        if resumed:
            print(f"{run}: going on after epoch {len(training.history)}")
        tracked.define_axis("epoch")
        tracked.log_missing([wandb_run.epoch_metrics(row) for row in training.history])
        times = train_to_end(training, run, checkpoint, log_epoch)
        save_run(training, run, fingerprint, declared)
    except BaseException:
        tracked.finish(failed=True)
        raise
    print(f"{run}: {training.summary()}")
    costs: dict[str, object] = {
        "train_seconds": sum(times),
        "epochs_timed": len(times),
        "resumed": resumed,
        "peak_memory_bytes": peak_memory(),
        "threads": spec.threads,
    }
    tracked.finish()
    costs |= {"wall_seconds": time.monotonic() - started, "wandb_id": tracked.id}
    write_json(COSTS.format(run), costs)
    provenance.write_manifest(run, origin, run_inputs(path), tracked.id)
    shutil.rmtree(checkpoint.parent, ignore_errors=True)


if __name__ == "__main__":
    run_stage(main)
