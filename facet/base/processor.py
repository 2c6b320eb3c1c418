"""The processor: which of its instructions results may depend on.

Imports neither numpy nor TensorFlow, since both choose their instructions when they are imported.
"""

import os
import platform
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
# How many cores a stage may use: the grid, which runs several, says so.
CORES_VARIABLE = "FACET_CORES"
NEEDED = frozenset({"avx2", "fma"})
# oneDNN, numpy and OpenBLAS each bring kernels for several generations of processors, which sum
# in different orders. AVX2 is the newest that every processor on the promise's list has.
LIMITS = {
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR",
    "OPENBLAS_CORETYPE": "Haswell",
    # Several threads split a sum by the number of cores.
    "OPENBLAS_NUM_THREADS": "1",
    # On by TensorFlow's own choice for some processors only; a step of the faces' network takes
    # half the time with it, and softmax differs between processors without it.
    "TF_ENABLE_ONEDNN_OPTS": "1",
}
AVX512_LIMITS = {"OPENCV_CPU_DISABLE": "AVX512-SKX"}


def instruction_limits() -> dict[str, str]:
    """The variables that hold oneDNN, numpy, OpenBLAS and OpenCV to AVX2.

    None on a processor that has no AVX2: their kernels for it would end the process.
    """
    if not same_bytes():
        return {}
    # OpenCV complains of the name of what a processor does not have.
    has_avx512 = "avx512f" in cpu_fields().get("flags", "").split()
    return LIMITS | (AVX512_LIMITS if has_avx512 else {})


def limit_instructions() -> None:
    """Set `instruction_limits` in this process, which has yet to import the libraries."""
    os.environ.update(instruction_limits())


def usable_cores() -> int:
    """The cores that this process may keep busy; no result depends on their number."""
    return int(os.environ.get(CORES_VARIABLE) or machine_cores())


def machine_cores() -> int:
    """The cores that the system lets this process run on."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def same_bytes() -> bool:
    """Whether this processor is one on which results come out the same to the byte."""
    return why_other_bytes() == ""


def why_other_bytes() -> str:
    """Why results may have other bytes here than on other machines; empty where they have not."""
    architecture = platform.machine()
    if architecture not in ("x86_64", "AMD64"):
        return f"this processor is {architecture}, not x86-64"
    if (system := platform.system()) != "Linux":
        return f"this system is {system}, not Linux"
    flags = cpu_fields().get("flags", "").split()
    if not flags:
        return f"{CPUINFO} does not tell what this processor can do"
    if not set(flags) >= NEEDED:
        return "this processor has no AVX2"
    return ""


def note_other_bytes() -> str:
    """A sentence for the terminal where results may have other bytes here, empty elsewhere."""
    why = why_other_bytes()
    return why and (
        f"note: {why}; results are repeatable here, and may differ in bytes from those of machines "
        "with AVX2: docs/reproducibility.md"
    )


def cpu_fields() -> dict[str, str]:
    """The first processor in /proc/cpuinfo, field by field; empty where there is no such file."""
    try:
        first = CPUINFO.read_text().strip().split("\n\n")[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}
