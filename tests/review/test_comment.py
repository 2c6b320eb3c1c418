"""A pull request's comment: what of results changed, what a review found."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from facet.errors import InputError
from facet.review.comment import write_comment
from tests.helpers import ROOT, Project, words_of, write_results


def git(folder: Path, *words: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@t"]
    done = subprocess.run(
        ["git", *identity, *words], cwd=folder, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.fixture
def changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository whose last commit changed results, reviewed."""
    git(tmp_path, "init", "-q")
    for tag, *result in (("base", 10, 0.55, "no difference shown"), ("new", 20, 0.61, "better")):
        write_results(tmp_path, *result)
        git(tmp_path, "add", "-A")
        git(tmp_path, "commit", "-qm", tag)
        git(tmp_path, "tag", tag)
    finding = {
        "severity": "refuse",
        "check": "lock",
        "where": "<b>`@all`",
        "what": "differs | a lot",
    }
    review = {
        "commit": git(tmp_path, "rev-parse", "HEAD"),
        "verdict": "refused",
        "reason": "because",
        "findings": [finding],
    }
    (tmp_path / "review.json").write_text(json.dumps(review))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rows(comment: str, title: str) -> list[str]:
    """The table rows of a section."""
    (section,) = (s for s in comment.split("\n### ") if s.startswith(title))
    return [line for line in section.splitlines() if line.startswith("| ")][2:]


def test_it_tells_verdicts_changes_and_findings(changed: Path) -> None:
    comment = write_comment("base")
    assert comment.startswith(f"## Review of {git(changed, 'rev-parse', 'HEAD')[:12]}: refused\n")
    depth, other = rows(comment, "Verdicts")
    assert depth.startswith("| `depth` | no difference shown +0.050")
    assert "| better +0.110 [+0.010, +0.200] |" in depth
    assert other == "| `other` | the same | no difference shown |"
    figures = rows(comment, "Figures")
    assert len(figures) == 2
    assert "0.620 [0.420, 0.820] chance 0.250 (2 seeds)" in figures[0]
    assert "| `defaults.epochs` | `10` | `20` |" in rows(comment, "Parameters")
    # What a pull request calls its files is no Markdown.
    assert rows(comment, "Found") == ["| refuse | lock | `<b>'@all'` | differs \\| a lot |"]


def test_nothing_changed_is_said(changed: Path) -> None:
    comment = write_comment("new")
    assert rows(comment, "Figures") == rows(comment, "Parameters") == []
    assert comment.count("None.") == 2


def test_a_review_of_another_commit_is_refused(changed: Path) -> None:
    git(changed, "commit", "-q", "--allow-empty", "-m", "more")
    with pytest.raises(InputError) as caught:
        write_comment("base")
    assert {"review.json", "HEAD"} <= words_of(caught.value)
    (changed / "review.json").unlink()
    with pytest.raises(InputError) as caught:
        write_comment("base")
    assert "review.json" in words_of(caught.value)


def test_the_script_writes_the_comment_though_the_review_refuses(project: Project) -> None:
    environment = project.folder / ".venv"
    environment.mkdir()
    for name in ("bin", "lib", "pyvenv.cfg"):
        (environment / name).symlink_to(Path(sys.prefix) / name)
    (environment / ".complete").touch()
    write_results(project.folder, 10, 0.55, "better")  # which the code does not give
    project.write()
    git(project.folder, "add", "-A")
    git(project.folder, "commit", "-qm", "results")
    done = project.run(".ci/comment", "HEAD", check=False, PYTHONPATH="")
    assert done.returncode != 0
    assert done.stdout.startswith("## Review of "), done.stderr
    assert ": refused\n" in done.stdout
    assert rows(done.stdout, "Found")
    assert (ROOT / ".github/workflows/pull-request.yml").read_text().count(".ci/comment") == 2
