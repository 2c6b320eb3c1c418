"""What a training takes, told beforehand, against the network that Keras builds."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from facet import memory
from facet.base.config import Experiment, ExtraTrees, LogisticRegression
from facet.errors import InputError
from facet.memory import GIB, MIB, check_memory, measure_network, training_memory
from facet.models.training import predict_batch
from facet.portability.steps import NETWORKS
from tests.helpers import small_parameters

HEADS = {"kind": 5, "old": 2}


def make_experiment(batch: int = 32, **network: Any) -> Experiment:
    defaults = small_parameters("embedded")["defaults"]
    return Experiment.model_validate(
        defaults | {"dataset": "faces", "batch": batch, "network": network}
    )


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_is_measured_as_keras_builds_it(name: str) -> None:
    from facet.models.network import build_network

    shape, described = NETWORKS[name]
    spec = make_experiment(**described)
    built = build_network(spec, shape, HEADS, 0)
    size = measure_network(spec, shape, HEADS)
    outputs = [math.prod(layer.output.shape[1:]) for layer in built.layers]
    assert size.parameters == built.count_params()
    assert size.largest == max(outputs)
    assert size.largest <= size.kept <= sum(outputs)


def test_what_does_not_fit_is_refused_with_a_batch_that_does() -> None:
    shape, trunk = (256, 256, 3), [{"conv": 64}, {"conv": 64, "pool": 2}, {"average": True}]
    spec = make_experiment(512, trunk=trunk)
    need = training_memory(spec, shape, HEADS)
    check_memory("large", spec, shape, HEADS, need)
    with pytest.raises(InputError, match=r"experiments\.large\.batch to \d+$") as refused:
        check_memory("large", spec, shape, HEADS, 4 * GIB)
    batch = int(str(refused.value).split()[-1])
    assert batch < 512
    check_memory("large", make_experiment(batch, trunk=trunk), shape, HEADS, 4 * GIB)
    with pytest.raises(InputError, match="batch"):
        check_memory("large", make_experiment(2 * batch, trunk=trunk), shape, HEADS, 4 * GIB)
    # One image alone is too large: no batch helps.
    with pytest.raises(InputError, match=r"datasets\.faces\.size"):
        check_memory("large", spec, (20000, 20000, 3), HEADS, 4 * GIB)
    wide = make_experiment(trunk=[{"dense": 100_000}, {"dense": 100_000}])
    with pytest.raises(InputError, match=r"experiments\.wide\.network"):
        check_memory("wide", wide, (11,), HEADS, 4 * GIB)


@pytest.mark.parametrize(
    "kind", [{"logistic_regression": LogisticRegression()}, {"extra_trees": ExtraTrees()}]
)
def test_a_baseline_holds_all_its_items(kind: dict[str, Any]) -> None:
    spec = make_experiment(trunk=[{"flatten": True}]).model_copy(update=kind)
    few, many = (training_memory(spec, (64, 60, 1), HEADS, n) for n in (1_000, 100_000))
    assert many - few >= 99_000 * 64 * 60 * 4
    with pytest.raises(InputError, match=r"datasets\.faces\.size .*, or augment\.copies lower"):
        check_memory("linear", spec, (64, 60, 1), HEADS, few, 100_000)
    # A network leaves them on disk.
    assert training_memory(make_experiment(trunk=[]), (11,), HEADS, 10**9) < GIB


def test_large_images_are_predicted_in_smaller_batches() -> None:
    assert predict_batch((11,)) == predict_batch((30, 32, 1)) == 256
    assert predict_batch((64, 64, 3)) == 64
    assert predict_batch((256, 256, 3)) == 4
    assert predict_batch((4000, 4000, 3)) == 1
    for side in range(8, 600, 7):
        many = predict_batch((side, side, 3))
        assert np.log2(many) % 1 == 0
        assert many == 1 or many * side * side * 3 <= 1 << 20


@pytest.mark.parametrize(
    ("line", "file"),
    [
        ("0::/jobs/one", "jobs/memory.max"),
        ("0::/jobs/one", "jobs/one/memory.max"),
        ("4:memory:/jobs/one", "memory/jobs/one/memory.limit_in_bytes"),
        ("4:memory:/elsewhere", "memory/memory.limit_in_bytes"),
    ],
)
def test_a_control_group_limits_the_memory(
    line: str, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "CGROUPS", tmp_path)
    monkeypatch.setattr(memory, "OWN_CGROUPS", tmp_path / "own")
    whole = memory.machine_memory()  # where there is no such file
    (tmp_path / "own").write_text(f"3:cpu:/jobs\n{line}\n")
    assert memory.machine_memory() == whole
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text("max\n")
    assert memory.machine_memory() == whole
    (tmp_path / file).write_text(f"{300 * MIB}\n")
    assert memory.machine_memory() == 300 * MIB
