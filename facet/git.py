"""Git, asked in one way whatever the caller's variables and settings are.

Inside a hook git's variables name another index, or another repository: with them a worker's `git
reset` would empty the commit that is being made.
"""

import os
import subprocess
from pathlib import Path

from facet.environment import command_environment
from facet.errors import InputError

# What a user may have set for all repositories, and what would run programs or change an answer.
SETTINGS = {
    "core.hooksPath": os.devnull,
    "core.fsmonitor": "false",
    "core.quotePath": "false",
    "color.ui": "never",
    "log.showSignature": "false",
    "status.showUntrackedFiles": "normal",
}


def call_git(*words: str | Path, at: Path | None = None) -> subprocess.CompletedProcess[str]:
    """What `git` with `words` answers in the folder `at`, this one if None."""
    settings = [word for key, value in SETTINGS.items() for word in ("-c", f"{key}={value}")]
    return subprocess.run(
        ["git", *settings, *words],
        cwd=at,
        env=command_environment() | {"GIT_OPTIONAL_LOCKS": "0"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="surrogateescape",
    )


def run_git(*words: str | Path, at: Path | None = None) -> str:
    """What git prints in the folder `at`. Raises InputError, with its words, where it fails."""
    done = call_git(*words, at=at)
    if done.returncode:
        reason = " ".join(done.stderr.split()) or f"exit status {done.returncode}"
        raise InputError(f"git {words[0]}: {reason}")
    return done.stdout.strip()
