"""The tests' W&B server is asked as the real one is: what it knows, W&B's own client asks for."""

import ast
import contextlib
import re
from pathlib import Path

import graphql
import pytest
import wandb
import wandb_workspaces
from graphql.language import FieldNode, ObjectFieldNode, Visitor, visit
from graphql.utilities import TypeInfo, TypeInfoVisitor
from wandb.util import get_core_path

from facet.tracking import dashboard, sync
from tests.tracking.server import SCHEMA

# Where the client keeps its queries, beside its program in Go.
MODULES = (
    Path(wandb.__file__).with_name("apis") / "public/files.py",
    Path(wandb.__file__).with_name("apis") / "public/reports.py",
    Path(wandb.__file__).with_name("apis") / "public/sweeps.py",
    Path(wandb.__file__).with_name("sdk") / "artifacts/_generated/operations.py",
    Path(wandb_workspaces.__file__).with_name("workspaces") / "internal.py",
)


def queries_of_module(file: Path) -> list[graphql.DocumentNode]:
    """The GraphQL documents among a module's strings."""
    found = []
    for node in ast.walk(ast.parse(file.read_text())):
        text = node.value if isinstance(node, ast.Constant) else ""
        if isinstance(text, str) and re.search(r"\b(query|mutation|fragment)\s+\w+", text):
            with contextlib.suppress(graphql.GraphQLSyntaxError):  # a sentence with such a word
                found.append(graphql.parse(text))
    return found


def queries_of_program(file: Path) -> list[graphql.DocumentNode]:
    """The GraphQL definitions in the data of a program, where one follows the other."""
    content = file.read_bytes()
    found = []
    for start in re.finditer(rb"\n(query|mutation|fragment) \w+ [^\n]*\{\n", content):
        text = content[start.start() : start.end() + 4000].decode("latin1")
        end = re.search(r"^\}$", text, re.M)
        if end:
            found.append(graphql.parse(text[: end.end()]))
    return found


@pytest.fixture(scope="module")
def documents() -> list[graphql.DocumentNode]:
    """The queries of W&B's client."""
    found = queries_of_program(Path(get_core_path()))
    assert len(found) > 30
    for module in MODULES:
        of_module = queries_of_module(module)
        assert of_module, module
        found += of_module
    return found


class Asked(Visitor):
    """Notes the fields and arguments that a document asks of the schema's types."""

    def __init__(self, types: TypeInfo) -> None:
        super().__init__()
        self.types = types
        self.seen: set[tuple[str, ...]] = set()

    def enter_field(self, node: FieldNode, *_: object) -> None:
        parent = self.types.get_parent_type()
        if parent:
            self.seen.add((parent.name, node.name.value))
            arguments = {a.name.value for a in node.arguments or ()}
            self.seen |= {(parent.name, node.name.value, a) for a in arguments}

    def enter_object_field(self, node: ObjectFieldNode, *_: object) -> None:
        parent = graphql.get_named_type(self.types.get_parent_input_type())
        if parent:
            self.seen.add((parent.name, node.name.value))


def known() -> set[tuple[str, ...]]:
    """The fields and arguments of the schema's types."""
    found: set[tuple[str, ...]] = set()
    for name, kind in SCHEMA.type_map.items():
        if not name.startswith("__"):
            for field, what in getattr(kind, "fields", {}).items():
                found.add((name, field))
                found |= {(name, field, a) for a in getattr(what, "args", {})}
    return found


def test_the_schema_holds_nothing_that_the_client_does_not_ask_for(
    documents: list[graphql.DocumentNode],
) -> None:
    types = TypeInfo(SCHEMA)
    visitor = Asked(types)
    for document in documents:
        visit(document, TypeInfoVisitor(types, visitor))
    assert len(known()) > 100
    assert known() - visitor.seen == set()


@pytest.mark.parametrize("query", [sync.HELD_QUERY, dashboard.VIEW_QUERY, dashboard.VIEWER_QUERY])
def test_our_own_queries_ask_for_no_more(query: str) -> None:
    assert graphql.validate(SCHEMA, graphql.parse(query)) == []


def test_a_query_for_what_is_not_there_is_refused() -> None:
    wrong = sync.HELD_QUERY.replace("historyTail", "historyEnd")
    assert graphql.validate(SCHEMA, graphql.parse(wrong))
