"""Which kind of training an experiment asks for."""

from facet.base.config import Experiment
from facet.base.prepared import StoredData
from facet.models.forest import ForestTraining
from facet.models.logistic import LogisticTraining
from facet.models.training import Training


def make_training(spec: Experiment, data: StoredData, seed: int) -> Training:
    """A network's training, or that of the baseline which `spec` has in its place."""
    kind = Training
    if spec.logistic_regression:
        kind = LogisticTraining
    if spec.extra_trees:
        kind = ForestTraining
    return kind(spec, data, seed)
