"""What of the caller's environment reaches a stage, a command and git.

The libraries that a stage imports read some 300 variables and several files in the home folder, and
some of them change a result (docs/reproducibility.md). So a stage's environment is a list of what
passes. A command passes on what DVC and its remotes may need, and leaves out what steers Python,
git and the libraries.
"""

import locale
import os
import signal
import sys
import sysconfig
from collections.abc import Mapping

from facet.base.processor import AVX512_LIMITS, LIMITS, instruction_limits

# Where things are, the terminal, the devices, what the grid and a review tell a stage.
PASSED = (
    "HOME",
    "PATH",
    "TMPDIR",
    "USER",
    "LOGNAME",
    "TERM",
    "COLUMNS",
    "LINES",
    "NO_COLOR",
    "LD_LIBRARY_PATH",  # Python itself may need it to start
    "CUDA_VISIBLE_DEVICES",
    "TF_FORCE_GPU_ALLOW_GROWTH",
    "PYTHONDONTWRITEBYTECODE",
    "PYTHONUNBUFFERED",
    "GIT_CONFIG_GLOBAL",  # who made a run, as git knows the user
    "DVC_ROOT",
    "DVC_STAGE",
    "FACET_CORES",
    "FACET_PROGRESS",
    "FACET_STAGE_SERVER",
    "FACET_TIMINGS",
    "FACET_TRACE",
)
NETWORK = (
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"),
    *("http_proxy", "https_proxy", "all_proxy", "no_proxy"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NETRC"),
)
# How W&B is used; not which run a process is, nor of which sweep: that follows from the stage.
WANDB = (
    *("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_CREDENTIALS_FILE"),
    *("WANDB_BASE_URL", "WANDB_ENTITY", "WANDB_PROJECT", "WANDB_MODE", "WANDB_NOTES"),
    *("WANDB_DIR", "WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"),
    *("WANDB_CONSOLE", "WANDB_ERROR_REPORTING", "WANDB_SILENT", "WANDB_INIT_TIMEOUT"),
    *("WANDB_HTTP_TIMEOUT", "WANDB_INSECURE_DISABLE_SSL", "WANDB_X_EXTRA_HTTP_HEADERS"),
    *("WANDB_X_DISABLE_STATS", "WANDB_X_STATS_SAMPLING_INTERVAL", "WANDB_X_DISABLE_VIEWER"),
    "WANDB_X_TRANSACTION_LOG_FLUSH_INTERVAL",
)
STORES = ("AWS_",)  # begins what says how to reach a bucket
# What a stage is given beside PASSED: no key goes where it is not used.
OF_STAGE = {
    "download": NETWORK,
    "train": NETWORK + WANDB,
    "evaluate": NETWORK + WANDB,
    "compare": NETWORK + WANDB,
}
# Set for stages and commands, whatever the caller has. Folders of settings are where no file is.
SETTINGS = {
    "KERAS_BACKEND": "tensorflow",
    "KERAS_HOME": os.devnull,
    "FSSPEC_CONFIG_DIR": os.devnull,
    "MATPLOTLIBRC": f"{sysconfig.get_path('purelib')}/matplotlib/mpl-data/matplotlibrc",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}
# What only a new process can have: Python and the C library read these when they start.
READ_AT_START = ("PYTHON", "LD_", "GLIBC_", "MALLOC_")
# What a command drops begins with these, since what it starts may need any other variable.
FOREIGN = (
    *("GIT_", "PYTHON", "KERAS_", "TF_", "XLA_", "MPL", "ONEDNN_", "DNNL_", "OPENBLAS_", "OMP_"),
    *("NPY_", "OPENCV_", "FSSPEC_", "DVC_EXP_", "LD_PRELOAD", "GLIBC_TUNABLES"),
)
# Where git's settings are and how it reaches a remote: nothing of another repository is among them.
GIT = (
    *("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM", "GIT_CONFIG_NOSYSTEM"),
    *("GIT_SSH", "GIT_SSH_COMMAND", "GIT_ASKPASS", "GIT_TERMINAL_PROMPT"),
    *("GIT_SSL_CAINFO", "GIT_SSL_CAPATH"),
)


def stage_environment(
    stage: str = "", environment: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """The variables that `stage` is given, of a caller's `environment`; no keys without a stage."""
    names = PASSED + OF_STAGE.get(stage, ())
    # A review has Python note what a stage reads; else no folder comes before the libraries.
    names += ("PYTHONPATH",) if "FACET_TRACE" in environment else ()
    names += _free_limits()
    stores = STORES if stage == "download" else ()
    passed = {k: v for k, v in environment.items() if k in names or k.startswith(stores)}
    return passed | SETTINGS | instruction_limits() | {"PYTHONUTF8": "1", "PYTHONNOUSERSITE": "1"}


def command_environment(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The variables of a command: the caller's, without those of FOREIGN programs."""
    names = (*PASSED, *GIT, "PYTHONPATH", "PYTHONUTF8", *_free_limits())
    passed = {k: v for k, v in environment.items() if k in names or not k.startswith(FOREIGN)}
    return passed | SETTINGS | instruction_limits()


def _free_limits() -> tuple[str, ...]:
    """The limits that a caller may set: where bytes are not promised, others than ours will do."""
    return () if instruction_limits() else (*LIMITS, *AVX512_LIMITS)


def open_closed_streams() -> None:
    """Open a standard stream that is closed to nowhere: the next file would take its number."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            opened = os.open(os.devnull, os.O_RDWR)
            os.dup2(opened, number)
            if opened != number:
                os.close(opened)
            setattr(sys, name, os.fdopen(number, mode, closefd=False))


def enter(environment: dict[str, str], words: list[str]) -> None:
    """Give this process `environment`, by starting `python` with `words` anew where need be.

    Also what a caller may have taken: the three streams, and to be told how children end.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    open_closed_streams()
    before = {k for k, v in os.environ.items() if v and k.startswith(READ_AT_START)}
    reads_utf8 = sys.flags.utf8_mode or locale.getencoding().lower() == "utf-8"
    if before - set(environment) or not reads_utf8:
        os.execve(sys.executable, [sys.executable, *words], environment | {"PYTHONUTF8": "1"})
    os.environ.clear()
    os.environ.update(environment)
