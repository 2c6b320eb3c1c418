"""What the grid's runs need of this machine, before any of them starts: memory and disk."""

import math
from collections.abc import Container, Iterable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from facet.base.arrays import load_array
from facet.base.config import (
    KERAS_ARRAYS,
    Dataset,
    Experiment,
    Parameters,
    Read,
    parse_run,
)
from facet.base.names import IMAGE_SUFFIXES, NORMALISED, PICKLED, RAW, RAW_MANIFEST
from facet.base.storage import read_json
from facet.datasets.array_files import list_arrays
from facet.errors import InputError
from facet.memory import FLOAT, MIB, check_memory, measure_network, training_memory

WORKER = 100 * MIB  # a worker process, its DVC, W&B's own process
SAMPLED_IMAGES = 500  # whose headers are read to tell how large the others are
# An output lies in DVC's cache and in the working tree; the workers' trees have links to the cache.
COPIES_ON_DISK = 2


@dataclass(frozen=True)
class DatasetSize:
    """How large a data set is, as far as that is known before it is prepared."""

    shape: tuple[int, ...] | None
    """Of one prepared item; None where the size is `middle` and nothing is decoded yet."""
    classes: dict[str, int]
    """By head."""
    items: int | None
    """None where nothing is downloaded yet."""
    decoded: int | None
    """Bytes of all items as `pickle` stores them."""


def measure_dataset(name: str, spec: Dataset, changed: Container[str]) -> DatasetSize:
    """What params.yaml says of a data set, and its files, unless their stage has `changed`."""
    prepared, about = Path(NORMALISED.format(name)), {}
    if (prepared / "about.json").exists():
        about = read_json(prepared / "about.json")["input"]
    elif (prepared / "0/about.json").exists():  # several splits
        prepared /= "0"
        about = read_json(prepared / "about.json")["input"]
    shape: tuple[int, ...] | None
    if spec.size is None:
        shape = (len(about.get("mean", range(32))),)
    else:
        size = about.get("size") if spec.size == "middle" else spec.size
        shape = (size[1], size[0], len(spec.read.mode)) if size else None
    classes = {}
    for head in spec.heads:
        file = prepared / f"classes_{head}.npy"
        classes[head] = len(load_array(file)) if file.exists() else 10
    return DatasetSize(shape, classes, *_count_items(name, spec.read, changed))


def _count_items(name: str, read: Read, changed: Container[str]) -> tuple[int | None, int | None]:
    """How many items a data set has, and their bytes when decoded; None where not yet known."""
    pickled, raw = Path(PICKLED.format(name)), Path(RAW.format(name))
    if f"download@{name}" in changed:
        return None, None
    if f"pickle@{name}" not in changed and (pickled / "about.json").exists():
        items = len(load_array(pickled / "names.npy"))
        return items, sum(f.stat().st_size for f in pickled.iterdir())
    if not (raw / RAW_MANIFEST).exists():
        return None, None
    files = {f["name"]: f["bytes"] for f in read_json(raw / RAW_MANIFEST)["files"]}
    images = [raw / f for f in files if Path(f).suffix.lower() in IMAGE_SUFFIXES]
    if images:
        sampled = images[:: max(1, len(images) // SAMPLED_IMAGES)]
        return len(images), _decoded_bytes(sampled) * len(images) // len(sampled)
    arrays = [raw / f for f in files if f.endswith(".npz")]
    if arrays:
        there = list_arrays(arrays[0])
        names = [pair.x for pair in (read.arrays or KERAS_ARRAYS).pairs.values()]
        shapes = [there[name][0] for name in names if name in there]  # `pickle` names what lacks
        return sum(shape[0] for shape in shapes), sum(map(math.prod, shapes))
    # A table's readings take 8 bytes each, in a file's text 4 or more.
    rows = sum((raw / f).read_bytes().count(b"\n") for f in files)
    return rows, 2 * sum(files.values())


def _decoded_bytes(files: Iterable[Path]) -> int:
    total = 0
    for file in files:
        try:
            with Image.open(file) as image:
                total += image.width * image.height * len(image.getbands())
        except (OSError, ValueError):  # `pickle` names it and says what to do
            continue
    return total


def estimate_memory(
    parameters: Parameters, sizes: dict[str, DatasetSize], experiments: Iterable[str]
) -> dict[str, int]:
    """The bytes that a run of each experiment takes, its worker included, where that is known."""
    found = {}
    for name in experiments:
        spec = parameters.experiments[name]
        size = sizes[spec.dataset]
        if size.shape is not None:
            items = _training_items(parameters, name, size)
            found[name] = WORKER + training_memory(spec, size.shape, _heads(spec, size), items)
    return found


def _heads(spec: Experiment, size: DatasetSize) -> dict[str, int]:
    return {h: size.classes[h] for h in spec.heads or size.classes}


def _training_items(parameters: Parameters, experiment: str, size: DatasetSize) -> int:
    """How many items an experiment is trained on, at most, copies included; 0 if not yet known."""
    spec = parameters.datasets[parameters.experiments[experiment].dataset]
    return (size.items or 0) * spec.augment.of_experiment(experiment).copies


def check_experiments(
    parameters: Parameters,
    sizes: dict[str, DatasetSize],
    experiments: Iterable[str],
    limit: int,
) -> None:
    """Raise InputError, with a proposal, if `limit` bytes cannot hold one of the experiments."""
    for name in experiments:
        spec = parameters.experiments[name]
        size = sizes[spec.dataset]
        if size.shape is not None:
            items = _training_items(parameters, name, size)
            check_memory(name, spec, size.shape, _heads(spec, size), limit - WORKER, items)


def estimate_disk(
    parameters: Parameters, sizes: dict[str, DatasetSize], stages: Iterable[str]
) -> int:
    """The bytes that the outputs of `stages`, STAGE@ITEM, add; unknown data sets count nothing."""
    total, augmentations = 0, set()
    for stage in stages:
        kind, _, item = stage.partition("@")
        experiment = parse_run(item)[0] if kind == "train" else item
        dataset = (
            parameters.experiments[experiment].dataset if kind in ("augment", "train") else item
        )
        spec, size = parameters.datasets.get(dataset), sizes.get(dataset)
        if spec is None or size is None or size.items is None or size.shape is None:
            continue
        seeds = spec.split.seed
        number = math.prod(size.shape) * (1 if len(size.shape) == 3 else FLOAT)
        prepared = size.items * number * (len(seeds) if isinstance(seeds, list) else 1)
        if kind == "pickle":
            total += size.decoded or 0
        elif kind == "normalise":
            total += prepared
        elif kind == "augment":
            how = spec.augment.of_experiment(item)
            same = (dataset, how.model_dump_json(exclude={"experiments"}))
            if same not in augmentations:  # equal ones are stored once
                augmentations.add(same)
                total += prepared * how.copies
        elif kind == "train":
            network = measure_network(
                parameters.experiments[experiment],
                size.shape,
                _heads(parameters.experiments[experiment], size),
            )
            total += FLOAT * network.parameters
    return COPIES_ON_DISK * total


def choose_jobs(needs: Iterable[int], most: int, free: int) -> int:
    """How many runs go at once, at most `most` and at least 1: the largest fit together into
    `free` bytes."""
    together = 0
    for jobs, need in enumerate(sorted(needs, reverse=True)[:most]):
        together += need
        if together > free:
            return max(jobs, 1)
    return most


def check_disk(need: int, free: int) -> None:
    """Raise InputError where the disk has less than `need` bytes left."""
    if need > free:
        raise InputError(
            f"the runs take about {need / 1e9:.1f} GB of disk, {free / 1e9:.1f} GB are free; free "
            "some (`dvc gc -w` drops what no file of this folder needs), lower datasets.NAME.size "
            "or augment.copies, or name fewer experiments with --run"
        )
