"""Look at a source and propose how to read it: `facet inspect SOURCE`.

What is proposed is made ready to learn from once, so that it fits the data; a person says whether
it is what was meant.
"""

import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import yaml

from facet.base.config import (
    KERAS_ARRAYS,
    NAME,
    Arrays,
    Index,
    Own,
    Read,
    check_params,
    find_embedded,
    merge,
    read_params,
)
from facet.base.names import PARAMS_FILE, SPLITS
from facet.base.storage import atomic_write
from facet.datasets.archives import ARCHIVES
from facet.datasets.array_files import describe_arrays, list_arrays
from facet.datasets.decode import RawFiles, decode_items, describe_unread, list_raw_files
from facet.datasets.depth import DepthError
from facet.datasets.items import Items, describe_sizes
from facet.datasets.labels import cut_folders, read_fields, read_own_split
from facet.datasets.normalisation import normalise
from facet.datasets.readings import why_no_reading
from facet.datasets.sources import download, parse_source
from facet.datasets.tables import (
    as_text,
    is_missing,
    join_index,
    match_names,
    read_columns,
    read_numbers,
)
from facet.errors import InputError

ROOT = Path(__file__).parents[2]
Fields = Mapping[str, np.ndarray]
MOST_CLASSES = 100
MOST_NUMBERS = 20  # that are labels, and no measure
MOST_TEXTS = 20  # values of a column of text that are worth a reading each
MOST_PIXELS = 64  # of the proposed width and height: a first network trains in seconds
LABEL_NAMES = ["class", "label", "target", "y", "kind", "species", "category", "outcome"]
NUMBERED = re.compile(r"[A-Za-z]{0,2}\d+[A-Za-z]?")  # what a group or a count is called: g12, 007


@dataclass
class Proposal:
    """A data set's entry in the making, and what there is to say of it."""

    size: list[int] | None = None
    read: dict[str, Any] = field(default_factory=dict)
    heads: dict[str, Any] = field(default_factory=dict)
    group: dict[str, list[str]] = field(default_factory=dict)
    split: dict[str, Any] = field(
        default_factory=lambda: {"by": "random", "seed": 0, "test": 0.25, "validation": 0.15}
    )
    found: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)


def inspect_source(source: str, name: str, write: bool) -> None:
    """Print an entry for params.yaml that fits `source`; with `write` put it there too.

    `source` is a path, or what `datasets.NAME.source` can be. Raises InputError.
    """
    url = find_source(source)
    name = name or make_name(url)
    if not NAME.fullmatch(name):
        raise InputError(f"--name {name}: a name holds letters, digits and _ alone, no -")
    file = PARAMS_FILE if PARAMS_FILE.exists() or write else ROOT / PARAMS_FILE
    tree = read_params(file)
    if name in tree.get("datasets", {}):
        raise InputError(f"{file}: has a data set {name} already; give another name with --name")
    with tempfile.TemporaryDirectory() as place:
        raw, cache = Path(place, "raw"), Path(place, "cache")
        raw.mkdir()
        manifest = download(name, url, raw, cache)
        shutil.rmtree(cache, ignore_errors=True)
        try:
            proposal, items = propose_entry(raw)
        except InputError as e:
            # The copy is no place that anybody knows.
            words = str(e).replace(f"{raw}/images/", "").replace(f"{raw}/", "")
            raise InputError(f"{source}: {words.removeprefix(f'{raw}: ')}") from None
        if manifest["left_out"]:
            proposal.left_out.append(
                f"{shorten(manifest['left_out'])}: of no kind that is read, or hidden"
            )
        datasets, experiments = make_entries(name, url, proposal)
        changed = merge(tree, {"datasets": datasets, "experiments": experiments})
        spec = check_params(changed).datasets[name]
        (data, *_) = normalise(items, name, spec)
    counts = ", ".join(f"{len(data.splits[s])} {s}" for s in SPLITS)
    proposal.found.append(f"split by {spec.split.by}: {counts}")
    texts = format_entries(name, datasets[name], proposal), format_experiments(experiments)
    print(f"# Found in {source} by `facet inspect`: look it through, then put it into params.yaml.")
    print("datasets:\n" + texts[0] + "experiments:\n" + texts[1], end="")
    if write:
        write_entries(file, changed, dict(zip(("datasets", "experiments"), texts, strict=True)))
        print(f"# {file} holds it; `git diff {file}` shows it")


def find_source(word: str) -> str:
    """The URL of a source that is given as a path or as a URL. Raises InputError."""
    if find_embedded("", word) is not None or "::" in word or re.match(r"[a-z][a-z0-9+]+:", word):
        return word
    path = parse_source(word).url
    if not Path(path).expanduser().exists():
        raise InputError(f"{word}: not found")
    return f"file://{Path(path).expanduser().resolve()}{word.removeprefix(path)}"


def make_name(url: str) -> str:
    """A data set's name after its source."""
    last = PurePosixPath(parse_source(url).url.rstrip("/")).name
    for ending in (*ARCHIVES, ".csv", ".npz"):
        last = last.removesuffix(ending)
    last = re.sub(r"\W+", "_", last, flags=re.ASCII).strip("_").lower()
    return last if NAME.fullmatch(last) else "data" + ("_" + last if last else "")


def propose_entry(raw: Path) -> tuple[Proposal, Items]:
    """What fits the files of a raw folder, and its items, decoded so; pixels lie in `raw`."""
    files, proposal = list_raw_files(raw), Proposal()
    if files.images:
        fields = propose_images(files, proposal)
    elif files.arrays:
        propose_arrays(files.home / files.arrays[0], proposal)
    else:
        propose_tables(files, proposal)
    pixels = raw.parent / "pixels.npy"
    try:
        items = decode_items(raw, pixels, Read.model_validate(proposal.read))
    except DepthError as e:
        proposal.found.append(e.found)
        proposal.unknown.append("read.scale: which values are to become black and white")
        proposal.read["scale"] = e.proposal
        items = decode_items(raw, pixels, Read.model_validate(proposal.read))
    if items.images:
        describe_images(items, proposal)
    if files.arrays and not files.images:
        fields = items.columns
    elif not files.images:
        fields = choose_columns(items, proposal)
    describe_fields(fields, items, proposal)
    return proposal, items


# --- images -----------------------------------------------------------------------------------


def propose_images(files: RawFiles, proposal: Proposal) -> Fields:
    """Where the labels of images are: an index, folders, or their names. Returns their fields."""
    names, read = files.images, proposal.read
    index = find_labels(files)
    if index:
        places, joined = join_index(names, files.home / index.file, index)
        read["index"] = {"file": PurePosixPath(index.file).name, "column": index.column}
        if index.unmatched == "drop":
            read["index"]["unmatched"] = "drop"
            rows = len(next(iter(read_columns(files.home / index.file).values())))
            strays = {"images without a row": len(names) - len(places)}
            strays["rows without an image"] = rows - len(places)
            each = (f"{count} {what}" for what, count in strays.items() if count)
            proposal.left_out.append(f"{' and '.join(each)} in {index.file}")
        names = [names[place] for place in places]
        fields = dict(joined.columns)
    else:
        fields = {}
    if unread := describe_unread(files, Read.model_validate(read)):
        proposal.left_out.append(unread)
    items = Items(np.array(names), {})
    levels = name_levels(cut_folders(names), names, bool(index))
    if levels:
        read["folders"] = levels
        folders = read_fields(items, Read(folders=levels))
        proposal.found.append(f"folders above each image: {'/'.join(levels)}")
        fields |= folders
    find_own_split(fields, proposal)
    usable = {f: v for f, v in fields.items() if f != proposal.read.get("own", {}).get("field")}
    labels = choose_labels(usable)
    where = "column" if index else "part"
    if not index and "kind" in labels:
        labels = ["kind"]
    parts = split_names(names)
    if not labels and parts:
        labels = (
            choose_labels(parts)
            or sorted(
                (p for p, v in parts.items() if is_label(v)), key=lambda p: len(set(parts[p]))
            )[:1]
        )
        where = "part"
        read["parts"] = list(parts)
        proposal.unknown.append("what the parts of the names mean: call them by better names")
    if not labels:
        raise InputError(
            "no labels found: no folders of images (kind/001.png), no table that names the images, "
            "no parts between `_` in their names that repeat"
        )
    if index and (rest := [c for c in usable if c not in labels and c not in levels]):
        proposal.left_out.append(f"columns of {index.file}: {shorten(rest)}: no labels, it seems")
    fields |= parts if "parts" in read else {}
    proposal.heads = {make_name(label): {where: label} for label in labels}
    if proposal.split["by"] == "random" and (group := find_group(parts, fields, labels)):
        read["parts"] = list(parts)
        key = [*(labels if where == "part" and labels[0] in fields else []), group]
        proposal.group, proposal.split["by"] = {group: key}, group
        proposal.unknown.append(
            f"whether items of one {group} belong together, as photos of one thing do: split so"
        )
    longest = max(len(PurePosixPath(n).stem.split("_")) for n in names)
    if "parts" in read and longest > len(parts):
        more = range(len(parts) + 1, longest + 1)
        read["optional_parts"] = [f"part_{i}" for i in more]
    return fields


def find_labels(files: RawFiles) -> Index | None:
    """The table beside images, and its column, that names most of them; None for none."""
    best, chosen = 0, None
    for table in files.tables:
        for column, values in read_columns(files.home / table).items():
            places = match_names(files.images, as_text(values).tolist())
            count = len({p for p in places if p >= 0})
            if count > best and 2 * count >= len(places):
                whole = count == len(places) == len(files.images)
                best = count
                chosen = Index(file=table, column=column, unmatched="refuse" if whole else "drop")
    return chosen


def name_levels(folders: list[list[str]], names: list[str], indexed: bool) -> list[str]:
    """Names for the levels of folders, outermost first; none where they say nothing new."""
    depths = {len(above) for above in folders}
    if depths == {0} or indexed:
        return []
    stems = [set(PurePosixPath(n).stem.split("_")) for n in names]
    if all(set(above) <= stem for above, stem in zip(folders, stems, strict=True)):
        return []
    if len(depths) > 1:
        short = names[min(range(len(names)), key=lambda i: len(folders[i]))]
        long = names[max(range(len(names)), key=lambda i: len(folders[i]))]
        raise InputError(
            f"{short} and {long} lie at different depths, so folders cannot be labels; move them "
            "or name one of the folders as source"
        )
    levels = []
    for number, values in enumerate(zip(*folders, strict=True)):
        own = find_parts(np.array(values)) is not None
        levels.append("part" if own and "part" not in levels else f"folder_{number + 1}")
    kinds = [i for i, level in enumerate(levels) if level != "part"]
    if kinds:
        levels[kinds[-1]] = "kind"
    return levels


def split_names(names: list[str]) -> dict[str, np.ndarray]:
    """The parts between the `_` of names, those that all of them have; none if there is but one."""
    stems = [PurePosixPath(n).stem.split("_") for n in names]
    count = min(map(len, stems))
    if max(map(len, stems)) == 1 or any("" in stem for stem in stems):
        return {}
    return {f"part_{i + 1}": np.array([stem[i] for stem in stems]) for i in range(count)}


def find_group(parts: Fields, fields: Fields, labels: list[str]) -> str:
    """The first part of names that groups items of a class, which may be photos of one thing."""
    known = [as_text(fields[label]).tolist() for label in labels if label in fields]
    for part, values in parts.items():
        if part not in labels:
            keys = set(zip(*known, values.tolist(), strict=True))
            if 10 <= len(keys) < len(values):
                return part
    return ""


def describe_images(items: Items, proposal: Proposal) -> None:
    """Propose size, mode and what becomes of transparency, and say what there is."""
    images = items.images
    assert images is not None
    proposal.found.insert(0, f"{len(items)} images: {', '.join(describe_sizes(items, 4))}")
    sizes, counts = np.unique(images.shapes[:, :2], axis=0, return_counts=True)
    height, width = sizes[counts.argmax()].tolist()
    shrink = min(1, MOST_PIXELS / max(height, width))
    proposal.size = [max(1, round(width * shrink)), max(1, round(height * shrink))]
    if shrink < 1 or len(sizes) > 1:
        proposal.unknown.append("size: how many pixels the answer needs; more take longer")
    channels = images.shapes[:, 2]
    few = np.flatnonzero(channels > 2)[:: max(1, len(images) // 200)].tolist()
    coloured = any((images[i][..., :1] != images[i][..., 1:3]).any() for i in few)
    if coloured:
        proposal.read["mode"] = "RGB"
    elif len(few):
        proposal.found.append("colour images that hold grey alone: read as grey")
    if clear := np.flatnonzero(channels % 2 == 0).tolist():
        used = any((images[i][..., -1] < 255).any() for i in clear)
        proposal.read["alpha"] = "white" if used else "drop"
        if used:
            proposal.unknown.append("read.alpha: what lies behind transparent pixels")


# --- arrays -----------------------------------------------------------------------------------


def propose_arrays(path: Path, proposal: Proposal) -> None:
    """Which arrays of an `.npz` are images and labels, and of which part."""
    there = list_arrays(path)
    proposal.found.append(f"arrays: {describe_arrays(there)}")
    pairs: dict[str, Any] = {}
    for x, (shape, _, _) in there.items():
        part = part_of_name(x)
        if len(shape) == 3 or (len(shape) == 4 and shape[3] <= 4):
            labels = [
                y
                for y, (other, _, _) in there.items()
                if other in ((shape[0],), (shape[0], 1)) and part_of_name(y) in (part, "")
            ]
            if labels and part not in pairs:
                pairs[part] = {"x": x, "y": labels[0]}
                if len(labels) > 1:
                    pairs[part]["y"] = {name_label(y): y for y in labels}
            else:
                why = "a second array of images" if labels else "no labels of the same number"
                proposal.left_out.append(f"{x}: {why}")
    if "test" not in pairs and "validation" in pairs:
        pairs["test"] = pairs.pop("validation")
        proposal.unknown.append("no test part: the validation part is taken for it")
    arrays = pairs.get("") if "train" not in pairs else {p: pairs[p] for p in SPLITS if p in pairs}
    try:
        chosen = Arrays.model_validate(arrays or {})
    except ValueError:
        raise InputError(
            f"{path.name}: cannot tell which arrays are images and which their labels; it has "
            f"{describe_arrays(there)}; write read.arrays by hand"
        ) from None
    if chosen != KERAS_ARRAYS:
        proposal.read["arrays"] = arrays
    (first, *_) = chosen.pairs.values()
    proposal.heads = {make_name("label" if c == "y" else c): {"column": c} for c in first.labels}
    if "train" in pairs:
        proposal.split["by"] = "own"


def part_of_name(name: str) -> str:
    """The part that an array or a file is of by its name; empty for none."""
    words = set(re.split(r"[^a-z]+", name.lower()))
    own = Own(field="")
    return next((p for p in SPLITS if words & set(getattr(own, p))), "")


def name_label(array: str) -> str:
    """A label's name: that of its array without the part's."""
    words = [w for w in re.split(r"[_\W]+", array) if w and not part_of_name(w)]
    return "_".join(words) or array


# --- tables -----------------------------------------------------------------------------------


def propose_tables(files: RawFiles, proposal: Proposal) -> None:
    """Files of parts, like train.csv and test.csv, tell the own split."""
    parts = {PurePosixPath(f).name: part_of_name(PurePosixPath(f).stem) for f in files.tables}
    if {"train", "test"} <= set(parts.values()) and all(parts.values()):
        proposal.read["constants"] = {f: {"part": part} for f, part in parts.items()}
        proposal.read["own"] = {"field": "part"}
        proposal.split["by"] = "own"


def choose_columns(items: Items, proposal: Proposal) -> Fields:
    """Which column of a table is the label, and what becomes of those that are no readings."""
    columns, read = items.columns, proposal.read
    proposal.found.insert(0, f"{len(items)} rows, {len(columns)} columns")
    find_own_split(columns, proposal)
    taken = proposal.read.get("own", {}).get("field")
    usable = [c for c in columns if c != taken and is_label(columns[c])]
    named = [c for c in usable if c.lower() in LABEL_NAMES]
    texts = [c for c in usable if read_numbers(columns[c]) is None]
    last = [c for c in usable if c == list(columns)[-1]]
    label = next(iter([*named, *last, *texts[::-1]]), None)
    if label is None:
        raise InputError(
            "no column has a few values that repeat, as a label has; a number can be cut into "
            "classes by heads.NAME.bins"
        )
    proposal.heads = {make_name(label): {"column": label}}
    others = [c for c in usable if c not in (label, *texts)] + [c for c in texts if c != label]
    which = f"; {', '.join(others)} could be too" if others else ""
    proposal.unknown.append(f"which column is to be told: {label} is taken{which}")
    how: dict[str, list[str]] = {"ignore": [], "one_hot": []}
    for column, values in columns.items():
        if column not in (label, taken) and (why := why_no_reading(column, items, Read())):
            few = why.startswith("text") and len(set(values.tolist())) <= MOST_TEXTS
            how["one_hot" if few else "ignore"].append(column)
            if not few:
                proposal.left_out.append(f"column {column}: {why}")
    read |= {key: found for key, found in how.items() if found}
    gaps = {c: int(is_missing(v).sum()) for c, v in columns.items() if c not in how["ignore"]}
    gaps = {c: n for c, n in gaps.items() if n}
    if gaps:
        proposal.found.append(f"no value: {', '.join(f'{c} {n}' for c, n in gaps.items())}")
        read["missing"] = "drop" if {label, taken} & set(gaps) else "median"
    return columns


# --- fields -----------------------------------------------------------------------------------


def is_label(values: np.ndarray) -> bool:
    """Whether a field may be a label: a few values, text or whole numbers, that repeat."""
    there = values[~is_missing(values)]
    classes, numbers = len(np.unique(there)), read_numbers(there)
    most = min(MOST_CLASSES, max(len(values) // 4, min(len(values) // 2, 5)))
    if numbers is not None:
        most = min(most, MOST_NUMBERS) if (numbers == np.rint(numbers)).all() else 0
    return 2 <= classes <= most


def choose_labels(fields: Fields) -> list[str]:
    """The fields that are labels, those that only number things left out if there are others."""
    labels = [f for f, values in fields.items() if is_label(values)]
    numbered = {
        f for f in labels if all(NUMBERED.fullmatch(v) for v in as_text(fields[f]).tolist() if v)
    }
    plain = [f for f in labels if f not in numbered]
    named = [f for f in labels if f.lower() in LABEL_NAMES]
    return named or plain or [f for f in labels if f in ("kind",)]


def find_parts(values: np.ndarray) -> dict[str, list[str]] | None:
    """By part, the values of a field that tells the data's own split; None if it does not."""
    own, found = Own(field=""), dict[str, list[str]]()
    for value in np.unique(as_text(values)).tolist():
        part = next((p for p in SPLITS if value.casefold() in getattr(own, p)), None)
        if part is None:
            return None
        found.setdefault(part, []).append(value)
    return found if "train" in found and len(found) > 1 else None


def find_own_split(fields: Fields, proposal: Proposal) -> None:
    """Note the field that tells the data's own split, if there is one."""
    for name, values in fields.items():
        if parts := find_parts(values):
            proposal.read["own"] = {"field": name}
            if "test" not in parts:
                proposal.read["own"] |= {"validation": [], "test": parts["validation"]}
                proposal.unknown.append("no test part: the validation part is taken for it")
            proposal.split["by"] = "own"
            return


def describe_fields(fields: Fields, items: Items, proposal: Proposal) -> None:
    """Say which classes the heads have, and the own split, with counts."""
    read = Read.model_validate(proposal.read)
    known = {
        **read_fields(items, read),
        **{f: v for f, v in fields.items() if len(v) == len(items)},
    }
    for head, spec in proposal.heads.items():
        values = as_text(known[spec.get("part") or spec["column"]])
        proposal.found.append(f"{head}: {count_values(values)}")
    own = read_own_split(known, read.own) if read.own else items.own
    if own is not None:
        proposal.found.append(f"own split: {count_values(own)}")


def count_values(values: np.ndarray, most: int = 8) -> str:
    """`circle 32, square 32`, the commonest values first."""
    names, counts = np.unique(values, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    each = [f"{names[i] or '(empty)'} {counts[i]}" for i in order[:most]]
    return ", ".join(each) + (f", and {len(names) - most} more" if len(names) > most else "")


def shorten(names: list[str], most: int = 4) -> str:
    """The first few of many names."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


# --- writing ----------------------------------------------------------------------------------


def make_entries(name: str, url: str, p: Proposal) -> tuple[dict[str, Any], dict[str, Any]]:
    """The entries under `datasets` and `experiments`."""
    dataset = {
        "source": url,
        "size": p.size,
        "read": p.read,
        "heads": p.heads,
        "group": p.group,
        "split": p.split,
        "augment": {},
    }
    trunk: list[dict[str, Any]] = [{"dense": 32}]
    if p.size:
        large = min(p.size) >= 12
        convolutions = [{"conv": 16, "pool": 2}, {"conv": 32, "pool": 2}, {"average": True}]
        trunk = [*(convolutions if large else [{"flatten": True}]), *trunk]
    experiment = {"dataset": name, "network": {"trunk": trunk}}
    return {name: dataset}, {f"{name}_small": experiment}


def format_entries(name: str, entry: dict[str, Any], proposal: Proposal) -> str:
    """A data set's entry as YAML, indented, with comments on it."""
    lines = [f"  {name}:"]
    for title, words in (
        ("", proposal.found),
        ("left out: ", proposal.left_out),
        ("not known: ", proposal.unknown),
    ):
        lines += [f"    # {title}{' '.join(w.split())}" for w in words]
    for key, value in entry.items():
        if key == "read" and len(value) > 1:
            lines += ["    read:", *(f"      {k}: {format_value(v)}" for k, v in value.items())]
        else:
            lines.append(f"    {key}: {format_value(value)}")
    return "\n".join(lines) + "\n"


def format_experiments(experiments: dict[str, Any]) -> str:
    """Experiments as YAML, indented."""
    lines = []
    for name, entry in experiments.items():
        lines += [f"  {name}:", *(f"    {k}: {format_value(v)}" for k, v in entry.items())]
    return "\n".join(lines) + "\n"


def format_value(value: Any) -> str:
    """A value in one line of YAML."""
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10**6)
    return text.removesuffix("...\n").strip()


def write_entries(file: Path, wanted: dict[str, Any], texts: dict[str, str]) -> None:
    """Put entries at the end of their blocks in params.yaml; all else of the file stays.

    Raises InputError where the file is laid out so that this does not give the tree `wanted`.
    """
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    for block, text in texts.items():
        start = next((i for i, line in enumerate(lines) if line.startswith(f"{block}:")), None)
        if start is not None:
            end = start + 1
            for i in range(start + 1, len(lines)):
                if lines[i][:1] not in (" ", "\n", "#"):
                    break
                end = i + 1 if lines[i].startswith(" ") else end
            lines[end - 1] = lines[end - 1].rstrip("\n") + "\n"
            lines[end:end] = [text]
    with atomic_write(file) as aside:
        aside.write_text("".join(lines), encoding="utf-8")
        if read_params(aside) != wanted:
            raise InputError(f"{file}: laid out otherwise than usual; put the entry in by hand")
