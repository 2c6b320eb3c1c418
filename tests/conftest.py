"""Shared fixtures: tiny projects, loopback servers, the real data where they are at hand."""

import functools
import http.server
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import hypothesis
import pytest

from tests.helpers import SHARED, Handler, Project, wandb_environment

os.environ.setdefault("WANDB_MODE", "disabled")
os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
START = frozenset(os.environ)
# How long an example takes says more of the machine than of the code.
hypothesis.settings.register_profile("facet", deadline=None)
hypothesis.settings.load_profile("facet")


# Files whose tests take tens of seconds each. They begin first, so that no worker is left alone
# with them at the end.
SLOW_FILES = (
    "test_cluster.py",
    "test_emulation.py",
    "test_pipeline.py",
    "test_comment.py",
    "test_sudden_death.py",
    "test_disk.py",
    "test_inspection.py",
    "test_sweep.py",
    "test_trial.py",
    "test_dependencies.py",
    "test_review.py",
    "test_sync.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name not in SLOW_FILES)


@pytest.fixture(autouse=True)
def _environment() -> Iterator[None]:
    """What a stage run in this process tells W&B through the environment ends with its test.

    A fixture of the whole session is made before this one and has to end it itself.
    """
    left = {name for name in os.environ if name.startswith("WANDB_")} - START
    assert not left, f"a fixture has left {left} in the environment"
    with mock.patch.dict(os.environ):
        yield


@pytest.fixture
def shared() -> Path:
    """The folder of real data sets."""
    if not SHARED.exists():
        pytest.skip("the real data are not beside the project, in ../shared/data")
    return SHARED


@pytest.fixture
def serve() -> Iterator[Callable[..., tuple[str, type[Handler]]]]:
    """Serve a folder on the loopback; returns its URL and the handler with faults and requests."""
    servers = []

    def start(folder: Path, faults: dict[str, int] | None = None) -> tuple[str, type[Handler]]:
        handler = type("H", (Handler,), {"faults": faults or {}, "seen": []})
        server = http.server.ThreadingHTTPServer(
            ("127.0.0.1", 0), functools.partial(handler, directory=str(folder))
        )
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}", handler

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path / "project")


@pytest.fixture(scope="session")
def _prepared(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = Project(tmp_path_factory.mktemp("once") / "project")
    # Long enough to be killed in the middle.
    project.parameters["experiments"]["dropped"] |= {"epochs": 40, "schedule": "cosine"}
    project.write()
    for stage in (
        "download faces",
        "pickle faces",
        "normalise faces",
        "augment plain",
        "augment dropped",
    ):
        project.run(sys.executable, "-m", *f"stages.{stage}".split())
    return project


@pytest.fixture
def prepared(_prepared: Project, tmp_path: Path) -> Project:
    """A project whose runs can be trained at once; the one with dropout for many short epochs."""
    return _prepared.copy_to(tmp_path / "project")


@pytest.fixture(scope="session")
def _tracked(_prepared: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose runs are trained, evaluated and compared, W&B recording offline."""
    project = _prepared.copy_to(tmp_path_factory.mktemp("tracked") / "project")
    home = str(project.folder.parent / "home")
    for stage in (
        "train plain-0",
        "train dropped-0",
        "evaluate plain-0",
        "evaluate dropped-0",
        "compare",
    ):
        project.run(
            sys.executable, "-m", *f"stages.{stage}".split(), **wandb_environment(), HOME=home
        )
    return project


@pytest.fixture
def tracked(_tracked: Project, tmp_path: Path) -> Project:
    return _tracked.copy_to(tmp_path / "project")
