"""What the fuzzer begins with and what it found once: each file is refused in a line, or read."""

from pathlib import Path

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


@pytest.mark.parametrize("target", fuzz.TARGETS)
def test_the_fuzzer_begins_with_a_good_file(target: str, tmp_path: Path) -> None:
    """Else it would never come beyond the first check."""
    good = next(fuzz.make_seeds(target))
    fuzz.TARGETS[target](good, tmp_path)
