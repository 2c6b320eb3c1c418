"""Fetch a data set's raw files, from a URL or drawn by the project itself."""

import shutil
from pathlib import Path

from facet.base.config import get_params
from facet.base.names import RAW, RAW_MANIFEST
from facet.base.storage import atomic_write, write_json
from facet.datasets.sources import download
from facet.launch import run_stage


def main(dataset: str) -> None:
    """Fetch the raw files of DATASET into data/DATASET/raw."""
    (source,) = get_params(f"datasets.{dataset}.source")
    cache = Path(".ckpt/download") / dataset
    with atomic_write(RAW.format(dataset)) as folder:
        folder.mkdir()
        manifest = download(dataset, source, folder, cache)
        write_json(folder / RAW_MANIFEST, manifest)
    shutil.rmtree(cache, ignore_errors=True)
    size = sum(f["bytes"] for f in manifest["files"]) / 1e6
    print(
        f"{dataset}: {len(manifest['files'])} files, {size:.1f} MB, "
        f"{len(manifest['left_out'])} left out"
    )


if __name__ == "__main__":
    run_stage(main)
