"""A pull request's comment: what of results changed, what a review found."""

import http.server
import json
import subprocess
import sys
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from facet.errors import InputError
from facet.review.comment import write_comment
from facet.review.post import MARK, find_host, post_comment
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
    head = git(changed, "rev-parse", "HEAD")
    assert comment.startswith(f"## Review of {head[:12]}: `refused`\n")
    git(changed, "checkout", "-q", "base")  # as a second job does, with the code that is there
    assert write_comment("base", head) == comment
    depth, other = rows(comment, "Verdicts")
    assert depth.startswith("| `depth` | `no difference shown +0.050")
    assert "| `better +0.110 [+0.010, +0.200]` |" in depth
    assert other == "| `other` | `the same` | `no difference shown` |"
    figures = rows(comment, "Figures")
    assert len(figures) == 2
    assert "0.620 [0.420, 0.820] chance 0.250 (2 seeds)" in figures[0]
    assert "| `defaults.epochs` | `10` | `20` |" in rows(comment, "Parameters")
    # What a pull request calls its files is no Markdown.
    assert rows(comment, "Found") == ["| `refuse` | `lock` | `<b>'@all'` | `differs \\| a lot` |"]


def test_no_text_of_the_proposed_code_is_markdown(changed: Path) -> None:
    file = changed / "review.json"
    made = json.loads(file.read_text())
    bad = "holds\n\n@everyone `<img src=x>` [here](http://example.org)"
    made |= {"verdict": bad, "reason": bad, "findings": [dict.fromkeys(made["findings"][0], bad)]}
    file.write_text(json.dumps(made))
    outside = [part for i, part in enumerate(write_comment("base").split("`")) if i % 2 == 0]
    assert not [part for part in outside if "@" in part or "<img" in part or "](" in part]


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


class Comments(http.server.BaseHTTPRequestHandler):
    """GitHub's and GitLab's comments on pull request 7 of one project, two on a page."""

    LISTS = ("/repos/me/facet/issues/7/comments", "/projects/5/merge_requests/7/notes")
    ONE = ("PATCH /repos/me/facet/issues/comments/", f"PUT {LISTS[1]}/")
    OTHERS = (1, 2, 3, 4)  # the numbers of comments that somebody else wrote
    stored: dict[int, str]  # by number

    def allowed(self) -> bool:
        token = self.headers["PRIVATE-TOKEN"] or self.headers["Authorization"]
        return token in ("secret", "Bearer secret")

    def answer(self, status: int, body: object = None, **headers: str) -> None:
        self.send_response(status if self.allowed() else 403)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def text(self) -> str:
        return json.loads(self.rfile.read(int(self.headers["Content-Length"])))["body"]

    def do_GET(self) -> None:
        url = urllib.parse.urlsplit(self.path)
        page = int(dict(urllib.parse.parse_qsl(url.query)).get("page", 1))
        if url.path == "/user":  # GitHub's runner may not ask; on GitLab it is the token's
            known = "PRIVATE-TOKEN" in self.headers
            self.answer(200 if known else 403, {"username": "facet-token"})
            return
        ours = (
            {"author": {"username": "facet-token"}}
            if url.path == self.LISTS[1]
            else {"user": {"login": "github-actions[bot]"}}
        )
        theirs = {"user": {"login": "somebody"}, "author": {"username": "somebody"}}
        shown = [
            {"id": i, "body": b} | (theirs if i in self.OTHERS else ours)
            for i, b in self.stored.items()
        ][2 * page - 2 : 2 * page]
        here = f"http://{self.headers['Host']}{url.path}"
        more = {"Link": f'<{here}?page={page + 1}>; rel="next"'} if len(shown) == 2 else {}
        self.answer(200 if url.path in self.LISTS else 404, shown, **more)

    def do_POST(self) -> None:
        if self.allowed() and self.path in self.LISTS:
            self.stored[len(self.stored) + 1] = self.text()
        self.answer(201 if self.path in self.LISTS else 404)

    def do_PATCH(self) -> None:
        before, _, number = f"{self.command} {self.path}".rpartition("/")
        known = f"{before}/" in self.ONE
        if known and self.allowed():
            self.stored[int(number)] = self.text()
        self.answer(200 if known else 404)

    do_PUT = do_PATCH  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def host() -> Iterator[tuple[str, dict[int, str]]]:
    """A host's URL, and the comments there: four of others to begin with."""
    stored = {1: "Nice", 2: "Does the split hold?", 3: "> " + MARK, 4: f"{MARK}\nmine"}
    handler = type("Handler", (Comments,), {"stored": stored})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", stored
    server.shutdown()
    server.server_close()


def github(url: str) -> dict[str, str]:
    return {
        "GITHUB_REF": "refs/pull/7/merge",
        "GITHUB_REPOSITORY": "me/facet",
        "GITHUB_API_URL": url,
        "GITHUB_TOKEN": "secret",
        "CI_MERGE_REQUEST_IID": "",  # should these tests run on GitLab
    }


def gitlab(url: str) -> dict[str, str]:
    return {
        "CI_MERGE_REQUEST_IID": "7",
        "CI_PROJECT_ID": "5",
        "CI_API_V4_URL": url,
        "GITLAB_TOKEN": "secret",
    }


@pytest.mark.parametrize("environment", [github, gitlab])
def test_a_second_comment_takes_the_place_of_the_first(
    host: tuple[str, dict[int, str]], environment: Callable[[str], dict[str, str]]
) -> None:
    url, stored = host
    others = dict(stored)
    for text in ("first", "second"):
        post_comment(text, find_host(environment(url)))
        assert stored == others | {5: f"{MARK}\n{text}"}
    wrong = {k: "other" if v == "secret" else v for k, v in environment(url).items()}
    with pytest.raises(InputError, match=r"403.*token"):
        post_comment("third", find_host(wrong))
    assert stored[5] == f"{MARK}\nsecond"


def test_without_a_pull_request_or_a_token_it_is_refused() -> None:
    with pytest.raises(InputError, match=r"GITHUB_REF.*--post"):
        find_host({"GITHUB_REF": "refs/heads/main"})
    with pytest.raises(InputError, match="GITLAB_TOKEN: not set"):
        find_host(gitlab("http://127.0.0.1") | {"GITLAB_TOKEN": ""})


def test_the_script_does_all_and_gives_the_proposed_code_no_token(
    project: Project, host: tuple[str, dict[int, str]]
) -> None:
    environment = project.folder / ".venv"
    environment.mkdir()
    for name in ("bin", "lib", "pyvenv.cfg"):
        (environment / name).symlink_to(Path(sys.prefix) / name)
    (environment / ".complete").touch()
    write_results(project.folder, 10, 0.55, "better")  # which the code does not give
    # Lint and tests, which take minutes, are those of this file's own run.
    run = '#!/bin/sh\necho "linted and tested${GITHUB_TOKEN}${MY_SECRET}"; exit 3\n'
    (project.folder / ".ci/run").write_text(run)
    project.write()
    git(project.folder, "add", "-A")
    git(project.folder, "commit", "-qm", "results")
    url, stored = host
    secrets = github(url) | {"MY_SECRET": "secret"}
    done = project.run(".ci/pull-request", "HEAD", check=False, PYTHONPATH="", **secrets)
    assert done.returncode != 0
    tested, _, comment = done.stdout.partition("\n")
    assert tested == "linted and tested"
    assert comment.startswith("## Review of "), done.stderr
    assert ": `refused`\n" in comment
    assert rows(comment, "Found")
    assert len(stored) == 4
    post = (sys.executable, "-m", "facet", "comment", "HEAD", "--post")
    for _ in range(2):  # each push runs it again
        project.run(*post, **github(url))
        assert stored[5].rstrip("\n") == f"{MARK}\n{comment}".rstrip("\n")


def test_only_a_job_of_the_base_has_a_token_that_may_write() -> None:
    jobs = yaml.safe_load((ROOT / ".github/workflows/pull-request.yml").read_text())["jobs"]
    writing = [n for n, job in jobs.items() if "write" in job["permissions"].values()]
    with_token = [n for n, job in jobs.items() if "github.token" in str(job)]
    assert writing == with_token == ["comment"]
    checkout = jobs["comment"]["steps"][0]["with"]
    assert checkout["ref"] == "${{ github.event.pull_request.base.sha }}"
    assert checkout["persist-credentials"] is False


def test_no_workflow_hands_its_input_to_make() -> None:
    """Make expands what a variable holds: `$(shell ...)` would be run."""
    for file in (ROOT / ".github/workflows").glob("*.yml"):
        for job in yaml.safe_load(file.read_text())["jobs"].values():
            for step in job["steps"]:
                inputs = [k for k, v in step.get("env", {}).items() if "inputs." in str(v)]
                lines = [
                    s for s in step.get("run", "").splitlines() if s.strip().startswith("make")
                ]
                assert not [line for line in lines if any(f"${name}" in line for name in inputs)]
