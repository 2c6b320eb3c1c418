"""Keep one comment on a pull request, on GitHub, Gitea, Forgejo or GitLab."""

import os
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import requests

from facet.errors import InputError

MARK = "<!-- facet: review of this pull request -->"  # by which the comment is found again
PULL = re.compile(r"refs/pull/(\d+)/")


class Host(NamedTuple):
    """Where a pull request's comments are, and how they are asked for."""

    comments: str
    """The URL that lists the comments and takes a new one."""
    comment: str
    """The URL of a single comment, without its number."""
    update: str
    """The HTTP method that replaces a comment's text."""
    headers: dict[str, str]
    user: str
    """The URL that tells whose token it is."""


# As whom GitHub's own runner comments: its token may not ask who it is.
RUNNER = "github-actions[bot]"


def find_host(environment: Mapping[str, str] = os.environ) -> Host:
    """The pull request that this process runs for, as the host's runner tells in the environment.

    Raises InputError where it tells of none, or there is no token.
    """
    if number := environment.get("CI_MERGE_REQUEST_IID"):
        api, project = environment.get("CI_API_V4_URL"), environment.get("CI_PROJECT_ID")
        notes = f"{api}/projects/{project}/merge_requests/{number}/notes"
        return Host(
            notes,
            notes,
            "PUT",
            {"PRIVATE-TOKEN": _token("GITLAB_TOKEN", environment)},
            f"{api}/user",
        )
    if found := PULL.match(environment.get("GITHUB_REF", "")):
        api = environment.get("GITHUB_API_URL")
        issues = f"{api}/repos/{environment['GITHUB_REPOSITORY']}/issues"
        token = {"Authorization": f"Bearer {_token('GITHUB_TOKEN', environment)}"}
        comments = (f"{issues}/{found[1]}/comments", f"{issues}/comments")
        return Host(*comments, "PATCH", token, f"{api}/user")
    raise InputError(
        "GITHUB_REF, CI_MERGE_REQUEST_IID: name no pull request; run this in a pull request's "
        "pipeline, or leave --post out and put the comment there yourself"
    )


def _token(name: str, environment: Mapping[str, str]) -> str:
    if not environment.get(name):
        raise InputError(f"{name}: not set; give it a token that may write comments")
    return environment[name]


def post_comment(text: str, host: Host) -> None:
    """Put `text` where an earlier call put its own, or into a new comment if there is none.

    Raises InputError where the host refuses. A comment of somebody else is never replaced.
    """
    own = _own_name(host)
    url: str | None = f"{host.comments}?per_page=100"
    method, to = "POST", host.comments
    while url and method == "POST":
        answer = _ask(host, "GET", url)
        for comment in answer.json():
            if comment["body"].startswith(MARK) and _author(comment) == own:
                method, to = host.update, f"{host.comment}/{comment['id']}"
        url = answer.links.get("next", {}).get("url")
    _ask(host, method, to, {"body": f"{MARK}\n{text}"})


def _author(comment: Any) -> str:
    author = comment.get("user") or comment.get("author") or {}
    return str(author.get("login") or author.get("username") or "")


def _own_name(host: Host) -> str:
    """The name under which the token comments."""
    try:
        answer = requests.get(host.user, headers=host.headers, timeout=30, allow_redirects=False)
    except requests.RequestException as e:
        raise InputError(f"GET {host.user}: {e}; is the host up?") from None
    if answer.status_code in (401, 403, 404):  # it may not ask
        return RUNNER
    if not answer.ok:
        raise InputError(f"GET {host.user}: answers {answer.status_code}; try again later")
    return _author({"user": answer.json()})


def _ask(host: Host, method: str, url: str, data: Any = None) -> requests.Response:
    try:
        answer = requests.request(
            method, url, json=data, headers=host.headers, timeout=30, allow_redirects=False
        )
        answer.raise_for_status()
    except requests.RequestException as e:
        raise InputError(
            f"{method} {url}: {e}; does the token allow comments on this pull request?"
        ) from None
    return answer
