"""TensorFlow's settings: repeatable and quiet."""

import os
from typing import Any

from facet.base.terminal import silence_native_output


def import_tensorflow() -> Any:
    """Import TensorFlow without a word on the terminal."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with silence_native_output():
        import tensorflow as tf
    return tf


def configure_tensorflow(threads: int) -> None:
    """Have TensorFlow repeat itself: a fixed number of threads, ordered sums."""
    tf = import_tensorflow()
    tf.config.threading.set_inter_op_parallelism_threads(1)
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.experimental.enable_op_determinism()
    # Rewriting the graph takes 0.3 to 1.2 s of every run, and the epochs are no faster for it.
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})


def visible_gpus() -> list[str]:
    """The GPUs that TensorFlow uses: their types, [] for none."""
    import tensorflow as tf

    with silence_native_output():
        found = tf.config.list_physical_devices("GPU")
        details = [tf.config.experimental.get_device_details(gpu) for gpu in found]
    return [str(d.get("device_name", "GPU")) for d in details]
