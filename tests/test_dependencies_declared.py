"""What the code imports, pyproject.toml declares: not what another package happens to bring."""

import ast
import contextlib
import re
import sys
import tomllib
from importlib import metadata

import pytest

from tests.helpers import ROOT

OURS = {"devtools", "facet", "stages", "tests"}
# Which distributions a top-level module comes from; several share a namespace.
DISTRIBUTIONS = metadata.packages_distributions()
PROGRAM = re.compile(r"^(import|from) \w", re.M)
# What the program imports of the group dev, and why.
OF_DEV = {
    "visualkeras": "`make pictures` draws by it, in the environment that has all groups",
    "vl-convert-python": "who updates the page of `dvc plots show` makes it anew",
    "onnxruntime": "`facet export` checks by it, and says so where it is not installed",
    "ai-edge-litert": "the same",
}

# What the program asks for and does without.
OPTIONAL = {"albumentations": "`facet bench` measures it where it is installed"}


def plain(name: str) -> str:
    """A distribution's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(*groups: str) -> set[str]:
    """The distributions that pyproject.toml names, of these dependency groups too."""
    tree = tomllib.loads((ROOT / "pyproject.toml").read_text())
    lines = list(tree["project"]["dependencies"])
    for group in groups:
        lines += tree["dependency-groups"][group]
    return {plain(re.split(r"[\s\[<>=!~;]", line, maxsplit=1)[0]) for line in lines}


def imported(text: str) -> set[str]:
    """The top-level modules that a module imports, wherever in it.

    Also by a call of importlib with a name, and in a program that one of its strings holds.
    """
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "import_module":
            names = [a.value for a in node.args if isinstance(a, ast.Constant)]
            found |= {name for name in names if name.isascii()}
        elif isinstance(node, ast.Constant) and PROGRAM.search(str(node.value)):
            with contextlib.suppress(SyntaxError):  # not Python
                # What is no package here is the program's own.
                found |= imported(str(node.value)) & set(DISTRIBUTIONS)
    return {name.partition(".")[0] for name in found}


def undeclared(folder: str, *groups: str) -> list[str]:
    """Where a folder's modules import from a distribution that is not declared."""
    known = declared(*groups)
    found = []
    for file in sorted((ROOT / folder).rglob("*.py")):
        for module in sorted(
            imported(file.read_text()) - OURS - sys.stdlib_module_names - set(OPTIONAL)
        ):
            from_which = {plain(name) for name in DISTRIBUTIONS.get(module, [])}
            if not from_which & known:
                where = ", ".join(from_which) or "no package here"
                found.append(f"{file.relative_to(ROOT)} imports {module}, of {where}")
    return found


@pytest.mark.parametrize("folder", ["facet", "stages"])
def test_what_the_program_imports_is_declared(folder: str) -> None:
    found = undeclared(folder, "cluster")
    assert [line for line in found if not line.endswith(tuple(OF_DEV))] == []


def test_what_the_program_imports_of_dev_is_declared_there() -> None:
    assert set(OF_DEV) <= declared("dev") - declared()


def test_what_the_tests_import_is_declared() -> None:
    assert undeclared("tests", "dev", "cluster") == []


def test_what_only_tests_import_is_no_dependency_of_the_program() -> None:
    program, tests = (
        {m for f in folders for p in (ROOT / f).rglob("*.py") for m in imported(p.read_text())}
        for folders in (["facet", "stages"], ["tests"])
    )
    alone = {plain(d) for m in tests - program - OURS for d in DISTRIBUTIONS.get(m, [])}
    needed = {plain(d) for m in program for d in DISTRIBUTIONS.get(m, [])}
    assert (alone - needed) & declared() == set()


def test_an_import_is_found_wherever_it_is() -> None:
    text = """
def f():
    import a.b
    from c import d
    importlib.import_module("e.f")
PROGRAM = '''
import numpy
from scipy.stats import norm
import no_package
'''
WORDS = "import duties rose"
"""
    assert imported(text) == {"a", "c", "e", "numpy", "scipy"}
