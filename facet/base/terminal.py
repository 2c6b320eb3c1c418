"""What reaches the terminal."""

import contextlib
import os
from collections.abc import Iterator
from typing import TextIO


@contextlib.contextmanager
def silence_native_output() -> Iterator[TextIO]:
    """Keep off the terminal what native code says by itself: of GPU drivers, of odd TIFF tags.

    Yields a stream that still reaches it.
    """
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    try:
        with os.fdopen(kept, "w", closefd=False) as terminal:
            yield terminal
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)
