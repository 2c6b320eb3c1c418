"""Hostile params.yaml files: refused at once, in one line, before anything is made of them."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from facet.base.config import check_params, get_nested, parse_yaml, read_params
from facet.errors import InputError
from tests.helpers import small_parameters


def nest(times: int, each: str) -> str:
    """Anchors that stand for ten of the one before, `times` over."""
    lines = [f"a0: &a0 {each}"]
    for i in range(1, times):
        lines.append(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]")
    return "\n".join(lines)


MERGES = "\n".join(
    ["a0: &a0 {x: 1}"]
    + [f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 10)}]}}" for i in range(1, 12)]
)
# What a file holds, and a word of the message that is due.
FILES = {
    "aliases": (nest(12, "[1, 2]"), "its anchors stand for more than 1,000,000 values"),
    "alias_text": (nest(12, "ha"), "its anchors stand for more than 1,000,000 values"),
    "merges": (MERGES, "its anchors stand for more than 1,000,000 values"),
    "itself": ("a: &a [*a]", "its anchors stand for more than 1,000,000 values"),
    "itself_mapping": ("a: &a {b: *a}", "its anchors stand for more than 1,000,000 values"),
    "levels": ("a: " + "[" * 3000 + "]" * 3000, "nested too deeply"),
    "levels_mapping": ("{a: " * 2000 + "1" + "}" * 2000, "nested too deeply"),
    "levels_open": ("[" * 20_000, "nested too deeply"),
    "digits": ("seeds: [" + "9" * 5000 + "]", "limit (4300 digits)"),
    "long": ("# " + "a" * 4_100_000, "more than 4,000,000 characters"),
    "time": ("a: 1:30", "1:30 is ambiguous in YAML"),
    "time_float": ("a: 1:30.5", "1:30.5 is ambiguous"),
    "no": ("a: no", "no is ambiguous in YAML; write true, false or text in quotes"),
    "yes_key": ("yes: 1", "yes is ambiguous"),
    "off": ("a: [Off]", "Off is ambiguous"),
    "octal": ("a: 010", "010 is ambiguous"),
    "date": ("a: 2024-01-02", "2024-01-02 is ambiguous"),
    "impossible_date": ("a: 2024-13-45", "2024-13-45 is ambiguous"),
    "impossible_time": ("a: 2024-01-02T99:99:99Z", "ambiguous"),
    "object": ("a: !!python/object/apply:os.system ['true']", "not readable as YAML"),
    "name": ("a: !!python/name:os.system", "not readable as YAML"),
    "tag": ("a: !thing 3", "not readable as YAML"),
    "twice": ("a: 1\nb: 2\na: 3", "a stands twice"),
    "twice_inside": ("a: {b: 1, b: 1}", "b stands twice"),
    "sixty_thousand": (
        "\n".join([*(f"k{i}: {i}" for i in range(6000)), "k77: 1"]),
        "k77 stands twice",
    ),
    "list_key": ("? [1, 2]\n: 3", "unhashable"),
    "no_alias": ("a: *b", "undefined alias"),
    "two_documents": ("a: 1\n---\nb: 2", "single document"),
    "tabs": ("a:\n\tb: 1", "not readable as YAML"),
    "open_quote": ("a: 'b", "not readable as YAML"),
    "null_byte": ("a: \0", "not readable as YAML"),
    "list": ("[1, 2]", "holds no mapping"),
    "text": ("just text", "holds no mapping"),
    "empty": ("", "holds no mapping"),
    "null": ("null", "holds no mapping"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_hostile_file_is_refused_in_a_line(tmp_path: Path, name: str) -> None:
    text, expected = FILES[name]
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(InputError) as e:
        read_params(tmp_path / "params.yaml")
    message = str(e.value)
    assert message.startswith(f"{tmp_path}/params.yaml: ")
    assert expected in message
    assert "\n" not in message


# Sizes that nothing could hold, by key.
SIZES: list[tuple[str, Any]] = [
    ("datasets.faces.augment.copies", 10**9),
    ("datasets.faces.size", [10**6, 8]),
    ("datasets.faces.size", [8, 10**30]),
    ("datasets.faces.augment.seed", 2**31),
    ("seeds", [2**40]),
    ("seeds", [10**4000]),
    ("defaults.epochs", 10**9),
    ("defaults.epochs", 10**400),
    ("defaults.batch", 10**9),
    ("defaults.threads", 10**6),
    ("defaults.learning_rate", 10**400),
    ("defaults.learning_rate", float("inf")),
    ("defaults.learning_rate", float("nan")),
]


@pytest.mark.parametrize(("key", "value"), SIZES, ids=range(len(SIZES)))
def test_an_absurd_size_is_refused_by_its_key(key: str, value: Any) -> None:
    tree = small_parameters("embedded")
    *place, last = key.split(".")
    (get_nested(tree, ".".join(place)) if place else tree)[last] = value
    with pytest.raises(InputError) as e:
        check_params(tree)
    message = str(e.value)
    assert message.startswith("params.yaml: ")
    assert last in message
    assert len(message) < 300


def test_what_yaml_1_1_and_1_2_read_alike_is_read() -> None:
    text = "a: [true, False, null, ~, 0, 0x1f, -3, 0.5, 1e-05, .inf, 'no', \"1:30\", x:y, 0.50]"
    inf = float("inf")
    assert parse_yaml(text)["a"] == [
        *(True, False, None, None, 0, 31, -3, 0.5, 1e-05, inf, "no", "1:30", "x:y", 0.5)
    ]
    assert parse_yaml("") is None
    with pytest.raises(yaml.YAMLError):
        parse_yaml("[")
