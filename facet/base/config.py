"""The schema of params.yaml: every knob that changes a result, checked before anything is used.

A stage calls `get_params` for the keys it declares in dvc.yaml and sees nothing else.
"""

import difflib
import re
import sys
import urllib.parse
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from facet.base.names import PARAMS_FILE, RAW, SPLITS, Metric
from facet.errors import InputError

MOST_CHARACTERS, MOST_NODES = 4_000_000, 1_000_000  # of params.yaml, anchors spelt out
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
EMBEDDED = re.compile(rf"embedded(?::({NAME.pattern}))?")
# In an address: NAME:PASSWORD@, or what comes after a `?` under such a name.
SECRET = re.compile(
    r"://[^/?#]*@|[?&][^=&#]*(auth|credential|key|passw|secret|sig|token)[^=&#]*=", re.IGNORECASE
)
Share = Annotated[float, Field(ge=0, lt=1)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
# What no machine could make is refused at once, not after an hour.
Copies = Annotated[int, Field(gt=0, le=10_000)]
Pixels = Annotated[int, Field(gt=0, le=20_000)]
Count = Annotated[int, Field(gt=0, le=1_000_000)]
Width = Annotated[int, Field(gt=0, le=100_000)]
SmallCount = Annotated[int, Field(gt=0, le=1_000)]


class Strict(BaseModel):
    """A part of params.yaml: no unknown keys, no values converted, finite numbers."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class Split(Strict):
    """How items are split; shares are of all items."""

    by: str
    seed: Seed | Annotated[list[Seed], Field(min_length=1)] = 0
    test: Share = 0.25
    validation: Share = 0.15

    @model_validator(mode="after")
    def _leaves_training(self) -> "Split":
        if self.test + self.validation >= 1:
            raise ValueError("test and validation together leave no items to train on")
        if isinstance(self.seed, list) and len(set(self.seed)) < len(self.seed):
            raise ValueError("holds the same seed twice")
        return self


class Head(Strict):
    """Where a head's label comes from: a part of the file name, or a column (and bins of it)."""

    part: str | None = None
    column: str | None = None
    bins: dict[str, tuple[float, float]] | None = None

    @field_validator("bins", mode="before")
    @classmethod
    def _pairs(cls, value: Any) -> Any:
        return (
            {k: tuple(v) if isinstance(v, list) else v for k, v in value.items()}
            if isinstance(value, dict)
            else value
        )

    @model_validator(mode="after")
    def _one_origin(self) -> "Head":
        if (self.part is None) == (self.column is None):
            raise ValueError("needs either part or column")
        if self.bins and self.column is None:
            raise ValueError("bins go with a column")
        return self


class Operation(Strict):
    """One Pillow operation, done before resizing."""

    crop: tuple[int, int, int, int] | None = None
    rotate: float | None = None
    transpose: (
        Literal[
            "flip_left_right",
            "flip_top_bottom",
            "rotate_90",
            "rotate_180",
            "rotate_270",
            "transpose",
            "transverse",
        ]
        | None
    ) = None
    filter: Literal["blur", "contour", "detail", "edge_enhance", "sharpen", "smooth"] | None = None
    spread: SmallCount | None = None

    @field_validator("crop", mode="before")
    @classmethod
    def _box(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    @model_validator(mode="after")
    def _one(self) -> "Operation":
        if len(self.model_fields_set) != 1:
            raise ValueError("holds exactly one of " + ", ".join(type(self).model_fields))
        return self


class Own(Strict):
    """The data's own split: a field, and which of its values mean which part, in any case."""

    field: str
    train: list[str] = ["train", "training"]
    validation: list[str] = ["val", "valid", "validation", "dev"]
    test: list[str] = ["test", "testing"]

    @model_validator(mode="after")
    def _one_part_each(self) -> "Own":
        values = [v.casefold() for part in SPLITS for v in getattr(self, part)]
        if twice := sorted({v for v in values if values.count(v) > 1}):
            raise ValueError(f"{twice[0]} stands in two parts")
        return self


class Index(Strict):
    """A table beside images: its file, the column of the images' names, what to do with strays."""

    file: str
    column: str
    unmatched: Literal["refuse", "drop"] = "refuse"


class ArrayPair(Strict):
    """The names of an `.npz`'s images and labels; several labels by the column they become."""

    x: str
    y: str | Annotated[dict[str, str], Field(min_length=1)]

    @property
    def labels(self) -> dict[str, str]:
        """The arrays of labels by the column that they become; a single one is `y`."""
        return {"y": self.y} if isinstance(self.y, str) else self.y


class Arrays(Strict):
    """The arrays of an `.npz`: x and y, or those of each part of its own split."""

    x: str | None = None
    y: str | Annotated[dict[str, str], Field(min_length=1)] | None = None
    train: ArrayPair | None = None
    validation: ArrayPair | None = None
    test: ArrayPair | None = None

    @model_validator(mode="after")
    def _one_way(self) -> "Arrays":
        given = self.model_fields_set
        if given != {"x", "y"} and not {"train", "test"} <= given <= set(SPLITS):
            raise ValueError("needs x and y, or train and test (and validation) with x and y each")
        pairs = list(self.pairs.values())
        if any(set(pair.labels) != set(pairs[0].labels) for pair in pairs):
            raise ValueError("the parts have not the same labels")
        return self

    @property
    def pairs(self) -> dict[str, ArrayPair]:
        """The arrays by part, in the order of the parts; by "" where there is no own split."""
        if self.x is not None and self.y is not None:
            return {"": ArrayPair(x=self.x, y=self.y)}
        found = {part: getattr(self, part) for part in SPLITS}
        return {part: pair for part, pair in found.items() if pair is not None}


# Those of Keras's mnist.npz.
KERAS_ARRAYS = Arrays(
    train=ArrayPair(x="x_train", y="y_train"), test=ArrayPair(x="x_test", y="y_test")
)


class Read(Strict):
    """How raw items are understood: names, folders, tables, arrays, colours, columns."""

    parts: list[str] = []
    optional_parts: list[str] = []
    folders: list[str] = []
    only: dict[str, Annotated[list[str], Field(min_length=1)]] = {}
    own: Own | None = None
    index: Index | None = None
    arrays: Arrays | None = None
    mode: Literal["L", "RGB"] = "L"
    alpha: Literal["refuse", "black", "white", "drop"] = "refuse"
    scale: tuple[float, float] | None = None
    operations: list[Operation] = []
    constants: dict[str, dict[str, str]] = {}
    ignore: list[str] = []
    keep: list[str] = []
    one_hot: list[str] = []
    ordinal: dict[str, Annotated[list[str], Field(min_length=2)]] = {}
    missing: Literal["refuse", "drop", "median"] = "refuse"

    @field_validator("scale", mode="before")
    @classmethod
    def _range(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    @model_validator(mode="after")
    def _distinct(self) -> "Read":
        if self.scale and self.scale[0] >= self.scale[1]:
            raise ValueError("scale: the first number must be the lower one")
        for keys in (
            ("parts", "optional_parts", "folders"),
            ("ignore", "keep", "one_hot", "ordinal"),
        ):
            names = [name for key in keys for name in getattr(self, key)]
            if twice := sorted({n for n in names if names.count(n) > 1}):
                raise ValueError(f"{twice[0]} stands twice in {', '.join(keys)}")
        for column, values in self.ordinal.items():
            if len(set(values)) < len(values):
                raise ValueError(f"ordinal.{column}: holds a value twice")
        return self


class Flip(Strict):
    """Mirror left to right; `swap` names, head by head, the two classes that change places."""

    probability: Annotated[float, Field(ge=0, le=1)] = 0.5
    swap: dict[str, Annotated[list[str], Field(min_length=2, max_length=2)]] = {}


class Augmentation(Strict):
    """Random changes of training images. `copies` counts the untouched one: 5 makes x5."""

    copies: Copies = 1
    seed: Seed = 0
    rotate: Annotated[float, Field(ge=0, le=180)] = 0.0
    shear: Share = 0.0
    translate: Share = 0.0
    zoom: Share = 0.0
    elastic: Share = 0.0
    flip: Flip | None = None

    def check_swaps(self, heads: Any, at: str) -> None:
        """Raise ValueError if `flip.swap` names a head that is not among `heads`."""
        for head in self.flip.swap if self.flip else {}:
            check_name(head, heads, f"{at}.flip.swap", "head")


class Augment(Augmentation):
    """A data set's augmentation, and what experiments have in its place.

    Here and not with the experiment, so that DVC sees what `augment` depends on: a key that most
    experiments lack cannot be declared.
    """

    experiments: dict[str, Augmentation] = {}

    def of_experiment(self, name: str) -> Augmentation:
        """The augmentation that experiment `name` has."""
        return self.experiments.get(name, self)


class Dataset(Strict):
    """A data set: where it comes from, how it is read, split and augmented."""

    source: str | Annotated[list[str], Field(min_length=1)]
    size: tuple[Pixels, Pixels] | Literal["middle"] | None
    read: Read
    heads: Annotated[dict[str, Head], Field(min_length=1)]
    group: dict[str, Annotated[list[str], Field(min_length=1)]]
    split: Split
    augment: Augment

    @field_validator("source")
    @classmethod
    def _no_secrets(cls, value: str | list[str]) -> str | list[str]:
        for source in [value] if isinstance(value, str) else value:
            if SECRET.search(source):
                # Not said what it is: a message ends in logs.
                raise ValueError(
                    "holds a password, key or signature, which would stay in git and dvc.lock; "
                    "put it into ~/.netrc (https), ~/.aws (s3) or the like"
                )
        return value

    @field_validator("size", mode="before")
    @classmethod
    def _pair(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    @model_validator(mode="after")
    def _names_fit(self) -> "Dataset":
        known = ["random", "own", *self.group]
        if self.split.by not in known:
            raise ValueError(f"split.by: {self.split.by} is none of {', '.join(known)}")
        for head, spec in self.heads.items():
            known = [*self.read.parts, *self.read.folders]
            if spec.part is not None and spec.part not in known:
                hint = suggest(spec.part, known) if known else ""
                raise ValueError(
                    f"heads.{head}: {spec.part} is not among read.parts and read.folders{hint}"
                )
        self.augment.check_swaps(self.heads, "augment")
        for name, other in self.augment.experiments.items():
            other.check_swaps(self.heads, f"augment.experiments.{name}")
        return self

    def same_items(self, other: "Dataset") -> bool:
        """Whether both have the same items, prepared alike: they differ in the split alone."""
        of_split = {"split", "augment"}
        return self.model_dump(exclude=of_split) == other.model_dump(exclude=of_split)


def find_embedded(name: str, source: str | list[str]) -> str | None:
    """The project's own data that a data set's source means: `embedded` those of its own name,
    `embedded:OTHER` those of another; None for any other source.
    """
    found = EMBEDDED.fullmatch(source) if isinstance(source, str) else None
    return (found[1] or name) if found else None


class Layer(Strict):
    """One layer of a network; exactly one of the kinds, and what goes with it."""

    conv: Width | None = None
    dense: Width | None = None
    dropout: Share | None = None
    flatten: Literal[True] | None = None
    average: Literal[True] | None = None
    kernel: SmallCount = 3
    pool: SmallCount = 1
    batchnorm: bool = False

    @model_validator(mode="after")
    def _one_kind(self) -> "Layer":
        kinds = {"conv", "dense", "dropout", "flatten", "average"}
        if len(kinds & self.model_fields_set) != 1:
            raise ValueError("holds exactly one of " + ", ".join(sorted(kinds)))
        extra = self.model_fields_set - kinds
        if extra and self.conv is None and (self.dense is None or extra != {"batchnorm"}):
            raise ValueError(f"{', '.join(sorted(extra))} goes with conv")
        return self


class Network(Strict):
    """A shared trunk, then a branch for each head; `each` serves heads without one of their own."""

    trunk: list[Layer]
    heads: dict[str, list[Layer]] = {}


# What an experiment can have in place of a network.
BASELINES = ("logistic_regression", "extra_trees")


class LogisticRegression(Strict):
    """How scikit-learn fits a logistic regression for each head."""

    C: Annotated[float, Field(gt=0)] = 1.0
    """The inverse strength of the L2 penalty, as scikit-learn has it."""
    iterations: Count = 200
    """Of L-BFGS, at most."""


class ExtraTrees(Strict):
    """How scikit-learn grows extremely randomised trees for each head."""

    trees: Annotated[int, Field(gt=0, le=10_000)] = 100
    leaf: Count = 1
    """Training items in a leaf, at least."""


class Experiment(Strict):
    """An experiment with the defaults filled in: a data set, a network, how it is trained."""

    dataset: str
    epochs: Count
    batch: Count
    threads: SmallCount
    learning_rate: Annotated[float, Field(gt=0)]
    schedule: Literal["constant", "cosine", "linear"]
    class_weights: Literal["none", "balanced"]
    heads: Annotated[list[str], Field(min_length=1)] | None = None
    network: Network
    logistic_regression: LogisticRegression | None = None
    """In place of a network and its epochs: a baseline that a network must beat."""
    extra_trees: ExtraTrees | None = None
    """The same, of trees."""
    gpu: bool = False
    """Whether a cluster is to train it on a machine with a GPU; one machine uses what it has."""

    @model_validator(mode="before")
    @classmethod
    def _augments_elsewhere(cls, value: Any) -> Any:
        if isinstance(value, dict) and "augment" in value:
            at = f"datasets.{value.get('dataset', 'NAME')}.augment.experiments"
            raise ValueError(f"augment: write it at {at}, under the experiment's name")
        kinds = [k for k in BASELINES if isinstance(value, dict) and value.get(k) is not None]
        if len(kinds) > 1:
            raise ValueError(f"{' and '.join(kinds)}: one of them makes an experiment")
        if kinds:
            # The defaults are a network's.
            return value | {"epochs": 1, "network": {"trunk": [{"flatten": True}], "heads": {}}}
        return value

    @property
    def is_baseline(self) -> bool:
        """Whether it is scikit-learn's, fitted to all items at once, and no network."""
        return any(getattr(self, kind) for kind in BASELINES)


class Comparison(Strict):
    """Two experiments compared in one head's metric."""

    baseline: str
    candidate: str
    head: str
    metric: Metric
    why: str = ""
    """The reason for what comes out, in a sentence for the report."""


class Parameters(Strict):
    """All of params.yaml."""

    seeds: Annotated[list[Seed], Field(min_length=1)]
    datasets: Annotated[dict[str, Dataset], Field(min_length=1)]
    defaults: dict[str, Any]
    experiments: Annotated[dict[str, Experiment], Field(min_length=1)]
    comparisons: dict[str, Comparison]

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, value: list[int]) -> list[int]:
        if len(set(value)) < len(value):
            raise ValueError("holds the same seed twice")
        return value

    @field_validator("datasets", "experiments", "comparisons")
    @classmethod
    def _names(cls, value: dict[str, Any]) -> dict[str, Any]:
        for name in value:
            # DVC joins matrix values with "-": a dash in a name would merge stages silently.
            if not NAME.fullmatch(name):
                raise ValueError(f"{name}: a name holds letters, digits and _ alone, no -")
        return value

    @model_validator(mode="after")
    def _references(self) -> "Parameters":
        for name, e in self.experiments.items():
            at = f"experiments.{name}"
            check_name(e.dataset, self.datasets, f"{at}.dataset", "data set")
            heads = self.datasets[e.dataset].heads
            for head in e.heads or []:
                check_name(head, heads, f"{at}.heads", "head")
            for head in set(e.network.heads) - {"each"}:
                check_name(head, heads, f"{at}.network.heads", "head")
        for name, d in self.datasets.items():
            at = f"datasets.{name}.augment.experiments"
            mine = [n for n, e in self.experiments.items() if e.dataset == name]
            for experiment in d.augment.experiments:
                check_name(experiment, mine, at, "experiment on this data set")
            for url in [d.source] if isinstance(d.source, str) else d.source:
                if f"/{RAW.format(name)}/" in f"/{urllib.parse.unquote(url)}/":
                    raise ValueError(
                        f"datasets.{name}.source: {RAW.format(name)} is where DVC puts what is "
                        "fetched, and removes what is there; move your files, to raw/ for example"
                    )
        for name, c in self.comparisons.items():
            at = f"comparisons.{name}"
            sides = [(k, getattr(c, k)) for k in ("baseline", "candidate")]
            for side, experiment in sides:
                check_name(experiment, self.experiments, f"{at}.{side}", "experiment")
                e = self.experiments[experiment]
                head_names = e.heads or list(self.datasets[e.dataset].heads)
                check_name(c.head, head_names, f"{at}.head: {experiment}", "head")
            a, b = (self.datasets[self.experiments[e].dataset] for _, e in sides)
            if a is not b and not a.same_items(b):
                raise ValueError(
                    f"{at}: {c.baseline} and {c.candidate} are on two data sets that differ in "
                    "more than their split"
                )
            if c.baseline == c.candidate:
                raise ValueError(f"{at}: compares {c.baseline} with itself")
        return self


def check_name(name: str, known: Any, where: str, what: str) -> None:
    """Raise a ValueError that names the nearest of `known` unless `name` is one of them."""
    if name not in known:
        raise ValueError(f"{where}: no {what} named {name}{suggest(name, known)}")


def suggest(name: str, known: Any) -> str:
    """The end of an error: the nearest of the `known` names to `name`, or some twenty of them."""
    names = [str(one)[:80] for one in known]
    close = difflib.get_close_matches(name[:80], names[:1000], 1)
    if close:
        return f"; did you mean {close[0]}?"
    return f" ({', '.join(names[:20])}{', ...' if len(names) > 20 else ''})"


def merge(base: Any, change: Any) -> Any:
    """`base` with `change` laid over it, mapping by mapping; lists are replaced whole."""
    if not (isinstance(base, dict) and isinstance(change, dict)):
        return change
    return {k: merge(base.get(k), v) if k in base else v for k, v in change.items()} | {
        k: v for k, v in base.items() if k not in change
    }


# --- nested keys ------------------------------------------------------------------------------


def get_nested(tree: Any, key: str, *default: Any) -> Any:
    """The value at a dotted key, like `experiments.x.epochs`, of mappings and checked models.

    Where there is none, `default` if it is given; else KeyError, whose arguments are the step that
    is missing and the names that stand in its place.
    """
    for step in key.split("."):
        inside = dict(tree) if isinstance(tree, (dict, BaseModel)) else {}
        if step not in inside:
            if default:
                return default[0]
            raise KeyError(step, list(inside))
        tree = inside[step]
    return tree


def flatten(tree: Any, lists: bool = False, at: str = "") -> dict[str, Any]:
    """The leaves of nested mappings by dotted key; with `lists` those in lists too, by place."""
    pairs: Iterable[tuple[Any, Any]] = ()
    if isinstance(tree, dict):
        pairs = tree.items()
    elif lists and isinstance(tree, (list, tuple)):
        pairs = enumerate(tree)
    leaves = {
        k: v
        for name, inner in pairs
        for k, v in flatten(inner, lists, f"{at}.{name}" if at else str(name)).items()
    }
    # An empty mapping or list is a leaf too.
    return leaves or ({at: tree} if at else {})


# --- reading and checking ---------------------------------------------------------------------


class _OneOfEach(yaml.SafeLoader):
    """YAML where a key given twice is an error and not the last one's win."""


def _mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = [k.value for k, _ in node.value if isinstance(k, yaml.ScalarNode)]
    twice, times = Counter(keys).most_common(1)[0] if keys else ("", 0)
    if times > 1:
        raise yaml.constructor.ConstructorError(
            None, None, f"{twice} stands twice", node.start_mark
        )
    loader.flatten_mapping(node)
    return loader.construct_mapping(node, deep=True)


# PyYAML reads YAML 1.1, DVC reads 1.2: to one of them these are text.
_AMBIGUOUS = {
    "bool": re.compile("yes|no|on|off", re.IGNORECASE),
    "int": re.compile(r".*:.*|[-+]?0[0-9_]+"),
    "float": re.compile(".*:.*"),
    "timestamp": re.compile(".*"),
}


def _scalar(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> Any:
    kind = node.tag.rpartition(":")[2]
    if _AMBIGUOUS[kind].fullmatch(node.value):
        instead = "true, false or text in quotes" if kind == "bool" else "a number, or quote it"
        raise yaml.constructor.ConstructorError(
            None, None, f"{node.value} is ambiguous in YAML; write {instead}", node.start_mark
        )
    return getattr(loader, f"construct_yaml_{kind}")(node)


_OneOfEach.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
for _kind in _AMBIGUOUS:
    _OneOfEach.add_constructor(f"tag:yaml.org,2002:{_kind}", _scalar)
# PyYAML reads YAML 1.1, in which 1e-05 is text; DVC reads and writes 1.2, in which it is a number.
_OneOfEach.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+"), list("-+0123456789")
)


def parse_yaml(text: str) -> Any:
    """What a YAML text says, as params.yaml is read. Raises yaml.YAMLError.

    Anchors are counted as often as they are used, before anything is made of them.
    """
    if len(text) > MOST_CHARACTERS:
        raise yaml.YAMLError(f"more than {MOST_CHARACTERS:,} characters")
    loader = _OneOfEach(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        if _count_nodes(node, {}) > MOST_NODES:
            raise yaml.YAMLError(f"its anchors stand for more than {MOST_NODES:,} values")
        return loader.construct_document(node)
    except RecursionError:
        raise yaml.YAMLError("nested too deeply") from None
    except ValueError as e:  # a number of 5,000 digits
        raise yaml.YAMLError(str(e)) from None
    finally:
        loader.dispose()


def _count_nodes(node: yaml.Node, known: dict[int, int]) -> int:
    """How many values a node stands for; `known` are those of the nodes seen."""
    if id(node) not in known:
        known[id(node)] = MOST_NODES + 1  # what is met within itself never ends
        inside = node.value if isinstance(node, yaml.CollectionNode) else []
        parts = [n for each in inside for n in (each if isinstance(each, tuple) else (each,))]
        known[id(node)] = 1 + sum(_count_nodes(part, known) for part in parts)
    return known[id(node)]


def read_params(file: Path = PARAMS_FILE) -> dict[str, Any]:
    """params.yaml as written, unchecked."""
    try:
        tree = parse_yaml(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{file}: not found; run from the project's root") from None
    except (yaml.YAMLError, UnicodeDecodeError) as e:
        raise InputError(f"{file}: not readable as YAML: {' '.join(str(e).split())}") from None
    if not isinstance(tree, dict):
        raise InputError(f"{file}: holds no mapping of seeds, datasets, defaults, experiments")
    return tree


def check_params(tree: dict[str, Any]) -> Parameters:
    """All of params.yaml, checked; experiments come with the defaults filled in.

    Raises InputError, naming the first wrong key, what is wrong and the nearest valid key.
    """
    tree = dict(tree)
    defaults, experiments = tree.get("defaults"), tree.get("experiments")
    if isinstance(defaults, dict) and isinstance(experiments, dict):
        for key in defaults:
            if key not in Experiment.model_fields:
                hint = suggest(key, Experiment.model_fields)
                raise InputError(f"{PARAMS_FILE}: defaults.{key}: unknown key{hint}")
        tree["experiments"] = {
            k: merge(defaults, v) if isinstance(v, dict) else v for k, v in experiments.items()
        }
    try:
        return Parameters.model_validate(tree)
    except ValidationError as e:
        raise InputError(f"{PARAMS_FILE}: {_in_words(e, tree)}") from None


def _in_words(error: ValidationError, tree: Any) -> str:
    """The first thing wrong, as `key: what is wrong`."""
    # Of a union's several complaints the deepest is about what was meant; and a key that is unknown
    # says more than one that is missing because it was written otherwise.
    errors = error.errors()
    first = max(
        (e for e in errors if e["loc"][:2] == errors[0]["loc"][:2]),
        key=lambda e: (len(e["loc"]), e["type"] == "extra_forbidden"),
    )
    models: list[Any] = [Parameters]
    path: list[str] = []
    for step in first["loc"]:
        inside = (isinstance(tree, dict) and step in tree) or (
            isinstance(tree, list) and isinstance(step, int) and step < len(tree)
        )
        if inside or (first["type"] == "missing" and step == first["loc"][-1]):
            path.append(str(step))
            tree = tree[step] if inside else None
            if first["type"] != "extra_forbidden" or step != first["loc"][-1]:
                models = [
                    inner
                    for m in models
                    if step in m.model_fields
                    for inner in _models(m.model_fields[str(step)].annotation)
                ] or models
    key = ".".join(path)
    if first["type"] == "extra_forbidden":
        return f"{key}: unknown key{suggest(path[-1], {f for m in models for f in m.model_fields})}"
    if first["type"] == "missing":
        return f"{key}: missing"
    message = first["msg"].removeprefix("Value error, ")
    message = message if message[1:2].isupper() else message[0].lower() + message[1:]
    if first["type"] != "value_error":
        given = repr(first["input"])
        message += f", got {given if len(given) <= 60 else given[:60] + '...'}"
    return f"{key}: {message}" if key else message


def _models(annotation: Any) -> list[type[BaseModel]]:
    """The models an annotation speaks of, through options, lists and mappings."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [m for a in getattr(annotation, "__args__", ()) for m in _models(a)]


VALUES_READ: dict[str, Any] = {}  # the values that this process asked for


def get_params(*keys: str) -> list[Any]:
    """The values at dotted `keys`, after a check of the whole file.

    `datasets.NAME[.KEY]` come as checked models, `experiments` with the defaults filled in, so a
    stage that asks for them declares `defaults` beside them.
    """
    # facet/review/trace.py compares them with what dvc.yaml declares
    sys.audit("facet.ask", *keys)
    checked = check_params(read_params())
    found = []
    for key in keys:
        try:
            found.append(get_nested(checked, key))
        except KeyError as e:
            hint = suggest(*e.args)
            raise InputError(f"{PARAMS_FILE}: {key}: nothing of that name{hint}") from None
    VALUES_READ.update(zip(keys, found, strict=True))
    return found


def read_experiment(name: str) -> tuple[Experiment, dict[str, Any]]:
    """Experiment `name` with the defaults filled in, and the part of params.yaml that says so.

    The second is as it is written: `{"defaults": ..., "experiments": {name: ...}}`.
    """
    sys.audit("facet.ask", "defaults", f"experiments.{name}")
    tree = read_params()
    experiments = check_params(tree).experiments
    if name not in experiments:
        raise InputError(f"{PARAMS_FILE}: experiments.{name}: missing{suggest(name, experiments)}")
    VALUES_READ[f"experiments.{name}"] = experiments[name]
    part = {"defaults": tree["defaults"], "experiments": {name: tree["experiments"][name]}}
    return experiments[name], part


def run_names(parameters: Parameters) -> list[str]:
    """The names of all runs, EXPERIMENT-SEED, in the order of params.yaml."""
    return [f"{e}-{s}" for e in parameters.experiments for s in parameters.seeds]


def parse_run(run: str) -> tuple[str, int]:
    """EXPERIMENT and SEED of a run's name."""
    experiment, dash, seed = run.rpartition("-")
    if not experiment or not dash or not seed.isdigit():
        raise InputError(f"{run}: a run is named EXPERIMENT-SEED, like faces_deep-0")
    return experiment, int(seed)
