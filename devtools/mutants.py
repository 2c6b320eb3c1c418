"""Do the tests notice? Change the code that stages use at one place, and see if a test fails.

    python -m devtools.mutants --count 30 --seed 0

A mutant has one changed operator, constant, branch or call. Each is laid into a git worktree of its
own and tested by the tests of its room. Those that these miss are then tried by all of `make test`,
several in one tree, which takes as long as one: `--only 3,8 --together`. Mutants are a function of
the seed and the code; `--checkout` tests them by the tests of another checkout.
"""

import argparse
import ast
import contextlib
import copy
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
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


@contextlib.contextmanager
def changed_tree(checkout: Path, mutants: list[Mutant]) -> Iterator[Path]:
    """A git worktree of what is committed in `checkout`, with these changes."""
    with tempfile.TemporaryDirectory() as place:
        tree = Path(place) / "main"
        words = ["git", "worktree", "add", "--quiet", "--detach", str(tree)]
        subprocess.run(words, cwd=checkout, check=True)
        try:
            for name in (".qemu", "../shared"):
                if (checkout / name).exists():
                    (tree / name).symlink_to((checkout / name).resolve())
            # From the end of a file, so that the places before stay.
            for mutant in sorted(mutants, key=lambda m: m.start, reverse=True):
                file = tree / mutant.file
                text = file.read_text()
                if text[mutant.start : mutant.end] != mutant.old:
                    sys.exit(f"{mutant.file}: another in {checkout}")
                file.write_text(text[: mutant.start] + mutant.new + text[mutant.end :])
            yield tree
        finally:
            shutil.rmtree(tree, ignore_errors=True)
            subprocess.run(["git", "worktree", "prune"], cwd=checkout, check=True)


def run_tests(tree: Path, *words: str) -> list[str]:
    """The tests that fail, as pytest names them; what else went wrong."""
    words = ("-m", "pytest", "-n", "3", "--timeout", "400", "-rfE", *words)
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
        return ["the time limit"]
    lines = done.stdout.splitlines()
    failed = [x.split(" - ")[0] for x in lines if x.startswith(("FAILED", "ERROR"))]
    return failed or [f"exit status {done.returncode}"] * (done.returncode != 0)


def try_one_by_one(mutants: dict[int, Mutant], checkout: Path, options: list[str]) -> None:
    """Say of each mutant which test of its room finds it."""
    missed = []
    for number, mutant in mutants.items():
        with changed_tree(checkout, [mutant]) as tree:
            failed = run_tests(tree, "-x", f"tests/{mutant.room}", *options)
        print(f"{number}: {failed[0] if failed else 'NOT FOUND by its room'}", flush=True)
        missed += [] if failed else [str(number)]
    print(f"{len(missed)} not found: {','.join(missed)}")


def try_together(mutants: dict[int, Mutant], checkout: Path, options: list[str]) -> None:
    """Say which tests fail with all mutants in one tree."""
    with changed_tree(checkout, list(mutants.values())) as tree:
        print("\n".join(run_tests(tree, *options)) or "NONE FOUND")


def main() -> None:
    """Draw mutants, show them and test them."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--count", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="numbers of mutants, with commas")
    parser.add_argument("--checkout", type=Path, default=ROOT, help="whose tests are run")
    parser.add_argument("--list", action="store_true", help="test nothing")
    parser.add_argument("--together", action="store_true", help="all in one tree, by all tests")
    parser.add_argument("options", nargs="*", default=["-m", "not slow"], help="pytest's")
    given = parser.parse_args()
    wanted = {int(n) for n in given.only.split(",") if n}
    every = enumerate(draw_mutants(given.count, given.seed))
    mutants = {n: mutant for n, mutant in every if not wanted or n in wanted}
    for n, m in mutants.items():
        print(" ".join(f"{n}: {m.file}:{m.line} {m.kind}: {m.old} -> {m.new}".split()), flush=True)
    if not given.list:
        (try_together if given.together else try_one_by_one)(
            mutants, given.checkout.resolve(), given.options
        )


if __name__ == "__main__":
    main()
