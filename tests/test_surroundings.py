"""Settings of other programs change no byte: variables, files in the home folder, git."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from facet.base.storage import md5
from facet.environment import command_environment, stage_environment
from facet.git import call_git
from tests.helpers import IDENTITY, REPRO, ROOT, Project, words_of

STAGES = ("download faces", "pickle faces", "normalise faces", "augment plain", "train plain-0")
STAGES += ("evaluate plain-0",)
OUTPUTS = ("data/faces/raw", "data/faces/pickled", "data/faces/normalised", "data/augmented/plain")
OUTPUTS += ("data/runs/plain-0", "data/evaluations/plain-0", "metrics/runs/plain-0.json")


@dataclass
class Surroundings:
    """What is set beside the project: variables, and files beneath the home folder."""

    variables: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)


KERAS = (
    '{"floatx": "float64", "epsilon": 0.1, "backend": "torch", '
    '"image_data_format": "channels_first"}'
)
GITCONFIG = """
[core]
hooksPath = {home}/hooks
autocrlf = true
[color]
ui = always
[status]
showUntrackedFiles = no
[log]
showSignature = true
"""
SHADOW = "raise RuntimeError('this is another numpy')"
HOSTILE = {
    "Keras's settings": Surroundings({}, {".keras/keras.json": KERAS}),
    "another Keras backend": Surroundings({"KERAS_BACKEND": "torch"}),
    "Keras's limits": Surroundings({"KERAS_MAX_EPOCHS": "1", "KERAS_MAX_STEPS_PER_EPOCH": "1"}),
    "a Keras folder": Surroundings({"KERAS_HOME": "{home}/.keras"}, {".keras/keras.json": KERAS}),
    "TensorFlow's variables": Surroundings(
        {
            "TF_ENABLE_ONEDNN_OPTS": "0",
            "TF_XLA_FLAGS": "--tf_xla_auto_jit=2 --tf_xla_cpu_global_jit",
            "TF_USE_LEGACY_KERAS": "1",
            "TF_SET_ONEDNN_FPMATH_MODE": "BF16",
            "TF_NUM_INTRAOP_THREADS": "2",
            "XLA_FLAGS": "--xla_cpu_enable_fast_math=true",
        }
    ),
    "oneDNN's variables": Surroundings(
        {"ONEDNN_MAX_CPU_ISA": "SSE41", "ONEDNN_DEFAULT_FPMATH_MODE": "BF16"}
    ),
    "numpy's and BLAS's variables": Surroundings(
        {
            "NPY_DISABLE_CPU_FEATURES": "AVX2",
            "OPENBLAS_CORETYPE": "Prescott",
            "OPENBLAS_NUM_THREADS": "2",
            "OMP_NUM_THREADS": "2",
        }
    ),
    "OpenCV's variables": Surroundings(
        {"OPENCV_IO_MAX_IMAGE_PIXELS": "1", "OPENCV_CPU_DISABLE": "AVX2"}
    ),
    "Matplotlib's settings": Surroundings(
        {"MPLBACKEND": "tkagg", "MATPLOTLIBRC": "{home}/.config/matplotlib/matplotlibrc"},
        {".config/matplotlib/matplotlibrc": "figure.dpi: 30\ntext.usetex: True\nfont.size: 3\n"},
    ),
    "fsspec's settings": Surroundings(
        {"FSSPEC_FILE_AUTO_MKDIR": "no"}, {".config/fsspec/conf.json": "{not JSON"}
    ),
    "a sweep's variables": Surroundings(
        {
            "WANDB_MODE": "offline",
            "WANDB_SWEEP_ID": "abc",
            "WANDB_RUN_ID": "other",
            "WANDB_RUN_GROUP": "other",
            "WANDB_RESUME": "must",
            "WANDB_NAME": "other",
        }
    ),
    "W&B's settings": Surroundings(
        {"WANDB_MODE": "offline"},
        {".config/wandb/settings": "[default]\nsweep_id = abc\nrun_id = other\nresume = must\n"},
    ),
    "no folder on the path": Surroundings({"PYTHONSAFEPATH": "1"}),
    "other modules on the path": Surroundings(
        {"PYTHONPATH": "{home}/lib"},
        {"lib/numpy.py": SHADOW, "lib/yaml.py": SHADOW, "lib/argparse.py": SHADOW},
    ),
    "warnings are errors": Surroundings({"PYTHONWARNINGS": "error"}),
    "no assertions and docstrings": Surroundings({"PYTHONOPTIMIZE": "2"}),
    "Python's variables": Surroundings(
        {
            "PYTHONHASHSEED": "3",
            "PYTHONIOENCODING": "ascii",
            "PYTHONINSPECT": "1",
            "PYTHONDEVMODE": "1",
            "PYTHONPYCACHEPREFIX": "{home}/cache",
        }
    ),
    "a Latin locale": Surroundings({"LC_ALL": "de_DE.ISO-8859-1", "LANG": "C", "TZ": "Asia/Tokyo"}),
    "the allocator's variables": Surroundings(
        {"MALLOC_PERTURB_": "165", "GLIBC_TUNABLES": "glibc.malloc.perturb=85"}
    ),
    "another repository's variables": Surroundings(
        {
            "GIT_DIR": "{home}/other.git",
            "GIT_WORK_TREE": "{home}",
            "GIT_INDEX_FILE": "{home}/index",
            "GIT_CONFIG_COUNT": "nonsense",
        }
    ),
    "git's settings": Surroundings(
        {},
        {
            ".gitconfig": GITCONFIG,
            "hooks/post-checkout": "#!/bin/sh\nexit 1\n",
        },
    ),
    "a proxy that is not there": Surroundings(
        {"HTTP_PROXY": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9"}
    ),
    "libraries to load first": Surroundings(
        {"LD_PRELOAD": "{home}/nothing.so", "LD_BIND_NOW": "1"}
    ),
}


def surround(home: Path, *several: Surroundings) -> dict[str, str]:
    """Lay the files beneath `home`; returns the variables."""
    variables = {"HOME": str(home)}
    for one in several:
        for name, text in one.files.items():
            (home / name).parent.mkdir(parents=True, exist_ok=True)
            (home / name).write_text(text.replace("{home}", str(home)))
            (home / name).chmod(0o755)
        variables |= {k: v.replace("{home}", str(home)) for k, v in one.variables.items()}
    return variables


def outputs(project: Project) -> dict[str, str]:
    return {name: md5(project.folder / name) for name in OUTPUTS}


def run_stages(project: Project, variables: dict[str, str]) -> dict[str, str]:
    """Make the outputs anew, each stage in a process of its own; returns their hashes."""
    for name in OUTPUTS[:-1]:
        shutil.rmtree(project.folder / name)
    (project.folder / OUTPUTS[-1]).unlink()
    for stage in STAGES:
        project.run(sys.executable, "-m", "stages", *stage.split(), cold=True, **variables)
    return outputs(project)


def test_all_at_once_change_no_byte(made: Project, tmp_path: Path) -> None:
    expected = outputs(made)
    (made.folder / "matplotlibrc").write_text("figure.dpi: 30\n")  # read before all others
    assert run_stages(made, surround(tmp_path / "home", *HOSTILE.values())) == expected
    # The run has the id that follows from what it declares, and no sweep's.
    folders = [p.name.rpartition("_")[2] for p in (made.folder / "wandb").glob("offline-run-*")]
    ids = {name.partition("-")[2].partition("-r")[0] for name in folders}
    assert len([id for id in ids if id.startswith("plain-0-")]) == 1
    assert not [id for id in ids if not id.startswith(("plain-0-", "dropped-0-", "comparisons-"))]


@pytest.mark.slow
@pytest.mark.parametrize("name", HOSTILE)
def test_each_changes_no_byte(made: Project, tmp_path: Path, name: str) -> None:
    expected = outputs(made)
    assert run_stages(made, surround(tmp_path / "home", HOSTILE[name])) == expected


@pytest.mark.slow
@pytest.mark.parametrize("mask", [0o077, 0o000])
def test_a_mask_of_new_files_changes_no_byte(made: Project, mask: int) -> None:
    expected, before = outputs(made), os.umask(mask)
    try:
        assert run_stages(made, {}) == expected
    finally:
        os.umask(before)


@pytest.mark.slow
def test_a_home_that_cannot_be_written_changes_no_byte(made: Project, tmp_path: Path) -> None:
    expected = outputs(made)
    assert run_stages(made, {"HOME": "/proc/none", "WANDB_MODE": "offline"}) == expected


def test_a_stage_is_given_a_list_and_no_key_that_it_does_not_need() -> None:
    caller = {
        "HOME": "/home/me",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "WANDB_API_KEY": "secret",
        "GITHUB_TOKEN": "secret",
        "SOME_VARIABLE": "1",
        "KERAS_BACKEND": "torch",
    }
    given = {stage: stage_environment(stage, caller) for stage in ("pickle", "download", "train")}
    assert not any({"GITHUB_TOKEN", "SOME_VARIABLE"} & set(found) for found in given.values())
    keys = {stage: [k for k, v in found.items() if v == "secret"] for stage, found in given.items()}
    assert keys == {
        "pickle": [],
        "download": ["AWS_SECRET_ACCESS_KEY"],
        "train": ["WANDB_API_KEY"],
    }
    assert given["train"]["HOME"] == "/home/me"
    assert given["train"]["KERAS_BACKEND"] == "tensorflow"
    # A command starts DVC, whose remotes may need anything.
    command = command_environment(caller | {"GIT_DIR": "x", "GIT_SSH_COMMAND": "ssh -4"})
    assert {"GITHUB_TOKEN", "SOME_VARIABLE", "GIT_SSH_COMMAND"} <= set(command)
    assert "GIT_DIR" not in command


@pytest.mark.parametrize("name", ["predict", "export"])
def test_a_command_computes_as_the_stages_do(made: Project, tmp_path: Path, name: str) -> None:
    home = tmp_path / "home"
    some = (HOSTILE[n] for n in ("Keras's settings", "another Keras backend", "Keras's limits"))
    variables = surround(home, *some, HOSTILE["warnings are errors"])
    image = next((made.folder.parent / "source/images").glob("*.png"), None)
    image = image or next(made.folder.rglob("p0_*.png"))
    words = {"predict": ["plain-0", str(image)], "export": ["plain-0", "--to", "onnx"]}[name]
    command = (sys.executable, "-m", "facet", name, *words)
    plain = made.run(*command, cold=True)
    assert made.run(*command, cold=True, **variables).stdout == plain.stdout


# --- what a stage imports ------------------------------------------------------------------------


def test_a_file_that_is_imported_and_not_declared_ends_the_stage(prepared: Project) -> None:
    folder = prepared.folder
    (folder / "mine.py").write_text("FACTOR = 2\n")
    stage = folder / "stages/augment.py"
    stage.write_text(stage.read_text().replace("from facet", "import mine\nfrom facet", 1))
    before = (folder / "data/augmented").exists()
    done = prepared.run(sys.executable, "-m", "stages", "augment", "plain", check=False)
    assert done.returncode == 1
    assert {"augment", "mine.py", "dvc.yaml"} <= words_of(done.stderr)
    assert len(done.stderr.splitlines()) == 1
    assert (folder / "data/augmented").exists() or not before
    graph = yaml.safe_load((folder / "dvc.yaml").read_text())
    graph["stages"]["augment"]["do"]["deps"].append("mine.py")
    (folder / "dvc.yaml").write_text(yaml.safe_dump(graph))
    prepared.stage("augment plain")


def test_another_version_of_a_package_ends_the_stage(prepared: Project) -> None:
    lock = prepared.folder / "requirements.lock"
    lines = lock.read_text().splitlines(keepends=True)
    (at,) = (i for i, line in enumerate(lines) if line.startswith("numpy=="))
    version = lines[at].partition("==")[2].split()[0]
    lines[at] = lines[at].replace(version, "1.0.0")
    lock.write_text("".join(lines))
    done = prepared.run(sys.executable, "-m", "stages", "augment", "plain", check=False)
    assert done.returncode == 1
    assert {"augment", "requirements.lock", "numpy", version, "1.0.0"} <= words_of(done.stderr)
    assert len(done.stderr.splitlines()) == 1


# --- git -----------------------------------------------------------------------------------------


def git(folder: Path, *words: str) -> str:
    command = ["git", *IDENTITY, "-c", "protocol.file.allow=always", *words]
    done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout


def change_epochs(project: Project) -> None:
    project.parameters["experiments"]["plain"]["epochs"] = 1
    project.write()


@pytest.mark.parametrize("how", ["commit -a", "add, then commit"])
def test_a_commit_whose_hook_runs_the_grid_has_what_was_staged(made: Project, how: str) -> None:
    hook = made.folder / ".git/hooks/pre-commit"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\nexec {sys.executable} -m facet repro --run plain-0 --jobs 1\n")
    hook.chmod(0o755)
    change_epochs(made)
    if how == "commit -a":
        git(made.folder, "commit", "-q", "-a", "-m", "x")
    else:
        git(made.folder, "add", "params.yaml")
        git(made.folder, "commit", "-q", "-m", "x")
    assert "params.yaml" in git(made.folder, "show", "--stat", "--format=", "HEAD")
    committed = yaml.safe_load(git(made.folder, "show", "HEAD:params.yaml"))
    assert committed["experiments"]["plain"]["epochs"] == 1


def lay_submodule(project: Project, folder: Path) -> Path:
    git(folder, "init", "-q")
    git(folder, "submodule", "--quiet", "add", str(project.folder), "ml")
    return folder / "ml"


def lay_worktree(project: Project, folder: Path) -> Path:
    git(project.folder, "worktree", "add", "-q", "--detach", str(folder / "tree"))
    return folder / "tree"


@pytest.mark.parametrize("lay", [lay_submodule, lay_worktree])
def test_the_grid_runs_in_a_submodule_and_in_a_linked_worktree(
    made: Project, tmp_path: Path, lay: Callable[[Project, Path], Path]
) -> None:
    (tmp_path / "there").mkdir()
    change_epochs(made)
    made.commit("one epoch")
    there = Project(lay(made, tmp_path / "there"))
    there.run(*REPRO, "--run", "plain-0", "--jobs", "1")
    assert (there.folder / "metrics/runs/plain-0.json").exists()


def test_a_clone_with_windows_line_ends_has_nothing_to_do(made: Project, tmp_path: Path) -> None:
    made.commit("results")
    git(tmp_path, "clone", "-q", "-c", "core.autocrlf=true", str(made.folder), "clone")
    clone = Project(tmp_path / "clone")
    shutil.copytree(made.folder / ".dvc/cache", clone.folder / ".dvc/cache")
    clone.run("dvc", "checkout", "--quiet")
    assert clone.run("dvc", "status", "--quiet", check=False).returncode == 0


def test_gits_answers_do_not_depend_on_the_callers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    several = (HOSTILE["another repository's variables"], HOSTILE["git's settings"])
    for name, value in surround(tmp_path, *several).items():
        monkeypatch.setenv(name, value)
    assert call_git("rev-parse", "--show-toplevel", at=ROOT).stdout.strip() == str(ROOT)
    assert "\x1b" not in call_git("log", "-1", "--format=%C(auto)%H %d", at=ROOT).stdout
    (tmp_path / "there").mkdir()
    call_git("init", "-q", at=tmp_path / "there")
    (tmp_path / "there/näme").touch()
    listed = call_git("status", "--porcelain", at=tmp_path / "there").stdout
    assert listed == "?? näme\n"


@pytest.mark.parametrize(
    ("file", "text", "named"),
    [
        (".gitconfig", "[core", {"dvc"}),
        (".gitconfig", "[core]\nexcludesFile = {home}/ignored\n", {"dvc.yaml", "git"}),
        (".config/dvc/config", "nonsense[", {"dvc", "config"}),
    ],
)
def test_settings_that_cannot_be_overruled_are_a_line(
    project: Project, tmp_path: Path, file: str, text: str, named: set[str]
) -> None:
    several = Surroundings({}, {file: text, "ignored": "*.yaml\n"})
    done = project.run(*REPRO, check=False, cold=True, **surround(tmp_path / "home", several))
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert named <= words_of(line.replace("'", " "))


def test_how_a_process_was_started_does_not_matter(prepared: Project, tmp_path: Path) -> None:
    """As supervisors start one: children's ends ignored, a stream closed, timings to nowhere."""
    start = "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); os.close(0);"
    start += "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    stage = ("-m", "stages", "augment", "plain")
    words = (sys.executable, "-c", start, *stage)
    done = prepared.run(*words, cold=True, FACET_TIMINGS=str(tmp_path / "none/timings"))
    assert done.stderr == ""


def test_a_library_that_cannot_be_loaded_is_a_line(prepared: Project, tmp_path: Path) -> None:
    (tmp_path / "libstdc++.so.6").write_text("x")
    words = (sys.executable, "-m", "stages", "augment", "plain")
    done = prepared.run(*words, check=False, cold=True, LD_LIBRARY_PATH=str(tmp_path))
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"augment: LD_LIBRARY_PATH={tmp_path}: ")


def test_a_list_of_fonts_in_the_home_folder_changes_no_picture(
    made: Project, tmp_path: Path
) -> None:
    kept = made.folder / "data/evaluations/plain-0"
    expected = md5(kept)
    home = {"HOME": str(tmp_path)}
    find = "from matplotlib import font_manager; print(font_manager.json.dumps(0))"
    made.run(sys.executable, "-c", find, cold=True, **home)
    (listed,) = (tmp_path / ".cache/matplotlib").glob("fontlist-*.json")
    listed.write_text(listed.read_text().replace("DejaVuSans.ttf", "DejaVuSerif.ttf"))
    made.run(sys.executable, "-m", "stages", "evaluate", "plain-0", cold=True, **home)
    assert md5(kept) == expected
