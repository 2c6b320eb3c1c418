"""How much memory a training takes, told from its description before anything is built."""

import math
import resource
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil

from facet.base.config import Experiment, Layer
from facet.errors import InputError
from facet.models.training import predict_batch

FLOAT = 4  # bytes
MIB, GIB = 1 << 20, 1 << 30
# Measured as RssAnon (`facet bench` prints them beside these estimates): a training process
# that holds nothing yet, and how often the weights are there (themselves, gradient, Adam's two
# moments, what an update works with). The last factor is for what the kernels take for themselves.
PROCESS = 400 * MIB
COPIES_OF_WEIGHTS = 6
COPIES_OF_ITEMS = 3  # that a baseline holds: as stored, as numbers, what L-BFGS makes of them
KERNELS = 1.2
CGROUPS, OWN_CGROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


@dataclass(frozen=True)
class NetworkSize:
    """What a network holds, and what one item takes on its way through it, in numbers."""

    parameters: int
    """In the layers, batch normalisation's averages included."""
    kept: int
    """Of an item, kept for the way back: the input and what each layer puts out."""
    largest: int
    """Of an item, in the largest output of a layer."""


def measure_network(spec: Experiment, shape: tuple[int, ...], heads: dict[str, int]) -> NetworkSize:
    """The size of what `facet.models.network.build_network` makes of the same."""
    outputs = [math.prod(shape)]
    parameters, trunk = _follow(spec.network.trunk, shape, outputs)
    for head, classes in heads.items():
        layers = spec.network.heads.get(head, spec.network.heads.get("each", []))
        more, last = _follow(layers, trunk, outputs)
        units = 1 if classes == 2 else classes
        parameters += more + (math.prod(last) + 1) * units
        outputs.append(units)
    return NetworkSize(parameters, sum(outputs), max(outputs))


def _follow(
    layers: list[Layer], shape: tuple[int, ...], outputs: list[int]
) -> tuple[int, tuple[int, ...]]:
    """A stack of layers' parameters and last shape; what is kept of each goes into `outputs`.

    A flattening keeps nothing, nor does ReLU, which works in place.
    """
    parameters = 0
    for layer in layers:
        if layer.flatten:
            shape = (math.prod(shape),)
            continue
        if layer.conv:
            parameters += (layer.kernel**2 * shape[-1] + 1) * layer.conv
            shape = (*shape[:-1], layer.conv)
        elif layer.dense:
            parameters += (math.prod(shape) + 1) * layer.dense
            shape = (layer.dense,)
        elif layer.average:
            shape = shape[-1:]
        outputs.append(math.prod(shape))
        if layer.batchnorm:
            parameters += 4 * shape[-1]
            outputs.append(math.prod(shape))
        if layer.pool > 1:
            shape = (*(side // layer.pool for side in shape[:-1]), shape[-1])
            outputs.append(math.prod(shape))
    return parameters, shape


def training_memory(
    spec: Experiment, shape: tuple[int, ...], heads: dict[str, int], items: int = 0
) -> int:
    """An estimate of the anonymous memory that training an experiment takes, in bytes.

    `shape` is an item's, `heads` has each head's number of classes. However many `items` there are
    to train on, a network leaves them on disk; a baseline is fitted to all at once.
    """
    size = measure_network(spec, shape, heads)
    # On the way back, the gradient of the largest output and what it is made of are there too.
    training = spec.batch * (size.kept + 2 * size.largest)
    predicting = predict_batch(shape) * 2 * size.largest
    weights = COPIES_OF_WEIGHTS * size.parameters
    at_once = COPIES_OF_ITEMS * items * math.prod(shape) if spec.is_baseline else 0
    return PROCESS + int(FLOAT * (weights + KERNELS * max(training, predicting) + at_once))


def machine_memory() -> int:
    """The memory that this process and its children may take, in bytes: the machine's, or the
    share that a control group (a container, a batch system's job) leaves of it.
    """
    limits = [psutil.virtual_memory().total]
    try:
        groups = OWN_CGROUPS.read_text().splitlines()
    except OSError:  # not Linux
        groups = []
    for line in groups:
        _, kinds, path = line.split(":", 2)
        if kinds not in ("", "memory"):
            continue
        name = "memory.limit_in_bytes" if kinds else "memory.max"
        inner = CGROUPS / kinds / path.lstrip("/")
        for folder in (inner, *inner.parents):
            limit = folder / name
            if limit.is_file() and (text := limit.read_text().strip()).isdecimal():
                limits.append(int(text))
    return min(limits)


def peak_memory() -> int:
    """The most memory that this process has held, in bytes."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024  # macOS counts bytes, others KiB


def check_memory(
    name: str,
    spec: Experiment,
    shape: tuple[int, ...],
    heads: dict[str, int],
    limit: int,
    items: int = 0,
) -> None:
    """Raise InputError, with a proposal, if `limit` bytes cannot hold an experiment's training."""
    need = training_memory(spec, shape, heads, items)
    if need <= limit:
        return
    at = f"experiments.{name}"
    smaller = spec.model_copy()
    while smaller.batch > 1 and not spec.is_baseline:
        smaller = spec.model_copy(update={"batch": smaller.batch // 2})
        if training_memory(smaller, shape, heads) <= limit:
            advice = f"set {at}.batch to {smaller.batch}"
            break
    else:
        advice = (
            f"set datasets.{spec.dataset}.size to something smaller, or augment.copies lower"
            if spec.is_baseline
            else f"set datasets.{spec.dataset}.size to something smaller, or pool the first layers"
            if len(shape) == 3
            else f"give {at}.network narrower layers"
        )
    raise InputError(
        f"{at}: to train it takes about {format_bytes(need)} of memory, this machine has "
        f"{format_bytes(limit)}; {advice}"
    )


def format_bytes(count: float) -> str:
    """Bytes for a reader, in GiB or MiB: `3.2 GiB`."""
    return f"{count / GIB:.1f} GiB" if count >= GIB else f"{count / MIB:.1f} MiB"
