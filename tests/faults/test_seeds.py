"""What the fuzzer begins with and what it found once: each file is refused in a line, or read."""

import pytest

from tests.faults import fuzz


@pytest.mark.parametrize("target", fuzz.TARGETS)
def test_what_the_fuzzer_found_is_borne(target: str) -> None:
    fuzz.import_all(target)
    for content in fuzz.make_seeds(target):
        fuzz.run_target(target, content)


def test_a_seed_is_of_a_reader() -> None:
    for path in fuzz.SEEDS.glob("*"):
        assert path.name.partition("-")[0] in fuzz.TARGETS
