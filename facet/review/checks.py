"""What `make review` looks for, each a function that returns findings and changes nothing."""

import csv
import importlib.util
import io
import json
import re
import urllib.parse
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict

from facet.base.config import get_nested
from facet.base.names import LOCK_FILE, METRICS, PACKAGES_FILE, PARAMS_FILE, RUNS_TABLE
from facet.base.storage import md5, md5_of_listing
from facet.declared import NEVER_HASHED, is_docstring_only
from facet.errors import InputError
from facet.formats import Finding
from facet.git import call_git
from facet.packages import find_other_versions


class LockedFile(TypedDict):
    """An input or output in dvc.lock; DVC adds size, number of files and the hash's name."""

    path: str
    md5: NotRequired[str]


class LockEntry(TypedDict, total=False):
    """A stage in dvc.lock: its command, its inputs, parameters by file and key, its outputs."""

    cmd: str
    deps: list[LockedFile]
    params: dict[str, dict[str, Any]]
    outs: list[LockedFile]


Lock = dict[str, LockEntry]  # by stage
Objects = dict[str, str]  # an object's hash -> the file it is of
Members = Callable[[str], dict[str, str] | None]  # a folder's hash -> its files, None if unknown
PARAMETERS, LOCK, PACKAGE_LOCK = str(PARAMS_FILE), str(LOCK_FILE), str(PACKAGES_FILE)
# What else a stage may read without a word in dvc.yaml, and why that can change no result.
ALLOWED = NEVER_HASHED | {
    ".ckpt/": "found by a hash of all that the run depends on",
    ".git/": "W&B records the commit",
    "dvc.yaml": "a stage ends where it imports what that does not declare",
    "dvc.lock": "a stage ends where its inputs are not what it says",
    "metrics/costs/": "says into which W&B run a repeat went",
    "wandb/": "W&B's own files",
    ".wandb-data/": "W&B's own files",
    ".wandb-cache/": "W&B's own files",
}
# Files outside that are settings of the machine and not of the project, beneath the home folder.
SETTINGS = (".cache/", ".config/", ".keras/", ".netrc", ".aws/", ".matplotlib/")


def flag_finding(check: str, where: str, what: str) -> Finding:
    """Something worth knowing that proves nothing wrong."""
    return Finding(check, where, what, "flag")


@dataclass(frozen=True)
class Stage:
    """A stage as dvc.yaml declares it, names filled in; `outs` tells which DVC caches."""

    name: str
    cmd: str
    deps: tuple[str, ...]
    params: tuple[str, ...]
    outs: dict[str, bool]
    marks: tuple[str, ...] = ()


# --- reading a commit -----------------------------------------------------------------------


def read_stages(folder: Path) -> dict[str, Stage]:
    """The stages of the project in `folder`, in an order in which they can run."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    found = {}
    try:
        with Repo(str(folder)) as repo:
            for s in repo.index.stages:
                params = [d for d in s.deps if hasattr(d, "params")]
                marks = [m for m in ("frozen", "always_changed") if getattr(s, m)]
                marks += ["persist"] * any(o.persist for o in s.outs)
                found[s.name] = Stage(
                    s.name,
                    str(s.cmd),
                    tuple(d.def_path for d in s.deps if d not in params),
                    tuple(k for d in params for k in d.params),
                    {o.def_path: bool(o.use_cache) for o in s.outs},
                    tuple(marks),
                )
    except DvcException as e:
        raise InputError(f"dvc.yaml: {e}; see `dvc status`") from None
    if not found:
        raise InputError("dvc.yaml: the commit has no stages in it; nothing to review")
    try:
        order = list(TopologicalSorter(find_upstream(found)).static_order())
    except CycleError as e:
        raise InputError(f"dvc.yaml: stages need each other: {', '.join(e.args[1])}") from None
    return {name: found[name] for name in order}


def is_beneath(path: str, folder: str) -> bool:
    """Whether `path` is `folder` or lies in it."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def find_upstream(stages: dict[str, Stage]) -> dict[str, set[str]]:
    """For each stage those whose outputs it depends on."""
    makers = {out: s.name for s in stages.values() for out in s.outs}
    return {
        s.name: {
            maker
            for dep in s.deps
            for out, maker in makers.items()
            if is_beneath(out, dep) or is_beneath(dep, out)
        }
        for s in stages.values()
    }


def find_closure(stages: dict[str, Stage], targets: Iterable[str]) -> list[str]:
    """The targets and all that they depend on, in the order of `stages`."""
    needs, wanted, rest = find_upstream(stages), set(), list(targets)
    while rest:
        name = rest.pop()
        if name not in wanted:
            wanted.add(name)
            rest += needs[name]
    return [s for s in stages if s in wanted]


def read_lock(folder: Path) -> Lock:
    """The stages of dvc.lock, by DVC's own reader; none where there is no such file."""
    file = folder / LOCK
    found = (parse_yaml(file).get("stages") or {}) if file.exists() else {}
    if not isinstance(found, dict) or not all(isinstance(e, dict) for e in found.values()):
        raise InputError(f"{LOCK}: holds no stages as DVC writes them; `git checkout {LOCK}`")
    return found


def parse_yaml(file: Path) -> dict[str, Any]:
    """A YAML file as DVC reads it (YAML 1.2, unlike PyYAML)."""
    from dvc.utils.serialize import YAMLFileCorruptedError, load_yaml

    try:
        tree = load_yaml(str(file))
    except YAMLFileCorruptedError as e:
        raise InputError(f"{file.name}: not readable as YAML: {' '.join(str(e).split())}") from None
    if not isinstance(tree, dict):
        raise InputError(f"{file.name}: holds no mapping; `git checkout {file.name}`")
    return tree


def entry_hashes(entry: LockEntry, kind: Literal["deps", "outs"]) -> dict[str, str | None]:
    """The MD5 of each of a lock entry's `deps` or `outs`."""
    return {x["path"]: x.get("md5") for x in entry.get(kind, [])}


def lock_outputs(lock: Lock) -> dict[str, str | None]:
    """The MD5 of each output in dvc.lock, by its path."""
    return {p: h for entry in lock.values() for p, h in entry_hashes(entry, "outs").items()}


# --- the graph and the lock -----------------------------------------------------------------


def check_marks(stages: Iterable[Stage]) -> list[Finding]:
    """Stages that DVC runs, or leaves alone, whatever their inputs are."""
    frozen = "is frozen: DVC ignores its inputs; `dvc unfreeze` it"
    persist = "keeps its old output while it runs (persist): that may hold what no input tells"
    always = "runs each time (always_changed): it may depend on what no hash tells"
    found = []
    for s in stages:
        found += [Finding("graph", s.name, frozen)] * ("frozen" in s.marks)
        found += [Finding("graph", s.name, persist)] * ("persist" in s.marks)
        found += [flag_finding("graph", s.name, always)] * ("always_changed" in s.marks)
    return found


def check_listed(lock: Lock, stages: dict[str, Stage], scope: list[str]) -> list[Finding]:
    """Stages that dvc.lock lacks, or still holds."""
    found = []
    if missing := [s for s in scope if s not in lock]:
        what = f"lacks {list_some(missing)}; `make repro` and commit {LOCK}"
        found.append(Finding("lock", LOCK, what))
    if left := [s for s in lock if s not in stages]:
        found.append(
            flag_finding("lock", LOCK, f"holds {list_some(left)}, which dvc.yaml has no longer")
        )
    return found


def list_some(names: Iterable[str], most: int = 4) -> str:
    """Some of many names, and how many more."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def check_up_to_date(
    lock: Lock,
    stages: dict[str, Stage],
    scope: list[str],
    folder: Path,
    members: Members,
) -> list[Finding]:
    """Whether dvc.lock tells of the commands, code, packages, parameters and files of the commit.

    `folder` holds the commit's files, without data. `members` gives the files in a cached folder
    by its MD5, None where it is not at hand; then a folder of folders is not compared.
    """
    outs, parameters = lock_outputs(lock), parse_yaml(folder / PARAMETERS)
    made = {out for stage in stages.values() for out in stage.outs}
    known: dict[str, str | None] = {}
    wrong: dict[tuple[str, str], list[str]] = {}

    def current(path: str) -> str | None:
        """The MD5 that `path` has now, "" for none, None where that is unknown."""
        if path in outs:
            return outs[path]
        inner = {p: h for p, h in outs.items() if is_beneath(p, path)}
        if inner:
            return combine_hashes(path, inner, members)
        if any(is_beneath(path, out) or is_beneath(out, path) for out in made):
            return None
        return md5(folder / path) if (folder / path).exists() else ""

    for name in scope:
        if name not in lock:
            continue
        stage, entry = stages[name], lock[name]
        if entry.get("cmd") != stage.cmd:
            wrong.setdefault((name, f"its command is now `{stage.cmd}`"), []).append(name)
        then, now = entry_hashes(entry, "deps"), set(stage.deps)
        for path in sorted(now ^ set(then)):
            what = "is a dependency now" if path in now else "is no dependency any more"
            wrong.setdefault((path, what), []).append(name)
        for path in sorted(now & set(then)):
            if path not in known:
                known[path] = current(path)
            if known[path] not in (then[path], None):
                what = "is not what it was" if known[path] else "is gone"
                wrong.setdefault((path, what), []).append(name)
        was = (entry.get("params") or {}).get(PARAMETERS, {})
        for key in sorted({*was, *stage.params}):
            value = get_nested(parameters, key, None)
            if key not in was or key not in stage.params or was[key] != value:
                wrong.setdefault((f"{PARAMETERS}: {key}", "is not what it was"), []).append(name)
        for path in sorted(set(stage.outs) ^ set(entry_hashes(entry, "outs"))):
            wrong.setdefault((path, "is an output in dvc.yaml or dvc.lock alone"), []).append(name)
    return [
        Finding("lock", where, f"{what} when {LOCK} was made by {list_some(names)}")
        if what.startswith("is not what")
        else Finding("lock", where, f"{what}, unlike in {LOCK} ({list_some(names)})")
        for (where, what), names in wrong.items()
    ]


def combine_hashes(
    path: str,
    inner: dict[str, str | None],
    members: Members,
) -> str | None:
    """The MD5 of a folder of outputs; None where one of them is not at hand."""
    files: dict[str, str] = {}
    for out, hash in inner.items():
        at = out.removeprefix(path).strip("/")
        if hash is None:
            return None
        held = members(hash) if hash.endswith(".dir") else {"": hash}
        if held is None:
            return None
        files |= {f"{at}/{name}".strip("/"): h for name, h in held.items()}
    return md5_of_listing(files)


# --- the figures in git ---------------------------------------------------------------------


def check_metrics(
    lock: Lock, stages: dict[str, Stage], scope: list[str], folder: Path
) -> list[Finding]:
    """Whether files in git are the outputs that dvc.lock names, and runs.csv its runs' figures."""
    found = []
    for name in scope:
        held = entry_hashes(lock.get(name, {}), "outs")
        for path in [p for p, cached in stages[name].outs.items() if not cached and p in held]:
            file = folder / path
            if not file.exists():
                found.append(Finding("figures", path, f"is not in the commit; {name} makes it"))
            elif md5(file) != held[path]:
                what = f"was changed after {name} made it: its MD5 is not the one in {LOCK}"
                found.append(Finding("figures", path, what))
    table = str(RUNS_TABLE)
    if any(table in stages[s].outs for s in scope) and (folder / table).exists():
        found += check_rows((folder / table).read_text(errors="replace"), lock_outputs(lock), table)
    return found


def check_rows(text: str, outs: dict[str, str | None], table: str) -> list[Finding]:
    """Whether each row of runs.csv was read from the metrics that dvc.lock names, and none lacks.

    `outs` has the MD5 of each output in dvc.lock.
    """
    found, seen = [], set()
    for row in csv.DictReader(io.StringIO(text)):
        run = row.get("run") or "?"
        seen.add(run)
        file = METRICS.format(run)
        if file not in outs:
            found.append(Finding("figures", table, f"has a row of {run}, which {LOCK} lacks"))
        elif row.get("md5") != outs[file]:
            what = f"{run}'s row was read from another {file} than {LOCK} names"
            found.append(Finding("figures", table, what))
    for path in sorted(outs):
        run = Path(path).stem
        if path == METRICS.format(run) and run not in seen:
            found.append(Finding("figures", table, f"has no row of {run}"))
    return list(dict.fromkeys(found))


# --- the working tree -----------------------------------------------------------------------


def check_uncommitted(root: Path) -> list[Finding]:
    """Files of the working tree that are not those of its commit."""
    listed = call_git("status", "--porcelain", "-z", "--no-renames", at=root).stdout
    lines = [line for line in listed.split("\0") if line]
    found = []
    if changed := [line[3:] for line in lines if not line.startswith("??")]:
        what = "changed and not committed, and the review is of the commit; commit or stash"
        found.append(Finding("uncommitted", list_some(changed), what))
    if new := [line[3:] for line in lines if line.startswith("??")]:
        found.append(
            flag_finding("uncommitted", list_some(new), "not in git: the commit does without it")
        )
    return found


def check_workspace(lock: Lock, scope: list[str], root: Path) -> list[Finding]:
    """Outputs in the working tree that are not what dvc.lock says. Those absent are no matter."""
    return [
        Finding("workspace", path, f"is not what {LOCK} says {name} made; `dvc checkout {path}`")
        for name in scope
        for path, hash in entry_hashes(lock.get(name, {}), "outs").items()
        if hash and (root / path).exists() and md5(root / path) != hash
    ]


# --- DVC's caches ---------------------------------------------------------------------------


def parse_listing(text: bytes) -> dict[str, str] | None:
    """The files that a cached folder's listing names, a file's MD5 by its path."""
    try:
        return {m["relpath"]: m["md5"] for m in json.loads(text)}
    except (ValueError, KeyError, TypeError):
        return None


@dataclass
class Cache:
    """The local cache of a DVC project, read without DVC: DVC trusts objects that are read-only."""

    folder: Path

    def file(self, hash: str) -> Path:
        """Where the cache keeps the object of that MD5."""
        return self.folder / hash[:2] / hash[2:]

    def members(self, hash: str) -> dict[str, str] | None:
        """The files of a cached folder, a file's MD5 by its path; None where it is not whole."""
        try:
            return parse_listing(self.file(hash).read_bytes())
        except OSError:
            return None

    def sound(self, hash: str) -> bool | None:
        """Whether the object's content has the hash of its name; None where there is none."""
        file = self.file(hash)
        return md5(file) == hash.removesuffix(".dir") if file.is_file() else None


def wanted_objects(
    lock: Lock, stages: dict[str, Stage], scope: list[str], members: Members
) -> Objects:
    """All objects behind the cached outputs of dvc.lock: hash -> the file it is of."""
    found: Objects = {}
    for name in scope:
        for path, hash in entry_hashes(lock.get(name, {}), "outs").items():
            if hash and stages[name].outs.get(path, True):
                found[hash] = path
                if hash.endswith(".dir"):
                    inner = members(hash) or {}
                    found |= {h: f"{path}/{n}" for n, h in inner.items()}
    return found


def check_objects(
    objects: Objects, cache: Cache, absent: set[str] | None, remote: str | None
) -> list[Finding]:
    """Objects that are corrupted in the local cache, or in no cache.

    `objects` as from `wanted_objects`; `absent` are those the remote lacks, None without a remote,
    whose name `remote` is.
    """
    state = {h: cache.sound(h) for h in objects}
    found = []
    for hash in [h for h, sound in state.items() if sound is False]:
        what = (
            f"its object {hash} in DVC's cache was changed: its content has another MD5; delete "
            f"{cache.file(hash)}, then `dvc pull` or `make repro`"
        )
        found.append(Finding("cache", objects[hash], what))
    for hash in [h for h in objects if absent and h in absent]:
        more = " nor in the cache here" if state[hash] is None else "; `dvc push`"
        what = f"its object {hash} is not in the remote {remote}{more}"
        found.append(Finding("remote", objects[hash], what))
    missing = [objects[h] for h, sound in state.items() if sound is None]
    if missing and absent is None:
        what = "in no cache here, and the project has no remote: they can only be made again"
        found.append(flag_finding("cache", list_some(missing), what))
    return found


def check_caches(
    root: Path, cache: Cache, lock: Lock, stages: dict[str, Stage], scope: list[str]
) -> list[Finding]:
    """What is corrupted or missing in the cache and in the default remote of the project `root`."""
    from dvc.config import NoRemoteError
    from dvc.repo import Repo

    with Repo(str(root)) as repo:
        try:
            store = repo.cloud.get_remote_odb()

            def members(hash: str) -> dict[str, str] | None:
                """Of a folder that is not here, as the remote has it."""
                held = cache.members(hash)
                if held is None and store.exists(hash):
                    held = parse_listing(store.fs.cat_file(store.oid_to_path(hash)))
                return held

            objects = wanted_objects(lock, stages, scope, members)
            absent = set(objects) - set(store.oids_exist(list(objects)))
            return check_objects(objects, cache, absent, repo.config["core"]["remote"])
        except NoRemoteError:
            unasked = []
        except Exception as e:  # whatever a storage's client raises
            message = f"the remote cannot be asked: {type(e).__name__}: {' '.join(str(e).split())}"
            unasked = [flag_finding("remote", ".dvc/config", message)]
    objects = wanted_objects(lock, stages, scope, cache.members)
    return [*unasked, *check_objects(objects, cache, None, None)]


# --- packages -------------------------------------------------------------------------------


def check_packages(installed: dict[str, str], pins: dict[str, str], where: str) -> list[Finding]:
    """Packages of the environment `where` whose version is not the one of requirements.lock."""
    return [
        Finding("environment", name, f"{found} in {where}, not {pins[name]}")
        for name, found in find_other_versions(installed, pins).items()
    ]


# --- what a stage really read ---------------------------------------------------------------


def find_undeclared(stage: Stage, notes: str, lock: LockEntry, folder: Path) -> list[Finding]:
    """What a stage read (`notes` as facet/review/trace.py writes them) and dvc.yaml does not say.

    `lock` is the stage's entry in dvc.lock, `folder` the project it ran in.
    """
    found, outside = [], []
    for kind, what in sorted({tuple(n.split("\t", 1)) for n in notes.splitlines()}):
        if kind == "open":
            if "/__pycache__/" in f"/{what}":
                what = importlib.util.source_from_cache(what)
            if not may_open(what, stage, folder):
                word = "module" if what.endswith(".py") else "file"
                found.append(f"reads the {word} {what}, which is not among its deps")
        elif kind == "ask":
            # An experiment comes with the defaults filled in; its data set is always its own.
            filled = what.startswith("experiments") and not what.endswith(".dataset")
            for key in [what, *["defaults"] * filled]:
                if not any(key == p or key.startswith(f"{p}.") for p in stage.params):
                    found.append(f"reads the parameter {key}, which is not among its params")
        elif kind == "around":
            found.append(
                f"reads {what} without facet.base.config.get_params: which of it, none can tell"
            )
        elif not is_expected(what, lock):
            outside.append(f"reads {what}, outside the project")
    return [Finding("undeclared", stage.name, w) for w in dict.fromkeys(found)] + [
        flag_finding("undeclared", stage.name, w) for w in outside
    ]


def may_open(path: str, stage: Stage, folder: Path) -> bool:
    """Whether a stage may open the project's file `path`: declared, or no input."""
    file = folder / path
    return (
        any(is_beneath(path, p) for p in (*stage.deps, *stage.outs))
        or path.startswith(tuple(ALLOWED))
        or re.search(r"(^|/)\.[^/]+\.part(/|$)", path) is not None  # an output being written
        or (file.name == "__init__.py" and is_docstring_only(file.read_text()))
    )


def is_expected(path: str, lock: LockEntry) -> bool:
    """Whether a file outside is a setting of the machine, or beneath a source the lock names."""
    home = f"{Path.home()}/"
    if path.startswith(home) and path.removeprefix(home).startswith(SETTINGS):
        return True
    parameters = json.dumps(lock.get("params") or {})
    named = [urllib.parse.unquote(p) for p in re.findall(r'"(?:file://)?(/[^"#]*)', parameters)]
    return any(is_beneath(path, p) for p in named)
