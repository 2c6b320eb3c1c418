"""A pull request's comment in Markdown: the review's verdict, what changed, what was found."""

from collections.abc import Sequence
from pathlib import Path

from facet.base.storage import read_json
from facet.errors import InputError
from facet.report.diff import Change, Differences, compare_commits, resolve_commit
from facet.review.page import markdown_table

MOST_ROWS = 40


def write_comment(base: str, commit: str = "HEAD", review: Path = Path("review.json")) -> str:
    """The comment on `commit`, to go onto `base`, from the review of it that was made last.

    Raises InputError where that is of another commit, or `base` has no results in git. All texts of
    the review and the results are quoted: the proposed code wrote them.
    """
    if not review.exists():
        raise InputError(f"{review}: not found; make it with `make review QUICK=1`")
    made, head = read_json(review), resolve_commit("COMMIT", commit)
    if made["commit"] != head:
        raise InputError(
            f"{review}: is of commit {made['commit'][:12]}, not of {commit}; make it anew with "
            "`make review QUICK=1`"
        )
    found = compare_commits(base, head)
    keys = ("severity", "check", "where", "what")
    findings = [[_quote(finding[key]) for key in keys] for finding in made["findings"]]
    return "\n".join(
        [
            f"## Review of {head[:12]}: {_quote(made['verdict'])}",
            "",
            _quote(made["reason"]),
            "",
            *_section("Verdicts", _list_verdicts(found)),
            *_section(
                "Figures that changed, means over seeds", _list_changes(found.figures.changes())
            ),
            *_section("Parameters that changed", _list_changes(found.parameters)),
            *_section("Found", _table(["", "check", "where", "what"], findings)),
        ]
    )


def _section(title: str, lines: list[str]) -> list[str]:
    return [f"### {title}", "", *(lines or ["None.", ""])]


def _list_verdicts(found: Differences) -> list[str]:
    changed = {c.key: c.old for c in found.verdicts.changes()}
    names = dict.fromkeys([*found.verdicts.new, *changed])
    verdicts = found.verdicts.new
    rows = [
        [_quote(n), _quote(changed.get(n, "the same")), _quote(verdicts.get(n, "-"))] for n in names
    ]
    return _table(["comparison", "before", "now"], rows)


def _list_changes(changes: Sequence[Change]) -> list[str]:
    return _table(["", "before", "now"], [[*map(_quote, c)] for c in changes])


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    if not rows:
        return []
    more = len(rows) - MOST_ROWS
    return [
        *markdown_table(head, rows[:MOST_ROWS]),
        *([f"And {more} more.", ""] if more > 0 else []),
    ]


def _quote(text: str) -> str:
    """As code: a name or value from the pull request is no Markdown, and mentions nobody."""
    return f"`{' '.join(str(text).split()).replace('`', chr(39)) or ' '}`"
