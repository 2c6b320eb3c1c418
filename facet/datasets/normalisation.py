"""Make a data set ready to learn from: labels, splits and inputs together."""

import numpy as np

from facet.base.arrays import Chunks
from facet.base.config import Dataset
from facet.base.names import SPLITS
from facet.base.prepared import InputInfo, NewData, NewSplit
from facet.datasets.inputs import middle_size, prepare_images, read_columns
from facet.datasets.items import Items
from facet.datasets.labels import make_labels, read_fields
from facet.datasets.splits import check_splits, content_hashes, make_splits
from facet.errors import InputError


def normalise(items: Items, name: str, spec: Dataset) -> list[NewData]:
    """A data set ready to learn from, once for each of split.seed.

    Images are brought to one size and mode, chunk by chunk as they are asked for; a table's
    readings are standardised by mean and deviation of the training split. Raises InputError where
    data and `spec` do not fit each other.
    """
    fields = read_fields(items, spec.read)
    labels = {h: make_labels(h, head, fields) for h, head in spec.heads.items()}
    label_matrix = np.stack([y for _, y in labels.values()], 1)
    if items.images:
        if spec.size is None:
            raise InputError(
                f"datasets.{name}.size: null, but the data are images; "
                "give [width, height] or middle"
            )
        size = middle_size(items.images.shapes) if spec.size == "middle" else spec.size
        readings = None
        preparation: InputInfo = {
            "size": list(size),
            "mode": spec.read.mode,
            "alpha": spec.read.alpha,
            "operations": [o.model_dump(exclude_none=True) for o in spec.read.operations],
        }
    else:
        chosen, readings = read_columns(items, spec)
        preparation = {"columns": chosen}
    hashes = content_hashes(items, readings)
    made = []
    seeds = spec.split.seed if isinstance(spec.split.seed, list) else [spec.split.seed]
    for seed in seeds:
        splits, groups = make_splits(
            fields,
            items,
            label_matrix,
            hashes,
            spec.read.parts,
            spec.group,
            spec.split,
            seed,
        )
        check_splits(splits, groups, hashes, spec.split.by)
        inputs = preparation.copy()
        if readings is not None:
            training = readings[splits == "train"]
            mean, deviation = training.mean(0), training.std(0)
            deviation = np.where(deviation > 0, deviation, 1.0)
            inputs |= {"mean": mean.tolist(), "spread": deviation.tolist()}
        of_split = {}
        for split in SPLITS:
            rows = np.flatnonzero(splits == split)
            rows = rows[np.argsort(items.names[rows], kind="stable")]
            X: np.ndarray | Chunks
            if readings is None:
                X = prepare_images(items, rows, size, spec.read)
            else:
                X = ((readings[rows] - mean) / deviation).astype("float32")
            y = {h: indices[rows] for h, (_, indices) in labels.items()}
            of_split[split] = NewSplit(X, y, items.names[rows], groups[rows])
        made.append(
            NewData(
                about={
                    "dataset": name,
                    "split": {
                        "by": spec.split.by,
                        "seed": seed,
                        "test": spec.split.test,
                        "validation": spec.split.validation,
                    },
                    "input": inputs,
                    "heads": list(spec.heads),
                },
                classes={h: classes for h, (classes, _) in labels.items()},
                splits=of_split,
            )
        )
    return made
