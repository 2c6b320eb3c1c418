"""How far the grid is: what runs, which epoch, how long it still takes."""

import time
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from facet.base.config import Parameters, parse_run
from facet.base.names import METRICS, TIMINGS_FILE
from facet.base.storage import read_json
from facet.errors import InputError
from facet.formats import StageTiming
from facet.grid.plan import Plan, stages_to_make
from facet.grid.worker import TargetResult, extract_error
from facet.grid.worktree import PROGRESS

EVERY = 30  # seconds between two lines of how far it is, where no terminal shows it all the time


def read_timings() -> dict[str, StageTiming]:
    """How long each stage took when it ran last, as far as that is noted here."""
    try:
        stages: dict[str, StageTiming] = read_json(TIMINGS_FILE)["stages"]
        return {n: {"ran": bool(s["ran"]), "seconds": s["seconds"]} for n, s in stages.items()}
    except (InputError, KeyError, TypeError, AttributeError):
        return {}


def expect_seconds(parameters: Parameters, stages: list[str]) -> dict[str, float]:
    """How long stages are likely to take: as last time, else as others of their kind took.

    A training by its epochs. 0 where nothing is known.
    """
    took = {name: s["seconds"] for name, s in read_timings().items()}
    found = {}
    for stage in stages:
        kind, _, item = stage.partition("@")
        like = f"{kind}@{item.rpartition('-')[0]}-" if kind in ("train", "evaluate") else stage
        near = [s for n, s in took.items() if n.startswith(like)]
        near = near or [s for n, s in took.items() if n.startswith(f"{kind}@")]
        found[stage] = took.get(stage, sum(near) / len(near) if near else 0.0)
        if kind == "train" and stage in took and Path(METRICS.format(item)).exists():
            epochs = read_json(METRICS.format(item))["epochs"]
            found[stage] *= parameters.experiments[parse_run(item)[0]].epochs / epochs
    return found


def in_words(seconds: float) -> str:
    """Seconds as minutes and seconds."""
    return (
        f"{seconds // 60:.0f}:{seconds % 60:02.0f}" if round(seconds) >= 60 else f"{seconds:.0f} s"
    )


@dataclass
class Running:
    """A target that a worker is making."""

    left: dict[str, float]
    """The seconds that each of its stages is expected to take, those that have ended left out."""
    machine: str = ""
    """Where it is made, if not here."""
    stage: str = ""
    done: int = 0
    total: int = 0
    """Epochs."""
    since: float = field(default_factory=time.monotonic)
    """When the stage began."""

    def look(self, file: Path) -> None:
        """Read what the stage has noted."""
        try:
            stage, done, total = file.read_text().split()
        except (OSError, ValueError):  # it has noted nothing yet, or is about to
            return
        if stage != self.stage:
            for name in [n for n in self.left if n.partition("@")[0] == self.stage]:
                del self.left[name]
            self.stage, self.since = stage, time.monotonic()
        self.done, self.total = int(done), int(total)

    def seconds_left(self) -> float:
        """How long it still takes; 0 where that is not known."""
        here = time.monotonic() - self.since
        now = next((n for n in self.left if n.partition("@")[0] == self.stage), "")
        after = sum(seconds for name, seconds in self.left.items() if name != now)
        if self.done:
            return here / self.done * (self.total - self.done) + after
        return max(self.left.get(now, 0.0) - here, 0.0) + after

    def __str__(self) -> str:
        epochs = f", epoch {self.done} of {self.total}" if self.total else ""
        left = self.seconds_left()
        return f"{self.stage or 'starts'}{epochs}" + (f", {in_words(left)} to go" if left else "")


class Progress:
    """Shows how far a plan is: a live display on a terminal, elsewhere a line now and then."""

    def __init__(
        self, plan: Plan, changed: set[str], parameters: Parameters, jobs: int, root: Path
    ) -> None:
        made = stages_to_make(plan, changed)
        expected = expect_seconds(parameters, [s for several in made.values() for s in several])
        self.plan, self.jobs, self.folder = plan, jobs, root / PROGRESS
        self.expected = {t: {s: expected[s] for s in several} for t, several in made.items()}
        self.waiting = dict.fromkeys(plan)
        self.running: dict[str, Running] = {}
        self.ended = 0
        self.last_line = time.monotonic()
        self.console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
        self.live: Live | None = None
        if self.console.is_terminal and not self.console.is_dumb_terminal:
            self.live = Live(console=self.console, auto_refresh=False, transient=True)

    def __enter__(self) -> "Progress":
        if self.live:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live:
            self.live.stop()

    def seconds_through(self, target: str) -> float:
        """How long it takes from the start of a target to the end of the last that waits for it."""
        following = [t for t, (waits, _) in self.plan.items() if target in waits]
        own = sum(self.expected[target].values())
        return own + max(map(self.seconds_through, following), default=0.0)

    def begin(self, target: str, machine: str = "") -> None:
        """A worker, of another machine if one is named, begins to make a target."""
        (self.folder / target).unlink(missing_ok=True)
        self.waiting.pop(target, None)
        self.running[target] = Running(dict(self.expected[target]), machine)
        if not self.live:
            self.say(f"{target} begins" + f" on {machine}" * bool(machine))

    def end(self, result: TargetResult) -> None:
        """A target is made, has failed or cannot be tried."""
        self.waiting.pop(result.target, None)
        self.running.pop(result.target, None)
        self.ended += 1
        words = f"[{self.ended}/{len(self.plan)}] {result.target}"
        if result.status == 0:
            self.say(f"{words} {result.seconds:.0f} s")
        elif result.status is None:
            self.say(f"{words} not run: what it needs failed")
        else:
            self.say(f"{words} FAILED\n{extract_error(result.output)}")

    def look(self) -> None:
        """See how far the stages are, and show it."""
        for target, running in self.running.items():
            running.look(self.folder / target)
        if self.live:
            self.live.update(self.draw(), refresh=True)
        elif self.running and self.silent():
            for target, running in self.running.items():
                self.say(f"{target}: {running}")
            self.say(self.summary())

    def silent(self) -> bool:
        """Whether there was no line for a while."""
        return time.monotonic() - self.last_line >= EVERY

    def seconds_left(self) -> float:
        """How long all of it still takes; 0 where that is not known of each target that waits."""
        if not all(all(self.expected[target].values()) for target in self.waiting):
            return 0.0
        running = [r.seconds_left() for r in self.running.values()]
        waiting = sum(sum(self.expected[t].values()) for t in self.waiting)
        chains = map(self.seconds_through, self.waiting)
        return max([*running, *chains, (sum(running) + waiting) / self.jobs])

    def summary(self) -> str:
        """All of it in a line."""
        left = self.seconds_left()
        words = f"{self.ended} of {len(self.plan)} targets made"
        return words + (f", about {in_words(left)} to go" if left else "")

    def draw(self) -> Group:
        """The live display: a line for each target that is being made, and one for all."""
        table = Table.grid(padding=(0, 2))
        for target, running in self.running.items():
            table.add_row(running.machine, Text(target, "bold"), str(running))
        return Group(table, Text(self.summary()))

    def say(self, line: str) -> None:
        """A line that stays."""
        self.last_line = time.monotonic()
        self.console.print(Text(line))
