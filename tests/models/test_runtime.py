"""TensorFlow is imported with no more than training needs, and with more where it needs that."""

import sys

import pytest

from tests.helpers import run_program

IMPORT = """
import sys
from facet.models import runtime
runtime.UNUSED = {unused}
runtime.import_tensorflow()
loaded = [m for m in {unused} if m in sys.modules]
import keras, pandas, scipy.stats, sklearn
print(keras.Sequential([keras.layers.Dense(3)]).compute_output_shape((2, 5)), loaded)
"""


@pytest.mark.parametrize(
    ("unused", "loaded"),
    [
        (["matplotlib", "pandas", "scipy", "sklearn"], []),
        # As if a release needed it.
        (["absl"], ["absl"]),
    ],
)
def test_what_training_does_not_need_is_not_imported(unused: list[str], loaded: list[str]) -> None:
    """Fails when a release of Keras needs one of them: it takes twice as long to import then."""
    done = run_program(sys.executable, "-c", IMPORT.format(unused=unused))
    assert done.stdout == f"(2, 3) {loaded}\n", done.stderr
