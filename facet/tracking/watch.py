"""Show the runs recorded here in W&B's own viewer for the terminal: `facet watch`.

The viewer lists the folders of W&B by their names, and each process leaves one: a training and its
evaluation, each with date and hash. So it is shown a folder of links instead, one a training, named
by the run. It asks of a folder's name that it begins with `run-DATE-`.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

from facet.base.config import parse_run, suggest
from facet.errors import InputError
from facet.tracking import offline_records, wandb_run

ID = re.compile(r"(?P<run>.+-\d+)-[0-9a-f]{8}(?P<repeat>(-r\d+)?)")
SETTINGS = "wandb-leet.json"  # the viewer's own, which it writes when its panes are changed
# Its list of runs is then wide enough for their names; `]` shows the pane.
FIRST_SETTINGS = {"workspace_overview_visible": False}
REFRESH_SECONDS = 5.0


def name_records(folder: Path, wanted: list[str]) -> dict[str, Path]:
    """The records to show of those in W&B's `folder`: `DATE-RUN`, and the file that it stands for.

    A run has that of its training, or several if that was cut off and went on; one that was not
    trained here has its last. Only runs among `wanted`, runs or experiments, if any are named.
    Raises InputError where there is none.
    """
    of_run: dict[tuple[str, str], list[Path]] = defaultdict(list)
    for file in offline_records.record_files(folder):
        if match := ID.fullmatch(file.stem.removeprefix("run-")):
            of_run[match["run"], match["repeat"]].append(file)
    runs = {run for run, _ in of_run}
    experiments = {parse_run(run)[0] for run in runs}
    if not runs:
        raise InputError(
            f"{folder}: no runs are recorded here; `make repro` records what it trains"
        )
    for name in wanted:
        if name not in runs | experiments:
            hint = suggest(name, sorted(runs if "-" in name else experiments))
            raise InputError(f"{folder}: no run or experiment {name} is recorded here{hint}")
    shown = {}
    for (run, repeat), files in of_run.items():
        if wanted and not {run, parse_run(run)[0]} & set(wanted):
            continue
        trained = [f for f in files if not (f.parent / wandb_run.JOINED).exists()]
        for file in trained or files[-1:]:
            date = re.search(r"\d{8}_\d{6}", file.parent.name)
            if date:
                shown[f"{date[0]}-{run}{repeat}"] = file
    return shown


def link_records(shown: dict[str, Path], place: Path) -> None:
    """Make `place` hold a folder for each record, and no other."""
    place.mkdir(parents=True, exist_ok=True)
    for folder in place.glob("run-*"):
        if folder.name.removeprefix("run-") not in shown:
            shutil.rmtree(folder)
    for name, file in shown.items():
        folder = place / f"run-{name}"
        folder.mkdir(exist_ok=True)
        targets = {
            f"run-{name.partition('-')[2]}.wandb": file,
            "files": file.parent / "files",  # the pictures
        }
        for link, target in targets.items():
            if not (folder / link).is_symlink():
                (folder / link).symlink_to(target.resolve())


def watch_runs(names: str) -> None:
    """Open the viewer on the newest training of `names`, with commas; of all if empty."""
    wandb_run.configure_wandb()
    folder, data = wandb_run.runs_folder(), Path(os.environ["WANDB_DATA_DIR"])
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    place = data / "watch" / (",".join(wanted) or "all")
    shown = name_records(folder, wanted)
    link_records(shown, place)
    if not (data / SETTINGS).exists():
        (data / SETTINGS).write_text(json.dumps(FIRST_SETTINGS))
    one = len(wanted) == 1 and any(name.endswith(f"-{wanted[0]}") for name in shown)
    opened = place / f"run-{max(shown)}" if one else place
    # A configuration of its own, so that nothing is written outside the project.
    viewer = subprocess.Popen(
        [sys.executable, "-m", "wandb", "leet", str(opened)],
        env=os.environ | {"WANDB_CONFIG_DIR": str(data)},
    )
    while viewer.poll() is None:
        try:
            viewer.wait(REFRESH_SECONDS)
        except subprocess.TimeoutExpired:  # what began to train meanwhile
            link_records(name_records(folder, wanted), place)
    if viewer.returncode:
        raise InputError(f"W&B's viewer ended with status {viewer.returncode}")
