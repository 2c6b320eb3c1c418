"""The library's rooms: imports go one way, and no module of it imports a stage."""

import ast
from pathlib import Path

import pytest

from tests.helpers import ROOT

# A module imports from rooms above its own and from its own; modules named here are rooms.
ROOMS = (
    "errors",
    "base",
    "environment",
    "git",
    "formats",
    "packages",
    "declared",
    "launch",
    "datasets",
    "models",
    "memory",
    "prediction",
    "evaluation",
    "comparisons",
    "tracking",
    "grid",
    "report",
    "review",
    "portability",
    "setting",
    "clean",
    "bench_data",
    "bench_cluster",
    "bench_setting",
    "bench",
    "readme_picture",
    "completion",
    "cli",
    "__main__",
)
FILES = sorted(str(p.relative_to(ROOT)) for p in (ROOT / "facet").rglob("*.py"))


def imports(file: str) -> set[str]:
    """The modules that a file imports, wherever in it, as dotted names."""
    found = set()
    for node in ast.walk(ast.parse((ROOT / file).read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: a relative import"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                path = ROOT / whole.replace(".", "/")
                is_module = path.with_suffix(".py").exists() or path.is_dir()
                found.add(whole if is_module else str(node.module))
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


def test_every_module_is_in_a_room() -> None:
    assert {Path(f).parts[1].removesuffix(".py") for f in FILES} - {"__init__"} == set(ROOMS)


@pytest.mark.parametrize("file", FILES)
def test_imports_go_one_way(file: str) -> None:
    found = imports(file)
    assert not {m for m in found if m.partition(".")[0] in ("stages", "tests")}
    room = Path(file).parts[1].removesuffix(".py")
    if room == "__init__":
        assert {m for m in found if m.startswith("facet")} == {"facet.base"}
        return
    rank = ROOMS.index(room)
    for module in found:
        parts = module.split(".")
        if parts[0] == "facet" and len(parts) > 1:
            assert ROOMS.index(parts[1]) <= rank, f"{file} imports {module}, which is below it"


def test_modules_of_a_room_do_not_need_each_other() -> None:
    """No circle of modules, imports inside functions included."""
    needs = {f.removesuffix(".py").replace("/", "."): imports(f) for f in FILES}

    def reach(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " imports ".join([*path, module])
        if module not in done:
            for inner in needs.get(module, ()):
                reach(inner, (*path, module))
            done.add(module)

    done: set[str] = set()
    for module in needs:
        reach(module, ())
