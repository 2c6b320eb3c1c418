"""Make a plan's targets on the Dask workers of a cluster: `make repro CLUSTER=tcp://host:8786`.

The machines share nothing but git and DVC's remote: a worker has a clone at this commit, pulls what
a target reads, makes it and pushes the outputs; what comes back are its entries of dvc.lock and
what a run notes beside its outputs. A target that is made twice has the same outputs.
"""

import base64
import contextlib
import io
import ipaddress
import logging
import os
import queue
import secrets
import shutil
import tarfile
import time
import urllib.parse
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import cloudpickle  # type: ignore[import-untyped]
from distributed import Client, Future, KilledWorker
from distributed.comm.core import CommClosedError
from distributed.security import Security
from distributed.versions import VersionMismatchWarning

from facet.base.config import Parameters, parse_run
from facet.base.names import LOCK_FILE
from facet.errors import InputError
from facet.git import call_git, run_git
from facet.grid import cluster_plugin
from facet.grid.dvc_session import load_stages, open_dvc, read_lock
from facet.grid.estimate import estimate_memory, measure_dataset
from facet.grid.plan import Plan, ready_targets, stages_to_make
from facet.grid.progress import Progress
from facet.grid.remote_store import find_inputs, open_remote, push_stages
from facet.grid.worker import TargetResult, extract_error
from facet.grid.worktree import LOGS, PROGRESS

TRIES = 3  # of a target whose worker, or whose process there, ends
ANSWER = 10  # seconds for a scheduler to answer
PATIENCE = 300.0  # seconds for which a scheduler that was lost is looked for
LOOK = 0.25  # seconds between two looks at how far the targets are
# What a worker is given of this process's environment: how W&B is used, but no key.
PASSED_ON = ("WANDB_MODE", "WANDB_PROJECT", "WANDB_ENTITY", "WANDB_BASE_URL")
# Where runs note what is no output: nothing else is taken from a worker.
NOTED = ("wandb/", "metrics/costs/", "metrics/manifests/")
# Resources that a worker may declare: `dask worker --resources "MEMORY=16e9 GPU=1"`.
MEMORY, GPU = "MEMORY", "GPU"


@dataclass(frozen=True)
class Need:
    """What a target needs of a machine."""

    memory: int = 0  # bytes; 0 where that is not known
    gpu: bool = False


@dataclass
class Cluster:
    """A Dask scheduler, and the commit that its workers are to make."""

    address: str
    url: str = ""
    commit: str = ""
    open_network: bool = False
    """Whether an address beyond this machine may be without TLS."""
    plugin: type[cluster_plugin.TargetPlugin] = cluster_plugin.TargetPlugin
    """What makes the targets on a worker."""
    unfit: dict[str, str] = field(default_factory=dict)
    """Workers that are given nothing more, and why."""

    def check_address(self) -> None:
        """Raise InputError for an address that lets others run code on the machines."""
        url = urllib.parse.urlsplit(self.address)
        host = url.hostname or ""
        if url.scheme not in ("tcp", "tls") or not host:
            raise InputError(f"--cluster {self.address}: say tcp://HOST:8786 or tls://HOST:8786")
        with contextlib.suppress(ValueError):
            host = "localhost" if ipaddress.ip_address(host).is_loopback else host
        if url.scheme == "tcp" and host != "localhost" and not self.open_network:
            raise InputError(
                f"--cluster {self.address}: not encrypted, so that whoever reaches it runs what "
                "they like on its machines; use tls:// (docs/cluster.md), or say --open-network "
                "where nobody else does"
            )
        if url.scheme == "tls":
            self._check_certificates()

    def _check_certificates(self) -> None:
        """Raise InputError unless Dask's own configuration names certificates that can be used."""
        try:
            if Security().get_connection_args("client").get("ssl_context"):
                return
            what = "names no certificates"
        except OSError as e:  # that of TLS itself too
            what = f"names certificates that cannot be used: {e}"
        raise InputError(
            f"--cluster {self.address}: Dask's configuration {what}; set "
            "DASK_DISTRIBUTED__COMM__TLS__CA_FILE, ...__CLIENT__CERT, ...__CLIENT__KEY "
            "(docs/cluster.md)"
        )

    def check_commit(self) -> None:
        """Find the commit and where machines get it. Raises InputError unless it is pushed."""
        # What stages make is another matter: their entries of dvc.lock travel with each target.
        names = [line[3:] for line in call_git("status", "--porcelain").stdout.splitlines()]
        if changed := [n for n in names if not n.startswith((str(LOCK_FILE), "metrics/"))]:
            more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
            raise InputError(
                f"--cluster: {', '.join(changed[:3])}{more}: not as in the last commit, which is "
                "what the machines make; commit and push"
            )
        self.commit = run_git("rev-parse", "HEAD")
        self.url = run_git("remote", "get-url", "origin")
        url = urllib.parse.urlsplit(self.url)
        # A token may stand as the user's name alone; over ssh that names an account.
        if url.password or (url.username and url.scheme not in ("ssh", "git+ssh")):
            raise InputError(
                "--cluster: the address of origin holds a password or token, which would go to "
                "all machines; take it out (git remote set-url origin URL) and use a credential "
                "helper"
            )
        if self.url.startswith((".", "/")):
            self.url = str(Path(self.url).resolve())
        run_git("fetch", "--quiet", "origin")
        if not run_git("branch", "--remotes", "--contains", self.commit):
            raise InputError(f"--cluster: commit {self.commit[:8]} is not on origin: git push")

    def connect(self) -> Client:
        """A client of the scheduler. Raises ConnectionError where none answers."""
        # Each worker compares all its packages with the locks, and is given nothing if they differ.
        warnings.simplefilter("ignore", VersionMismatchWarning)
        try:
            return Client(self.address, timeout=ANSWER, name="facet", set_as_default=False)
        except (OSError, ValueError) as e:
            raise ConnectionError(
                f"--cluster {self.address}: no Dask scheduler answers ({' '.join(str(e).split())})"
                "; start one: dask scheduler"
            ) from None


class ByValue:
    """A function that machines without this project's code can call.

    Dask pickles what a task names by its module and name; the plugin it pickles by value itself.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, *words: Any) -> Any:
        return self.function(*words)

    def __reduce__(self) -> Any:
        return cloudpickle.loads, (cloudpickle.dumps(self.function),)


@contextlib.contextmanager
def open_client(cluster: Cluster, events: queue.SimpleQueue[Any]) -> Iterator[tuple[Client, str]]:
    """A client whose workers have the plugin, and the plugin's name; both end with the block.

    What workers tell of their targets comes as `events`.
    """
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # what matters is said here
    environment = {k: v for k in PASSED_ON if (v := os.environ.get(k))}
    name = f"facet-{cluster.commit[:8]}-{secrets.token_hex(4)}"
    plugin = cluster.plugin(name, cluster.url, cluster.commit, environment)
    client = cluster.connect()
    cloudpickle.register_pickle_by_value(cluster_plugin)
    try:
        client.register_plugin(plugin)
        client.subscribe_topic(name, lambda event: events.put(event[1]))
        yield client, name
    finally:
        cloudpickle.unregister_pickle_by_value(cluster_plugin)
        with contextlib.suppress(Exception):  # the scheduler may have gone
            if client.status == "running":
                client.unregister_worker_plugin(name)
        client.close(timeout=ANSWER)


def unpack_notes(notes: str, root: Path) -> None:
    """Put what a run noted on its machine (`pack_notes`) where it would be had it run here."""
    with tarfile.open(fileobj=io.BytesIO(base64.b64decode(notes))) as archive:
        for member in archive:
            content = archive.extractfile(member) if member.isfile() else None
            # Python 3.11.2, which Debian 12 has, knows no `filter` of extractall.
            if content and member.name.startswith(NOTED) and ".." not in Path(member.name).parts:
                place = root / member.name
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(content.read())


class ClusterRun:
    """A plan that is being made on a cluster."""

    def __init__(
        self,
        cluster: Cluster,
        plan: Plan,
        made: Mapping[str, list[str]],
        needs: Mapping[str, Need],
        progress: Progress,
        root: Path,
        results: dict[str, TargetResult],
    ) -> None:
        """`made` are the stages that each target makes, `results` what is filled in."""
        self.cluster, self.plan, self.made, self.needs = cluster, plan, made, needs
        self.progress, self.root, self.results = progress, root, results
        self.known = read_lock(LOCK_FILE)
        self.left = sorted(plan, key=progress.seconds_through, reverse=True)
        self.running: dict[str, Future[Any]] = {}
        self.tries: Counter[str] = Counter()
        self.counts_memory = False  # whether all workers declare MEMORY
        self.events: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def run(self) -> None:
        """Make all targets. Raises InputError where there is no scheduler, or no fit worker."""
        seen = -PATIENCE  # where it was never there, the command line is wrong
        while self.left:
            try:
                with open_client(self.cluster, self.events) as (client, plugin):
                    self._show_cluster(client)
                    try:
                        self._make(client, plugin)
                    finally:
                        seen = time.monotonic()
            except (CommClosedError, ConnectionError, TimeoutError) as e:
                if time.monotonic() - seen > PATIENCE:
                    raise InputError(str(e)) from None
                if self.running:
                    self.progress.say("the scheduler was lost; looking for it")
                # What was being made is made again, or is still being made and is done sooner.
                self.left += self.running
                self.running.clear()
                time.sleep(2)

    def _show_cluster(self, client: Client) -> None:
        """Print what there is. Raises InputError where no worker could make a target."""
        workers = client.scheduler_info(n_workers=-1)["workers"]
        threads = sum(w["nthreads"] for w in workers.values())
        hosts = {w["host"] for w in workers.values()}
        self.progress.jobs = max(threads, 1)
        self.progress.say(
            f"{len(workers)} workers with {threads} threads on {len(hosts)} machines; "
            f"Dask's dashboard: {client.dashboard_link}"
        )
        if not workers:
            return
        largest = max(w["memory_limit"] or 0 for w in workers.values())
        for target, need in self.needs.items():
            if largest and need.memory > largest:
                raise InputError(
                    f"{target}: needs {need.memory / 1e9:.1f} GB of memory, the largest worker has "
                    f"{largest / 1e9:.1f} GB (dask worker --memory-limit)"
                )
            if need.gpu and not any(w["resources"].get(GPU) for w in workers.values()):
                raise InputError(
                    f"{target}: asks for a GPU, and no worker has one (dask worker --resources "
                    f'"{GPU}=1")'
                )
        self.counts_memory = all(MEMORY in w["resources"] for w in workers.values())

    def _make(self, client: Client, plugin: str) -> None:
        """Make what is left. Raises ConnectionError where the scheduler is lost."""
        while self.left or self.running:
            for target in ready_targets(self.left, self.plan, self.results):
                self.left.remove(target)
                waits, stages = self.plan[target]
                if any(self.results[w].status != 0 for w in waits):
                    self._end(TargetResult(target, None))
                    continue
                entries = {s: self.known[s] for s in stages if s in self.known}
                for before in waits:
                    entries |= self.results[before].entries
                request = {
                    "target": target,
                    "chain": stages,
                    "stages": self.made[target],
                    "entries": entries,
                }
                self._submit(client, plugin, request)
            try:
                event = self.events.get(timeout=LOOK)
            except queue.Empty:
                if not self.progress.running and self.progress.silent():
                    self.progress.say(f"waiting for a worker: dask worker {self.cluster.address}")
                if client.status != "running":
                    raise ConnectionError(f"{self.cluster.address}: lost") from None
            else:
                self._heed(event)
            self.progress.look()

    def _submit(self, client: Client, plugin: str, request: dict[str, Any]) -> None:
        target, need = request["target"], self.needs.get(request["target"], Need())
        resources = {MEMORY: need.memory} if need.memory and self.counts_memory else {}
        resources |= {GPU: 1} if need.gpu else {}
        fit: list[str] | None = None
        if self.cluster.unfit:
            fit = sorted(
                set(client.scheduler_info(n_workers=-1)["workers"]) - set(self.cluster.unfit)
            )
            if not fit:
                reasons = "; ".join(f"{w}: {why}" for w, why in self.cluster.unfit.items())
                raise InputError(f"--cluster: no worker is fit: {reasons}")
        future = client.submit(
            ByValue(cluster_plugin.make_target),
            plugin,
            request,
            key=f"{target}-{secrets.token_hex(4)}",  # each coordinator's own
            priority=int(10 * self.progress.seconds_through(target)),
            resources=resources or None,
            workers=fit,
            pure=False,
        )
        self.running[target] = future
        future.add_done_callback(lambda done: self.events.put((target, done)))

    def _heed(self, event: Any) -> None:
        """Take what a worker tells of its target, or what came of it."""
        if isinstance(event, dict):
            self._show(**event)
            return
        target: str = event[0]
        future: Future[Any] = event[1]
        if self.running.get(target) is not future:  # of a client that is gone
            return
        if future.status in ("cancelled", "lost"):
            raise ConnectionError(f"{self.cluster.address}: lost")
        del self.running[target]
        if future.status == "error":
            error = future.exception()
            if isinstance(error, KilledWorker):  # Dask has given it to several
                reason = (
                    f"its workers were killed ({error.allowed_failures + 1} times); out of memory?"
                )
                self._end(TargetResult(target, 1, output=reason))
            else:
                self._retry(target, f"{type(error).__name__}: {error}")
            return
        answer = future.result()
        if reason := answer.get("unfit"):
            worker = answer["worker"]
            if worker not in self.cluster.unfit:
                self.progress.say(f"{answer['machine']} ({worker}) is given nothing: {reason}")
            self.cluster.unfit[worker] = reason
            self.left.insert(0, target)
            return
        (self.root / LOGS / f"{target}.log").write_text(answer["output"])
        unpack_notes(answer["notes"], self.root)
        words = (answer["status"], answer["seconds"], answer["output"])
        self._end(TargetResult(target, *words, answer["entries"], answer["ran"]))

    def _show(self, target: str, progress: str, machine: str, **_: str) -> None:
        """Show how far a worker is with its target."""
        if target not in self.running:
            return
        if target not in self.progress.running:
            self.progress.begin(target, machine)
        if progress:
            (self.root / PROGRESS / target).write_text(progress)

    def _retry(self, target: str, reason: str) -> None:
        """Have a target made again whose worker ended, until that is its own fault."""
        self.tries[target] += 1
        reason = " ".join(reason.split())
        if self.tries[target] < TRIES:
            self.progress.say(f"{target}: {reason}; again")
            self.left.insert(0, target)
        else:
            self._end(TargetResult(target, 1, output=f"{reason} ({TRIES} times)"))

    def _end(self, result: TargetResult) -> None:
        self.results[result.target] = result
        self.progress.end(result)


def run_on_cluster(
    parameters: Parameters,
    plan: Plan,
    changed: set[str],
    cluster: Cluster,
    results: dict[str, TargetResult],
) -> None:
    """Make the targets of a plan on a cluster's machines, and fill in `results` as they come.

    Raises InputError where the cluster cannot make them.
    """
    if not plan:
        return
    for folder in (LOGS, PROGRESS):
        folder.mkdir(parents=True, exist_ok=True)
    made = stages_to_make(plan, changed)
    push_inputs(plan, {stage for several in made.values() for stage in several})
    runs = [t.partition("@")[2] for t in plan if t.startswith("evaluate@")]
    experiments = list(dict.fromkeys(parse_run(r)[0] for r in runs))
    datasets = dict.fromkeys(parameters.experiments[e].dataset for e in experiments)
    sizes = {d: measure_dataset(d, parameters.datasets[d], changed) for d in datasets}
    memory = estimate_memory(parameters, sizes, experiments)
    needs = {
        f"evaluate@{run}": Need(memory.get(name, 0), parameters.experiments[name].gpu)
        for run in runs
        for name in [parse_run(run)[0]]
    }
    with Progress(plan, changed, parameters, 1, Path.cwd()) as progress:
        ClusterRun(cluster, plan, made, needs, progress, Path.cwd(), results).run()
    shutil.rmtree(PROGRESS)


def push_inputs(plan: Plan, made: set[str]) -> None:
    """Have DVC's remote hold what the stages that are to be `made` read and are not."""
    with open_dvc(LOGS / "pushing.log") as session:
        if not session.repo.config["core"].get("remote"):
            raise InputError(
                "--cluster: no DVC remote, over which machines get and give data: "
                "dvc remote add --default NAME URL, commit and push"
            )
        stage = cache(load_stages(session.repo).__getitem__)
        inputs: dict[str, Any] = {}
        for _, names in plan.values():
            before = [stage(name) for name in names if name not in made]
            for name in made.intersection(names):
                inputs |= {i.addressing: i for i in find_inputs(before, stage(name))}
        if inputs:
            push_stages(session.repo, inputs.values(), open_remote(session.repo))
    if session.status:
        raise InputError(f"--cluster: {extract_error((LOGS / 'pushing.log').read_text()).strip()}")
