"""Notes what a stage really reads: the files it opens and the parameters it asks for.

`make review` lays this file where Python looks for sitecustomize, so that each Python process of a
stage starts with it. $FACET_TRACE is the folder of notes, one file for each stage, lines of KIND,
tab, WHAT: `open` a path within the project, `outside` one beyond it that is no part of Python or
the system, `ask` a key of params.yaml, `around` where params.yaml was read without asking.
What native code opens by itself is not seen.
"""

import os
import sys
from typing import Any

PARAMETERS = "params.yaml"
SYSTEM: tuple[str, ...] = (
    "/proc/",
    "/sys/",
    "/dev/",
    "/etc/",
    "/usr/",
    "/lib",
    "/run/",
    "/var/",
    "/opt/",
)
if sys.platform == "darwin":
    SYSTEM += ("/System/", "/Library/", "/private/")


def install(folder: str, stage: str, root: str) -> None:
    """Note from now on what this process and those it forks read."""
    root = os.path.realpath(root)
    pythons = {sys.prefix, sys.base_prefix, *map(os.path.realpath, (sys.prefix, sys.base_prefix))}
    ours = (*(p + os.sep for p in pythons), os.path.realpath(folder) + os.sep)
    name = stage.replace("/", "%")
    notes = os.open(os.path.join(folder, name), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    seen: set[tuple[str, str]] = set()
    expected_reads = 0

    def write_note(kind: str, what: str) -> None:
        if (kind, what) not in seen:
            seen.add((kind, what))
            os.write(notes, f"{kind}\t{what}\n".encode())

    def opened(path: Any, flags: int) -> None:
        nonlocal expected_reads
        if isinstance(path, int) or flags & (os.O_WRONLY | os.O_TRUNC | os.O_EXCL):
            return
        path = os.path.abspath(os.fsdecode(path))
        if not os.path.isfile(path):
            return
        within = path.startswith(root + os.sep)
        if within and path == os.path.join(root, PARAMETERS):
            # `get_params` tells its keys and then reads the file once: another reading is not its.
            expected_reads -= 1
            if expected_reads < 0:
                expected_reads = 0
                write_note("around", PARAMETERS)
        elif within and not path.startswith(ours):
            write_note("open", os.path.relpath(path, root).replace(os.sep, "/"))
        elif not path.startswith((*ours, *SYSTEM)):
            write_note("outside", path)

    def hook(event: str, args: tuple[Any, ...]) -> None:
        nonlocal expected_reads
        try:
            if event == "open":
                opened(args[0], args[2])
            elif event == "facet.ask":
                expected_reads += 1
                for key in args:
                    write_note("ask", str(key))
        except (OSError, TypeError, ValueError):
            pass  # whatever is wrong with a path, the stage is to hear it from `open`

    sys.addaudithook(hook)


if "FACET_TRACE" in os.environ and "DVC_STAGE" in os.environ:
    install(
        os.environ["FACET_TRACE"], os.environ["DVC_STAGE"], os.environ.get("DVC_ROOT", os.getcwd())
    )
