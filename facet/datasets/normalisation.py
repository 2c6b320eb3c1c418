"""Make a data set ready to learn from: labels, splits and inputs together."""

from typing import Any

import numpy as np

from facet.config import Dataset
from facet.datasets.inputs import make_images, middle_size, read_columns
from facet.datasets.labels import make_labels, read_fields
from facet.datasets.splits import check_splits, content_hashes, make_splits
from facet.errors import InputError
from facet.formats import DataInfo, InputInfo, Items
from facet.names import SPLITS


def normalise(items: Items, name: str, spec: Dataset) -> dict[str, Any]:
    """A data set ready to learn from, in the form design and README describe.

    `X_SPLIT` float32, N x height x width x channels in 0-1, or N x columns standardised by mean and
    spread of the training split; `y_SPLIT_HEAD` int64; `classes_HEAD`, `names_SPLIT` and
    `groups_SPLIT` strings; `about` what it was made with. With a list as split.seed, one such dict
    for each under `splits`.
    """
    fields = read_fields(items, spec.read)
    labels = {h: make_labels(h, head, fields) for h, head in spec.heads.items()}
    label_matrix = np.stack([y for _, y in labels.values()], 1)
    if is_images := "pixels" in items:
        if spec.size is None:
            raise InputError(
                f"datasets.{name}.size: null, but the data are images; "
                "give [width, height] or middle"
            )
        size = middle_size(items) if spec.size == "middle" else spec.size
        X, readings = make_images(items, size, spec.read), None
        preparation: InputInfo = {
            "size": list(size),
            "mode": spec.read.mode,
            "alpha": spec.read.alpha,
            "operations": [o.model_dump(exclude_none=True) for o in spec.read.operations],
        }
    else:
        chosen, X = read_columns(items, spec)
        readings, preparation = X, {"columns": chosen}
    hashes = content_hashes(items, readings)
    contents: list[dict[str, Any]] = []
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
        content: dict[str, Any] = {f"classes_{h}": c for h, (c, _) in labels.items()}
        inputs = preparation.copy()
        if not is_images:
            mean, deviation = X[splits == "train"].mean(0), X[splits == "train"].std(0)
            deviation = np.where(deviation > 0, deviation, 1.0)
            inputs |= {"mean": mean.tolist(), "spread": deviation.tolist()}
        for split in SPLITS:
            rows = np.flatnonzero(splits == split)
            rows = rows[np.argsort(items["names"][rows], kind="stable")]
            if is_images:
                content[f"X_{split}"] = X[rows].astype("float32") / np.float32(255)
            else:
                content[f"X_{split}"] = ((X[rows] - mean) / deviation).astype("float32")
            content[f"names_{split}"] = items["names"][rows]
            content[f"groups_{split}"] = groups[rows]
            content |= {f"y_{split}_{h}": y[rows] for h, (_, y) in labels.items()}
        about: DataInfo = {
            "dataset": name,
            "split": {
                "by": spec.split.by,
                "seed": seed,
                "test": spec.split.test,
                "validation": spec.split.validation,
            },
            "input": inputs,
            "heads": list(spec.heads),
        }
        contents.append(content | {"about": about})
    return {"splits": contents} if isinstance(spec.split.seed, list) else contents[0]
