"""The picture of the project, drawn from its code: the stages of dvc.yaml, the packages of facet/.

`facet architecture > docs/architecture.svg` draws it anew; tests/test_readme_picture.py compares
the two. From top to bottom: commands, packages that commands alone use, stages, packages that
stages import, modules that all share.
"""

import ast
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import yaml

Graph = dict[str, set[str]]  # each node, and those its arrows lead to

# What `foreach` goes over, in words.
ITEMS = {"datasets": "data set", "experiments": "experiment"}
STAGES = "stages"

# --- the stages -------------------------------------------------------------------------------


@dataclass
class Stage:
    """A stage of dvc.yaml: what it runs for, what it writes, what its program imports of facet."""

    name: str
    items: str
    outs: list[str]
    imports: set[str]


def read_stages(root: Path) -> tuple[list[Stage], Graph]:
    """The stages in their order, and for each those that read its outputs."""
    graph = yaml.safe_load((root / "dvc.yaml").read_text())["stages"]
    deps: dict[str, list[str]] = {}
    stages = []
    for name, stage in graph.items():
        body = stage.get("do", stage)
        outs = [*body.get("outs", []), *body.get("metrics", [])]
        deps[name] = [_fill_in(stage, dep) for dep in body.get("deps", [])]
        program = root / STAGES / f"{name}.py"
        stages.append(
            Stage(
                name,
                _describe_items(stage),
                [_fill_in(stage, out) for out in outs],
                read_imports(program) if program.exists() else set(),
            )
        )
    readers = {
        s.name: {
            name
            for name, paths in deps.items()
            if any(_overlap(out, path) for out in s.outs for path in paths)
        }
        for s in stages
    }
    return stages, readers


def _fill_in(stage: dict[str, Any], entry: Any) -> str:
    """The path of a stage's dependency or output, with a word in place of `${...}`."""
    path: str = next(iter(entry)) if isinstance(entry, dict) else entry
    kind = "DATASET" if _over(stage) == "datasets" else "EXPERIMENT"
    path = path.replace("${item.experiment}-${item.seed}", "RUN").replace("${key}", kind)
    return re.sub(r"\$\{item\.(\w+)\}", lambda match: match[1].upper(), path)


def _over(stage: dict[str, Any]) -> str:
    return str(stage.get("foreach", "")).strip("${}")


def _describe_items(stage: dict[str, Any]) -> str:
    if "matrix" in stage:
        return f"each {' and '.join(stage['matrix'])}"
    return f"each {ITEMS.get(_over(stage), _over(stage))}" if "foreach" in stage else "once"


def _overlap(a: str, b: str) -> bool:
    """Whether one path is the other, or lies in it."""
    return f"{a}/".startswith(f"{b}/") or f"{b}/".startswith(f"{a}/")


def drop_implied(graph: Graph) -> Graph:
    """The graph without the arrows that lead where a longer way leads too. It has no cycle."""
    return {
        start: ends - set[str]().union(*(find_reachable(graph, end) for end in ends))
        for start, ends in graph.items()
    }


def find_reachable(graph: Graph, start: str) -> set[str]:
    """All nodes that arrows lead to from `start`, over however many others."""
    found: set[str] = set()
    rest = [start]
    while rest:
        new = graph.get(rest.pop(), set()) - found
        found |= new
        rest += new
    return found


# --- the packages -----------------------------------------------------------------------------


def read_imports(file: Path) -> set[str]:
    """What a Python file imports of facet: names beneath it, like `datasets` or `storage`."""
    dotted: list[str] = []
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom):
            dotted += [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            dotted += [alias.name for alias in node.names]
    return {name.split(".")[1] for name in dotted if name.startswith("facet.")}


@dataclass
class Library:
    """What is in facet/: each package's modules, what it imports, and the modules beside them."""

    packages: dict[str, list[str]]
    imports: Graph  # between packages
    shared: list[str]  # modules that packages or stages import
    commands: list[str]  # the other modules


def read_library(root: Path) -> Library:
    """The packages and modules of facet/ in the folder `root`."""
    library = root / "facet"
    packages = {p.parent.name: p.parent for p in sorted(library.glob("*/__init__.py"))}
    modules = _list_modules(library)
    imports = {name: _imports_beneath(folder) for name, folder in packages.items()}
    imports |= {name: read_imports(library / f"{name}.py") for name in modules}
    imports[STAGES] = _imports_beneath(root / STAGES)
    used = set[str]().union(*(find_reachable(imports, name) for name in [*packages, STAGES]))
    return Library(
        {
            name: [
                *_list_modules(folder),
                *(f"{p.parent.name}/" for p in sorted(folder.glob("*/__init__.py"))),
            ]
            for name, folder in packages.items()
        },
        {name: (imports[name] & set(packages)) - {name} for name in packages},
        [name for name in modules if name in used],
        [name for name in modules if name not in used],
    )


def _list_modules(folder: Path) -> list[str]:
    return [p.stem for p in sorted(folder.glob("*.py")) if not p.stem.startswith("__")]


def _imports_beneath(folder: Path) -> set[str]:
    return set[str]().union(*map(read_imports, folder.rglob("*.py")))


# --- drawing ----------------------------------------------------------------------------------

WIDTH, MARGIN, GAP, PADDING, LINE, ARC = 960, 16, 20, 10, 15, 30  # pixels
NAME_SIZE, TEXT_SIZE = 14, 11.5
CHARACTER = 0.54  # how wide one is on average, of the size
STYLE = """
  text { font-family: system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif }
  .name { font-size: 14px; font-weight: 600; fill: #1f2328 }
  .text { font-size: 11.5px; fill: #424a53 }
  .title { font-size: 12px; fill: #59636e }
  rect { rx: 5px }
  .page { fill: #ffffff }
  .command { fill: #f6f8fa; stroke: #b1bac4 }
  .stage { fill: #fff4d6; stroke: #c69026 }
  .package { fill: #ddf0ff; stroke: #4393e6 }
  .dot { fill: #c69026 }
  .arrow { stroke: #9a6700; stroke-width: 1.5; fill: none; marker-end: url(#head) }
  .head { fill: #9a6700 }
  @media (prefers-color-scheme: dark) {
    .page { fill: #0d1117 }
    .name { fill: #f0f6fc } .text { fill: #c9d1d9 } .title { fill: #9198a1 }
    .command { fill: #21262d; stroke: #656c76 }
    .stage { fill: #3b2e0f; stroke: #c69026 }
    .package { fill: #10304d; stroke: #4393e6 }
    .arrow { stroke: #d29922 } .head { fill: #d29922 }
  }
"""
HEAD = (
    '<marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="6" markerHeight="6" '
    'orient="auto"><path class="head" d="M0 0 8 4 0 8z"/></marker>'
)


@dataclass
class Box:
    """A box of the picture: its place in pixels, its name, texts beneath it."""

    kind: str
    x: float
    width: float
    name: str
    texts: list[str]
    y: float = 0
    height: float = 0

    def lines(self) -> list[str]:
        """The texts, broken to the box's width."""
        most = int((self.width - 2 * PADDING) / (TEXT_SIZE * CHARACTER))
        return [line for text in self.texts for line in break_text(text, most)]

    def draw(self) -> list[str]:
        """The box as SVG."""
        x, y = self.x + PADDING, self.y + PADDING + NAME_SIZE - 2
        return [
            f'<rect class="{self.kind}" x="{self.x:g}" y="{self.y:g}" width="{self.width:g}" '
            f'height="{self.height:g}"/>',
            f'<text class="name" x="{x:g}" y="{y:g}">{escape(self.name)}</text>',
            *(
                f'<text class="text" x="{x:g}" y="{y + LINE * i + 2:g}">{escape(line)}</text>'
                for i, line in enumerate(self.lines(), 1)
            ),
        ]


def break_text(text: str, most: int) -> list[str]:
    """A text in lines of at most `most` characters, broken after blanks and slashes."""
    lines = [""]
    for word in re.findall(r"[^ /]+[ /]*", text):
        if len(lines[-1] + word.rstrip()) > most and lines[-1]:
            lines.append("")
        lines[-1] += word
    return [line.rstrip() for line in lines]


def spread_boxes(kind: str, contents: dict[str, list[str]]) -> list[Box]:
    """Boxes of equal width beside each other over the whole picture: their names and texts."""
    width = (WIDTH - 2 * MARGIN + GAP) / len(contents) - GAP
    return [
        Box(kind, MARGIN + i * (width + GAP), width, name, texts)
        for i, (name, texts) in enumerate(contents.items())
    ]


def stack_boxes(boxes: list[Box]) -> list[list[Box]]:
    """The boxes in rows in which none covers another, the wide ones first."""
    rows: list[list[Box]] = []
    for box in sorted(boxes, key=lambda b: (-b.width, b.x, b.name)):
        free = [row for row in rows if all(_are_apart(box, other) for other in row)]
        if free:
            free[0].append(box)
        else:
            rows.append([box])
    return rows


def _are_apart(a: Box, b: Box) -> bool:
    return a.x + a.width < b.x or b.x + b.width < a.x


class Picture:
    """An SVG picture that grows downwards, row by row."""

    def __init__(self) -> None:
        self.y = float(MARGIN)
        self.parts: list[str] = []

    def add_title(self, text: str) -> None:
        """A line of text above the rows that follow."""
        self.parts.append(f'<text class="title" x="{MARGIN}" y="{self.y + 12:g}">{text}</text>')
        self.y += 20

    def add_row(self, boxes: list[Box]) -> None:
        """Place the boxes, all of one height, beneath what is there."""
        height = 2 * PADDING + NAME_SIZE + LINE * max(len(box.lines()) for box in boxes)
        for box in boxes:
            box.y, box.height = self.y, height
            self.parts += box.draw()
        self.y += height + GAP

    def add_arrow(self, start: Box, end: Box) -> None:
        """An arrow to the next box, or in an arc over those between."""
        if round(end.x - start.x - start.width) == GAP:
            y = start.y + start.height / 2
            line = f"M{start.x + start.width:g} {y:g}H{end.x:g}"
        else:
            a, b, top = start.x + start.width / 2, end.x + end.width / 2, start.y - ARC
            line = f"M{a:g} {start.y:g}C{a:g} {top:g} {b:g} {top:g} {b:g} {end.y:g}"
        self.parts.append(f'<path class="arrow" d="{line}"/>')

    def add_dot(self, above: Box, box: Box) -> None:
        """A dot on the edge of `box`, beneath the middle of the box `above`."""
        x = above.x + above.width / 2
        self.parts.append(f'<circle class="dot" cx="{x:g}" cy="{box.y:g}" r="4"/>')

    def render(self) -> str:
        """The picture as SVG."""
        height = self.y - GAP + MARGIN
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" '
            f'width="{WIDTH}" height="{height:g}">'
        )
        page = f'<rect class="page" width="{WIDTH}" height="{height:g}"/>'
        return "\n".join([head, f"<style>{STYLE}</style>", HEAD, page, *self.parts, "</svg>"])


def draw_architecture(root: Path) -> str:
    """The picture of the project in the folder `root`, as SVG."""
    stages, readers = read_stages(root)
    library = read_library(root)
    users = {name: [s.name for s in stages if name in s.imports] for name in library.packages}

    def describe(name: str) -> list[str]:
        imported = ", ".join(sorted(library.imports[name]))
        return [", ".join(library.packages[name]), *[f"imports {imported}"] * bool(imported)]

    picture = Picture()
    picture.add_title(
        "Commands: facet X, or make X for short. Modules of facet/ that they alone use"
    )
    picture.add_row(spread_boxes("command", {"commands": [", ".join(library.commands)]}))

    picture.add_title("Packages of facet/ that commands alone use, with their modules")
    contents = {name: describe(name) for name, stages_of in users.items() if not stages_of}
    picture.add_row(spread_boxes("package", contents))

    picture.add_title(
        "Stages of dvc.yaml: how often each runs, and what it writes for the stages that follow"
    )
    chain = {
        box.name: box for box in spread_boxes("stage", {s.name: [s.items, *s.outs] for s in stages})
    }
    arrows = [(s, e) for s, ends in drop_implied(readers).items() for e in sorted(ends)]
    following = list(zip(chain, list(chain)[1:], strict=False))
    picture.y += ARC * (not set(arrows) <= set(following))
    picture.add_row(list(chain.values()))
    for start, end in arrows:
        picture.add_arrow(chain[start], chain[end])

    picture.add_title("Packages of facet/ that stages import: a dot beneath each stage that does")
    spans = []
    for name, stages_of in users.items():
        if stages_of:
            first, last = chain[stages_of[0]], chain[stages_of[-1]]
            width = last.x + last.width - first.x
            spans.append(Box("package", first.x, width, name, describe(name)))
    for row in stack_boxes(spans):
        picture.add_row(row)
        for box in row:
            for stage in users[box.name]:
                picture.add_dot(chain[stage], box)

    picture.add_title("Modules of facet/ that packages and stages share")
    picture.add_row(spread_boxes("package", {"shared": [", ".join(library.shared)]}))
    return picture.render()
