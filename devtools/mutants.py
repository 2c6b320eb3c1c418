"""Do the tests notice? Change the code that stages use at one place, and see if a test fails.

    python -m devtools.mutants --count 30 --seed 0

A mutant has one changed operator, constant, branch or call. It is laid into a git worktree of its
own and tested by the tests of its room first, and by all of `make test` if these pass. Mutants are
a function of the seed and the code. `--checkout` tests the same mutants by another checkout's
tests, `--only` some of them.
"""

import argparse
import ast
import copy
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# What stages use, by the folder of its tests.
ROOMS = {
    "base": ("facet/base",),
    "datasets": ("facet/datasets",),
    "models": ("facet/models",),
    "evaluation": ("facet/evaluation", "facet/comparisons.py"),
    "stages": ("stages",),
}
OTHER: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.And: ast.Or,
    ast.Or: ast.And,
}
# What runs nothing when a stage does, and the words of messages.
SKIPPED = (ast.Import, ast.ImportFrom, ast.Raise, ast.Assert, ast.JoinedStr)
SECONDS = 2400  # of one run of the tests


@dataclass(frozen=True)
class Mutant:
    """A changed place: characters `start` to `end` of a file are replaced."""

    room: str
    kind: str
    file: str
    line: int
    start: int
    end: int
    old: str
    new: str


def walk(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes that run when a stage does: no annotations, decorators, messages, docstrings."""
    if isinstance(node, SKIPPED):
        return
    yield node
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "bases"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.If) and "__name__" in ast.unparse(child.test):
                continue
            if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
                continue
            if isinstance(child, ast.AST):
                yield from walk(child)


def change(node: ast.AST) -> tuple[str, ast.AST] | None:
    """A changed copy of a node, and the kind of change; None if there is none."""
    new = copy.deepcopy(node)
    if isinstance(new, ast.Compare) and type(new.ops[0]) in OTHER:
        new.ops[0] = OTHER[type(new.ops[0])]()  # type: ignore[call-overload]
        return "operator", new
    if isinstance(new, ast.BinOp | ast.BoolOp) and type(new.op) in OTHER:
        text = [n for n in ast.walk(new) if isinstance(n, ast.Constant) and n.value is str(n.value)]
        new.op = OTHER[type(new.op)]()  # type: ignore[assignment]
        return None if text else ("operator", new)
    if isinstance(new, ast.Constant) and type(new.value) in (bool, int, float):
        values = {bool: not new.value, int: new.value + 1, float: new.value * 1.5 or 1.0}
        return "constant", ast.Constant(values[type(new.value)])
    if isinstance(new, ast.If | ast.IfExp):
        return "branch", ast.UnaryOp(ast.Not(), new.test)
    if isinstance(new, ast.Expr) and isinstance(new.value, ast.Call):
        return "call", ast.Pass()
    return None


def find_mutants(room: str, file: Path) -> Iterator[Mutant]:
    """Every mutant of a file."""
    text = file.read_text()
    lines = text.splitlines(keepends=True)
    starts = [sum(map(len, lines[:n])) for n in range(len(lines))]
    for node in walk(ast.parse(text)):
        if not (found := change(node)):
            continue
        kind, new = found
        place = node.test if isinstance(node, ast.If | ast.IfExp) else node
        assert isinstance(place, ast.expr | ast.stmt)
        start, end = (
            starts[line - 1] + len(lines[line - 1].encode()[:column].decode())
            for line, column in (
                (place.lineno, place.col_offset),
                (place.end_lineno or 0, place.end_col_offset or 0),
            )
        )
        written = ast.unparse(ast.fix_missing_locations(new))
        written = written if kind == "call" else f"({written})"
        name = str(file.relative_to(ROOT))
        yield Mutant(room, kind, name, place.lineno, start, end, text[start:end], written)


def draw_mutants(count: int, seed: int) -> list[Mutant]:
    """Mutants of all rooms and kinds in turn."""
    draw, found = random.Random(seed), dict[tuple[str, str], list[Mutant]]()
    for room, places in ROOMS.items():
        for place in places:
            files = (
                [ROOT / place] if place.endswith(".py") else sorted((ROOT / place).rglob("*.py"))
            )
            for file in files:
                for mutant in find_mutants(room, file):
                    found.setdefault((room, mutant.kind), []).append(mutant)
    groups = [draw.sample(found[key], len(found[key])) for key in sorted(found)]
    draw.shuffle(groups)
    taken: list[Mutant] = []
    while any(groups) and len(taken) < count:
        taken += [group.pop() for group in groups if group]
    return taken[:count]


def run_tests(tree: Path, *words: str) -> str:
    """The first test that fails, "" if none does."""
    words = ("-m", "pytest", "-x", "-n", "3", "--timeout", "400", *words)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST")}
    try:
        done = subprocess.run(
            [sys.executable, *words],
            cwd=tree,
            env=environment,
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
    except subprocess.TimeoutExpired:
        return "the time limit"
    failed = [
        x.split(" - ")[0] for x in done.stdout.splitlines() if x.startswith(("FAILED", "ERROR"))
    ]
    return "" if done.returncode == 0 else (failed or [f"exit status {done.returncode}"])[0]


def try_mutant(mutant: Mutant, checkout: Path, room_first: bool, options: list[str]) -> str:
    """The test by which a mutant is found, "" if by none."""
    with tempfile.TemporaryDirectory() as place:
        tree = Path(place) / "main"
        subprocess.run(
            ["git", "worktree", "add", "--quiet", "--detach", str(tree)], cwd=checkout, check=True
        )
        try:
            for name in (".qemu", "../shared"):
                if (checkout / name).exists():
                    (tree / name).symlink_to((checkout / name).resolve())
            file = tree / mutant.file
            text = file.read_text()
            assert text[mutant.start : mutant.end] == mutant.old, f"{mutant.file}: another"
            file.write_text(text[: mutant.start] + mutant.new + text[mutant.end :])
            room = f"tests/{mutant.room}"
            return (room_first and run_tests(tree, room, *options)) or run_tests(tree, *options)
        finally:
            shutil.rmtree(tree, ignore_errors=True)
            subprocess.run(["git", "worktree", "prune"], cwd=checkout, check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--count", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="numbers of mutants, with commas")
    parser.add_argument("--checkout", type=Path, default=ROOT)
    parser.add_argument("--list", action="store_true", help="test nothing")
    parser.add_argument("--all", action="store_true", help="the tests of the room not first")
    parser.add_argument("options", nargs="*", help="pytest's; without any: -m 'not slow'")
    given = parser.parse_args()
    wanted = {int(n) for n in given.only.split(",") if n}
    missed = 0
    for number, mutant in enumerate(draw_mutants(given.count, given.seed)):
        if wanted and number not in wanted:
            continue
        shown = f"{number} {mutant.file}:{mutant.line} {mutant.kind}: {mutant.old} -> {mutant.new}"
        print(" ".join(shown.split()), flush=True)
        if given.list:
            continue
        options = given.options or ["-m", "not slow"]
        by = try_mutant(mutant, given.checkout, not given.all, options)
        missed += not by
        print(f"    {f'found by {by}' if by else 'NOT FOUND'}", flush=True)
        print(json.dumps(asdict(mutant) | {"found_by": by}), file=sys.stderr, flush=True)
    print(f"{missed} not found")


if __name__ == "__main__":
    main()
