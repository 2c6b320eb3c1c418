"""Shared fixtures: tiny projects, loopback servers, the real data where they are at hand."""

import functools
import http.server
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest import mock

import hypothesis
import pytest
from filelock import FileLock
from xdist.scheduler import LoadScopeScheduling

from facet.base import processor
from facet.errors import InputError
from facet.portability import emulation
from tests.helpers import (
    CHROMIUM,
    REPRO,
    SHARED,
    Handler,
    Project,
    new_data,
    wandb_environment,
)
from tests.warm import server_address

os.environ.setdefault("WANDB_MODE", "disabled")
# Byte-code is kept, as where people work: compiling the project takes longer than most stages.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
START = frozenset(os.environ)


def why_no_mounts() -> str:
    """Why no file system may be mounted here; empty if one may."""
    with tempfile.TemporaryDirectory() as folder:
        words = ["mount", "-t", "tmpfs", "none", folder]
        done = subprocess.run(words, capture_output=True, text=True)
        if done.returncode == 0:
            subprocess.run(["umount", folder], check=True)
    return done.stderr.strip()


def why_no_emulator() -> str:
    try:
        emulation.find_emulator()
    except InputError as e:
        return str(e)
    return ""


def missing(there: bool, what: str) -> str:
    return "" if there else what


# What tests need beside Python and git, by their marker: why it is not here, empty if it is. In
# CI a test that is skipped has failed, unless the names in MAY_SKIP say that this host lacks it.
NEEDS = {
    "avx2": processor.why_other_bytes,
    "browser": lambda: missing(bool(CHROMIUM), "there is no Chromium"),
    "cluster": lambda: missing(bool(find_spec("distributed")), "Dask is not installed"),
    "compiler": lambda: missing(bool(shutil.which("cc")), "there is no C compiler"),
    "emulator": why_no_emulator,
    "linux": lambda: missing(Path("/proc/self/status").exists(), "there is no /proc"),
    "root": why_no_mounts,
    "shared": lambda: missing(SHARED.exists(), f"{SHARED} is not here"),
}
find_reason = functools.cache(lambda need: NEEDS[need]())


def pytest_runtest_setup(item: pytest.Item) -> None:
    for need in NEEDS:
        asked = item.get_closest_marker(need) or need in getattr(item, "fixturenames", ())
        if asked and (reason := find_reason(need)):
            if os.environ.get("CI") and need not in os.environ.get("MAY_SKIP", "").split():
                pytest.fail(f"{need}: {reason}; MAY_SKIP has no {need}", pytrace=False)
            pytest.skip(f"{need}: {reason}")


def pytest_configure(config: pytest.Config) -> None:
    """One server for all workers, which starts while they collect."""
    if config.getoption("numprocesses", None):
        server_address()


# Files whose tests share what is dear to make, by the worker that has them all: no other makes it.
TOGETHER = {
    "test_cluster.py": "cluster",
    "test_demo.py": "demo",
    "test_embedded.py": "embedded",
    "test_forest.py": "keras",
    "test_page.py": "page",
    "test_stage_server.py": "stage server",
    "test_stored_files.py": "keras",
}
# Files that begin first, so that no worker is left alone with one at the end.
# The first of all makes what the others share, so these are of several kinds.
FIRST = (
    "test_cluster.py",
    "test_page.py",
    "test_network.py",
    "test_emulation.py",
    "test_statistics.py",
    "test_sudden_death.py",
    "test_stored_files.py",  # before the forests: it limits TensorFlow, which can be done once
    "test_forest.py",
    "test_pipeline.py",
    "test_surroundings.py",
    "test_review.py",
)


class Scheduling(LoadScopeScheduling):
    """Gives a worker the tests that go together, or one test after the other."""

    def _split_scope(self, nodeid: str) -> str:
        return TOGETHER.get(Path(nodeid.partition("::")[0]).name, nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Scheduling:
    config.option.loadscopereorder = False
    return Scheduling(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: (*FIRST, item.path.name).index(item.path.name))


# How long an example takes says more of the machine than of the code.
hypothesis.settings.register_profile(
    "facet", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("facet")


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


def make_once(
    name: str, factory: pytest.TempPathFactory, make: Callable[[Path], Project]
) -> Project:
    """A project of the whole session, however many workers ask for it; it is not to be changed.

    The first to ask makes it, in a folder that all workers share; the others wait.
    """
    place = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        place = place.parent
    folder, complete = place / name / "project", place / name / "complete"
    with FileLock(place / f"{name}.lock"):
        if not complete.exists():
            shutil.rmtree(folder.parent, ignore_errors=True)
            make(folder)
            complete.touch()
    return Project(folder)


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project of which nothing is made; not to be changed."""
    return make_once("template", tmp_path_factory, Project.make)


@pytest.fixture
def project(template: Project, tmp_path: Path) -> Project:
    """A project of which nothing is made, with a source of its own."""
    shutil.copytree(template.folder.parent / "source", tmp_path / "source")
    project = template.copy_to(tmp_path / "project")
    project.parameters["datasets"]["faces"]["source"] = (tmp_path / "source").as_uri()
    project.write()
    project.commit("start", "--amend")
    return project


@pytest.fixture(scope="session")
def made_once(template: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose grid is made, W&B recording offline; not to be changed."""

    def make(folder: Path) -> Project:
        project = template.copy_to(folder)
        # Long enough to be killed in the middle.
        project.parameters["experiments"]["dropped"] |= {"epochs": 40, "schedule": "cosine"}
        project.write()
        project.commit("longer")
        home = folder.parent / "home"
        home.mkdir()
        project.run(*REPRO, **wandb_environment(), HOME=str(home))
        return project

    return make_once("made", tmp_path_factory, make)


@pytest.fixture
def made(made_once: Project, tmp_path: Path) -> Project:
    """A project whose grid is made, with what W&B recorded; the one with dropout in 40 epochs."""
    return made_once.copy_to(tmp_path / "project")


@pytest.fixture
def prepared(made: Project) -> Project:
    """A project whose runs can be trained at once."""
    for name in ("data/runs", "data/evaluations", "metrics", "wandb", "dvc.lock", ".dvc/cache"):
        path = made.folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return made


@pytest.fixture(scope="session")
def new_data_project(template: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project of two data sets nobody thought of, made by plain DVC; not to be changed."""

    def make(folder: Path) -> Project:
        project = template.copy_to(folder)
        project.parameters |= new_data(folder.parent / "new") | {"comparisons": {}}
        project.write()
        project.ran()
        return project

    return make_once("new_data", tmp_path_factory, make)
