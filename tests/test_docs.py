"""The documents lead somewhere and quote what there is: links, commands, error messages."""

import ast
import re
from pathlib import Path

import pytest

from facet.cli import command_names
from tests.helpers import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
COMMANDS = set(command_names())
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
# Names that messages take from variables.
NAMED_FILES = r"\.\.\.|dvc\.lock|params\.yaml"


def anchors(text: str) -> set[str]:
    """The anchors that GitHub gives a page's headings."""
    titles = re.findall(r"^#+ (.*)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name}: {link}"
        if anchor:
            assert anchor in anchors(target.read_text()), f"{page.name}: {link}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_commands_are_there(page: Path) -> None:
    text = page.read_text()
    lines = [line for block in re.findall(r"```(.*?)```", text, re.S) for line in block.split("\n")]
    lines += re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.S))
    for line in lines:
        if found := re.match(r"(?:[A-Z_]+=\S+ )*(make|facet) ([a-z][a-z-]*)", line):
            program, name = found.groups()
            assert name in (TARGETS if program == "make" else COMMANDS), f"{page.name}: {line}"


def test_every_document_is_linked_from_the_readme() -> None:
    linked = re.findall(r"\]\((docs/[a-z-]+\.md)", (ROOT / "README.md").read_text())
    assert set(linked) == {f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md")}


def test_ci_runs_the_readmes_test_command() -> None:
    assert "\nmake test " in (ROOT / "README.md").read_text()
    assert (ROOT / ".ci/run").read_text().endswith("\nmake lint\nmake test\n")


def find_tests(file: Path) -> dict[str, bool]:
    """The tests of a file, and whether `make test` has them, in whatever form."""
    found = {}
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            marks = [ast.unparse(mark) for mark in node.decorator_list]
            found[node.name] = "pytest.mark.slow" not in marks
    return found


@pytest.mark.parametrize("page", ["reliability", "reproducibility", "review", "cluster"])
def test_a_promise_has_its_test_and_make_test_a_form_of_it(page: str) -> None:
    """Tests are named by their file and, behind a colon, parts of their names."""
    files = {file.name: file for file in (ROOT / "tests").rglob("test_*.py")}
    text = " ".join((ROOT / f"docs/{page}.md").read_text().split())
    named = re.findall(r"`(?:tests/\w+/)?(test_\w+\.py)`(?:: ((?:`\w+`(?:, )?)+))?", text)
    assert named
    for name, parts in named:
        tests = find_tests(files[name])
        found = [
            [test for test in tests if part in test] for part in re.findall(r"\w+", parts)
        ] or [list(tests)]
        assert all(found), f"{page}: {name}: {parts}"
        assert any(tests[test] for some in found for test in some), f"{page}: {name}: {parts}"


def test_no_recipe_opens_a_scheduler_to_its_network() -> None:
    """Whoever reaches one without TLS runs what they like on its machines."""
    for page in [*(ROOT / "docs").glob("*.md"), ROOT / "README.md"]:
        for line in re.findall(r"^dask (?:scheduler|worker).*", page.read_text(), re.M):
            assert "--tls-ca-file" in line or "$TLS" in line or "127.0.0.1" in line, line


def test_messages_in_troubleshooting_are_those_of_the_code() -> None:
    """Facet's own: those of other programs have the program's name behind them."""
    texts = [
        node.value
        for file in (ROOT / "facet").rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    page = (ROOT / "docs/troubleshooting.md").read_text()
    quoted = re.findall(r"^\*\*`.*", page, re.M)
    own = [
        message
        for line in quoted
        for message, program in re.findall(r"\*\*`([^`]+)`\*\*( \(\w[^)]*\))?", line)
        if not program
    ]
    assert len(own) > 20
    for message in own:
        for part in re.split(NAMED_FILES, message):
            words = part.strip(" :;()")
            assert any(words in text for text in texts), f"{message}: no `{words}` in the code"
