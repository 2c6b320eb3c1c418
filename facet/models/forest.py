"""Grow extremely randomised trees for each head: the baseline that a network must beat on tables.

They become a Keras model of lookup tables, so that whatever uses a trained network uses a forest
too: an item goes down all trees at once, in as many steps as the deepest has levels.
"""

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from facet.base.config import ExtraTrees
from facet.errors import InputError
from facet.models.training import Training, cross_entropy

if TYPE_CHECKING:
    import keras

# A node's number stands as float32 in its table, which holds whole numbers up to here.
MOST_NODES = 1 << 24


class Forest(NamedTuple):
    """A head's trees, the nodes of all in one table."""

    nodes: np.ndarray
    """(nodes, 4) float32: which of an item's numbers is looked at, the threshold, the node to go to
    if the number is not above it, the node if it is. A leaf leads to itself."""
    shares: np.ndarray
    """(nodes, classes) float32: the classes' shares of a leaf's training items."""
    roots: np.ndarray
    """(trees,) int64: where each tree begins."""
    depth: int
    """How many steps lead from a root to the deepest leaf, 1 at least."""


def grow_forest(
    X: np.ndarray, y: np.ndarray, classes: int, how: ExtraTrees, balanced: bool, seed: int
) -> Forest:
    """Grow a head's trees by scikit-learn (Geurts, Ernst and Wehenkel 2006).

    `X` (n, numbers) float32, `y` (n,) int64 below `classes`. Where the classes are `balanced`, a
    leaf's shares are divided by those of all training items, so that no class is likelier than
    another before an item is seen (Elkan 2001); trees that are grown to the end heed no weights.
    Raises InputError for more nodes than a table can number.
    """
    from sklearn.ensemble import ExtraTreesClassifier

    model = ExtraTreesClassifier(how.trees, min_samples_leaf=how.leaf, random_state=seed)
    trees = [one.tree_ for one in model.fit(X, y).estimators_]
    counts = [tree.node_count for tree in trees]
    roots = np.cumsum([0, *counts[:-1]])
    if sum(counts) > MOST_NODES:
        raise InputError(
            f"extra_trees: they have {sum(counts)} nodes, {MOST_NODES} is the most that can be "
            "stored; set trees lower or leaf higher"
        )
    nodes = np.concatenate(
        [list_nodes(tree, root) for tree, root in zip(trees, roots, strict=True)]
    )
    shares = np.zeros((len(nodes), classes), "float32")
    shares[:, model.classes_] = np.concatenate([tree.value[:, 0] for tree in trees])
    if balanced:
        shares /= (np.bincount(y, minlength=classes) / len(y)).clip(1 / len(y)).astype("float32")
    return Forest(nodes, shares, roots, max(1, *(tree.max_depth for tree in trees)))


def list_nodes(tree: Any, root: int) -> np.ndarray:
    """The table of one of scikit-learn's trees, whose nodes are numbered from `root` on."""
    leaf = tree.children_left < 0
    here = np.arange(tree.node_count)
    left, right = (
        root + np.where(leaf, here, to) for to in (tree.children_left, tree.children_right)
    )
    # Numbers are float32: one is above a threshold if it is above the float32 at or below it.
    threshold = tree.threshold.astype("float32")
    high = threshold > tree.threshold
    threshold[high] = np.nextafter(threshold[high], np.float32(-np.inf))
    return np.stack([np.where(leaf, 0, tree.feature), threshold, left, right], 1).astype("float32")


def build_model(shape: tuple[int, ...], forests: dict[str, Forest]) -> "keras.Model":
    """A Keras model from `shape` (without the batch) to each head's output, as a network has it.

    Each head's is the trees' mean of the leaves' shares, brought to a sum of 1.
    """
    import keras

    ops = keras.ops
    keras.utils.clear_session()  # operations are numbered by how many there were; bytes tell
    inputs = keras.Input(shape, name="input")
    numbers = keras.layers.Flatten(name="numbers")(inputs) if len(shape) > 1 else inputs
    outputs: dict[str, Any] = {}
    tables: dict[keras.layers.Layer, list[np.ndarray]] = {}
    for head, forest in forests.items():
        count, classes = forest.shares.shape
        nodes = keras.layers.Embedding(count, 4, name=f"{head}_nodes")
        leaves = keras.layers.Embedding(count, classes, name=f"{head}_shares")
        # The same for each item: no weights, and the roots as a bias.
        start = keras.layers.Dense(len(forest.roots), name=f"{head}_roots")
        place = start(numbers)
        for _ in range(forest.depth):
            node = nodes(place)
            at, threshold, left, right = (ops.take(node, i, axis=2) for i in range(4))
            number = ops.take_along_axis(numbers, ops.cast(at, "int32"), axis=1)
            place = ops.where(number > threshold, right, left)
        mean = keras.layers.GlobalAveragePooling1D(name=f"{head}_mean")(leaves(place))
        p = mean / ops.sum(mean, axis=1, keepdims=True)
        if classes == 2:
            p = ops.take(p, [1], axis=1)
        outputs[head] = keras.layers.Activation("linear", name=head)(p)
        kernel = np.zeros((numbers.shape[1], len(forest.roots)))
        tables |= {start: [kernel, forest.roots], nodes: [forest.nodes], leaves: [forest.shares]}
    model = keras.Model(inputs, outputs, name="facet")
    for layer, values in tables.items():
        layer.set_weights(values)
    return model


class ForestTraining(Training):
    """A training of one epoch, in which all trees grow."""

    def build(self) -> None:
        """Nothing: there is no model before the trees are grown."""

    def train_epoch(self, number: int) -> dict[str, float]:
        """Grow every head's trees; their mean loss and accuracies on the untouched items."""
        how = self.spec.extra_trees
        assert how
        train = self.data.splits["train"]
        X = train.scale(np.arange(len(train)))
        balanced = self.spec.class_weights == "balanced"
        forests = {}
        for head, classes in self.classes.items():
            seed = self.network.derive_seed(self.seed, head)
            flat = X.reshape(len(X), -1)
            forests[head] = grow_forest(flat, train.y[head], classes, how, balanced, seed)
        self.model = build_model(X.shape[1:], forests)
        self.trace_predictions()
        found, rows = self.predict("train"), train.originals
        truth = {h: y[rows] for h, y in train.y.items()}
        accuracies = {
            f"{h}_accuracy": float((p.argmax(1) == truth[h]).mean()) for h, p in found.items()
        }
        return {"loss": sum(cross_entropy(p, truth[h]) for h, p in found.items()), **accuracies}

    def variables(self) -> list[Any]:
        """The tables, once there are any."""
        return list(self.model.variables) if self.model else []

    def summary(self) -> str:
        """How many trees, and the accuracies in words."""
        how = self.spec.extra_trees
        assert how
        return f"{how.trees} extremely randomised trees a head; {self.describe_accuracy()}"
