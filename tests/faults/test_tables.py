"""Bad tables, labels and indexes: each is refused in one line that names it."""

import gzip
import io
import lzma
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from facet.base.config import Dataset, Head
from facet.datasets import labels, normalisation, tables
from facet.datasets.raw_files import read_index
from facet.errors import InputError
from tests.helpers import decode_folder

# A table that all of these are made from.
ROWS = "".join(f"{i},{i % 7}.5,{'ab'[i % 2]}\n" for i in range(40))
GOOD = f"size,weight,kind\n{ROWS}"
SPEC = {
    "source": "embedded",
    "size": None,
    "read": {"keep": ["size"]},
    "heads": {"kind": {"column": "kind"}},
    "group": {},
    "split": {"by": "random"},
    "augment": {},
}


def bad_tables() -> Iterator[tuple[str, bytes, str]]:
    """Names, bytes, and a word of the message that is due."""

    def put(name: str, text: str, expected: str) -> tuple[str, bytes, str]:
        return name, text.encode(), expected

    yield put("empty", "", "not a CSV table")
    yield put("blank", "\n\n\n", "table.csv")
    yield put("header", "size,weight,kind\n", "has no rows")
    for separator in "|: ":
        text = GOOD.replace(",", separator)
        yield put(f"separator_{ord(separator)}", text, f"separated by `{separator}`")
    for i, names in enumerate(("x y,x_y,kind", "x,x,kind", "x, x,kind", "x y,x  y,kind")):
        expected = "are both" if i != 3 else "size"
        yield put(f"columns_{i}", GOOD.replace("size,weight,kind", names), expected)
    yield put("more_cells", GOOD + "1,2,a,4\n", "line 42")
    yield put("more_cells_first", GOOD.replace("0,0.5,a", "0,0.5,a,9"), "more cells")
    yield put("open_quote", GOOD.replace("3,3.5,b", '3,"3.5,b'), "table.csv")
    yield "latin", GOOD.replace("kind", "größe").encode("latin-1"), "not a CSV table"
    yield "utf16", GOOD.encode("utf-16"), "not a CSV table"
    yield "zeros", bytes(2000), "table.csv"
    yield "noise", np.random.default_rng(0).bytes(4000), "not a CSV table"
    yield "null", GOOD.replace("3.5", "3\0").encode(), "no text"
    for number in ("1e308", "-1e308", "1e39", "1.7976931348623157e308"):
        yield put(f"large_{number}", GOOD.replace("0,0.5,", f"0,{number},"), "too large")
    for number in ("inf", "-inf", "1e999", "Infinity"):
        yield put(f"infinite_{number}", GOOD.replace("0,0.5,", f"0,{number},"), "weight")
    for number in ("1,5", "1_000", "0x10", "²", "1.5kg", "--1", "1e", "$5", "50%", "1 000"):
        quoted = GOOD.replace("0,0.5,", f'0,"{number}",')
        yield put(f"number_{number}", quoted, "weight")
    for missing in ("", "?", "NA", "nan", "null", "#N/A"):
        yield put(f"missing_{missing}", GOOD.replace("0,0.5,", f"0,{missing},"), "no weight")
        yield put(f"no_label_{missing}", GOOD.replace("0,0.5,a", f"0,0.5,{missing}"), "no kind")
    yield put("one_class", GOOD.replace("b", "a"), "two classes")
    each = "".join(f"{i},{i % 7}.5,k{i}\n" for i in range(40))
    yield put("each_a_class", f"size,weight,kind\n{each}", "40 classes")
    yield put("no_label_column", GOOD.replace("kind", "sort"), "no column kind")
    yield put("no_size", GOOD.replace("size", "length"), "no column size")
    yield put("few", "size,weight,kind\n1,2,a\n2,3,b\n", "")
    yield put("id", GOOD.replace("weight", "id"), "id (an id by its name)")
    text = GOOD.replace("weight", "note").replace(".5,", "th,")
    yield put("text_column", text, "note (text: ")
    yield put(
        "empty_column",
        "size,weight,kind\n"
        + ROWS.replace(".5", "")
        .replace(",0,", ",,")
        .replace(",1,", ",,")
        .replace(",2,", ",,")
        .replace(",3,", ",,")
        .replace(",4,", ",,")
        .replace(",5,", ",,")
        .replace(",6,", ",,"),
        "weight (empty)",
    )
    counted = "".join(f"{i},{i},{'ab'[i % 2]}\n" for i in range(40))
    yield put("counts", f"size,weight,kind\n{counted}", "weight (counts the rows)")
    yield put("blank_name", GOOD.replace("weight", " "), "")
    yield put("only_label", "kind\n" + "a\nb\n" * 20, "no column size")
    yield put("returns", GOOD.replace("\n", "\r") + "1,2\r", "table.csv")
    yield put("html", "<!doctype html>\n<p>no\n", "")
    yield from other_kinds()
    for i, line in enumerate(("# made by hand\n", "sep=,\n", "Table 1,,\n")):
        expected = ("separated by ` `", "more cells", "no column kind (Table_1, ")[i]
        yield put(f"line_before_{i}", line + GOOD, expected)
    yield put("units", GOOD.replace("kind\n", "kind\nmm,kg,\n"), "weight (text: kg")
    yield put("total", GOOD + "total,99.5,\n", "size (text: total")
    yield put("note", GOOD + "source: my own\n", "size (text: source: my own")
    yield put("header_again", GOOD + GOOD, "weight (text: weight)")
    yield put("other_separator", GOOD + "1;2.5;a\n", "size (text: 1;2.5;a")
    yield put("decimal_comma", GOOD.replace(",", ";").replace(".", ","), "weight (text: 0,5)")
    yield put("row_short", GOOD + "7,2.5\n", "table.csv:41: has no kind")
    yield put("row_of_commas", GOOD + ",,\n", "table.csv:41: has no kind")
    yield put("header_longer", GOOD.replace("kind\n", "kind,\n"), "Unnamed:_3 (empty)")
    yield put(
        "row_numbers",
        "".join(f"{i},{r}\n" for i, r in enumerate(GOOD.split())),
        "0 (counts the rows)",
    )
    yield put("open_quote_first", f'"{GOOD}', "EOF inside string")
    whole_column = {"dates": "2024-01-{:02d}", "times": "12:{:02d}", "percents": "{}.5%"}
    whole_column |= {"euros": "{}.5 €", "dollars": "${}", "yes_no": "no"}
    for name, pattern in whole_column.items():
        lines = "".join(f"{i},{pattern.format(i % 28)},{'ab'[i % 2]}\n" for i in range(40))
        yield put(name, f"size,weight,kind\n{lines}", f"weight (text: {pattern.format(0)}")
    for cell in (
        "#DIV/0!",
        "=A1+B1",
        "−1.5",
        "1-2",
        "<0.5",
        "1+2j",
        "[1 2]",
        "None",
        "½",
        "\u200b1",
    ):
        yield put(f"cell_{cell}", GOOD.replace("0,0.5,", f"0,{cell},"), "weight (text: ")
    for digits in (400, 5000):
        text = GOOD.replace("0,0.5,", f"0,{'9' * digits},")
        yield put(f"digits_{digits}", text, "weight is not finite")
    for i, hidden in enumerate(("\x1b[2J", "b\u200b", "b\xad", "b\xa0c", "\u202eb", "\ue000")):
        label = GOOD.replace("0,0.5,a", f"0,0.5,{hidden}")
        yield put(f"label_hidden_{i}", label, "has a character that does not show")
    yield put("label_lines", GOOD.replace("0,0.5,a", '0,0.5,"a\nb"'), r"heads.kind: 'a\nb' has a")
    yield put("label_wide_blank", GOOD.replace("0,0.5,a", "0,0.5,\u3000"), "has no kind")
    yield put("label_long", GOOD.replace("0,0.5,a", "0,0.5," + "a" * 30_000), "30,000 characters")
    yield put("all_labels_gone", GOOD.replace(",a", ",").replace(",b", ","), "40 of 40 lack")
    yield put("label_named_twice", GOOD.replace("size,weight", "size,kind"), "are both kind")
    yield put("named_often", GOOD.replace("size,weight", ",".join(["n"] * 500)), "are both n")
    yield put("name_long", GOOD.replace("weight", "w" * 200_000), "not a CSV table")
    names, cells = ",".join(f"c{i}" for i in range(3000)), ",".join(["x"] * 3000)
    yield put("many_columns", f"{names}\n{cells}\n{cells}\n", "no column kind (c0, c1, ")
    text = f"size,kind,{names}\n1,a,{cells}\n2,b,{cells}\n"
    yield put("many_text_columns", text, "and 2980 more")
    yield put("one_item", "size,weight,kind\n" + "1,2.5,a\n1,2.5,b\n" * 20, "too few groups (1)")
    yield "surrogate", GOOD.encode().replace(b"0.5,a", b"0.5,\xed\xa0\x80"), "not a CSV table"
    yield "overlong", GOOD.encode().replace(b"0.5,a", b"0.5,\xc0\xaf"), "not a CSV table"


def other_kinds() -> Iterator[tuple[str, bytes, str]]:
    """Files of other programs, and tables in other forms, that are called .csv."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("xl/worksheets/sheet1.xml", "<x/>")
    yield "xlsx", file.getvalue(), "no text"
    yield "gzip", gzip.compress(GOOD.encode()), "not a CSV table"
    yield "xz", lzma.compress(GOOD.encode()), "not a CSV table"
    yield "parquet", b"PAR1" + bytes(40) + b"PAR1", "no text"
    yield "feather", b"ARROW1\0\0" + bytes(40), "no text"
    yield "sqlite", b"SQLite format 3\0" + bytes(80), "no text"
    yield "utf32", GOOD.encode("utf-32"), "not in UTF-8"
    yield "shift_jis", GOOD.replace("kind", "種類").encode("shift-jis"), "not a CSV table"
    row = '{"size": 1, "weight": 2, "kind": "a"}'
    yield "json", f"[{', '.join([row] * 9)}]\n".encode(), "are both"
    yield "json_lines", f"{row}\n".encode() * 9, "no column kind"
    yield "xml", b'<?xml version="1.0"?>\n<table><row/></table>\n', "separated by ` `"
    yield "yaml", b"- size: 1\n  weight: 2\n" * 9, "separated by `:`"
    yield "markdown", b"| size | weight |\n|---|---|\n| 1 | 2 |\n", "separated by `|`"
    yield "latex", b"1 & 2 & a \\\\\n" * 9, "separated by ` `"
    yield "libsvm", b"1 1:0.5 2:3\n2 1:0.7\n" * 9, "separated by `:`"
    yield "arff", b"@relation x\n@attribute size numeric\n@data\n1\n", "separated by ` `"
    yield "fixed_widths", b"size   weight kind\n" + b"1      2.5    a\n" * 9, "separated by ` `"


BAD = list(bad_tables())


def test_there_are_eighty() -> None:
    assert len({content for _, content, _ in BAD}) >= 80


@pytest.mark.parametrize(("name", "content", "expected"), BAD, ids=[name for name, _, _ in BAD])
def test_a_bad_table_is_refused_in_a_line(
    tmp_path: Path, name: str, content: bytes, expected: str
) -> None:
    (tmp_path / "table.csv").write_bytes(content)
    spec = Dataset.model_validate(SPEC)
    with pytest.raises(InputError) as e:
        normalisation.normalise(decode_folder(tmp_path), "t", spec)
    message = str(e.value)
    assert expected in message
    assert "\n" not in message
    assert len(message) < 500


def test_the_table_these_are_made_from_is_good(tmp_path: Path) -> None:
    for text in (GOOD, GOOD.replace(",", ";"), GOOD.replace(",", "\t"), "\ufeff" + GOOD):
        (tmp_path / "table.csv").write_text(text, encoding="utf-8")
        (data,) = normalisation.normalise(
            decode_folder(tmp_path), "t", Dataset.model_validate(SPEC)
        )
        assert data.classes["kind"].tolist() == ["a", "b"]


ENDS = ["\n", "\r", "\x1b[2J", "\x85", "\u2028", "\x07", "y" * 90_000]


@pytest.mark.parametrize("end", ENDS, ids=range(len(ENDS)))
def test_the_name_of_a_column_breaks_no_line(tmp_path: Path, end: str) -> None:
    text = GOOD.replace("size", f'"si{end}ze"')
    (tmp_path / "table.csv").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match="no column size") as e:
        normalisation.normalise(decode_folder(tmp_path), "t", Dataset.model_validate(SPEC))
    assert str(e.value).isprintable()
    assert len(str(e.value)) <= 1000


def test_a_separator_in_quotes_is_none(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('"a;b",c,d\n1,2,3\n')
    assert list(tables.read_columns(tmp_path / "a.csv")) == ["a;b", "c", "d"]


# --- labels ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "classes"),
    [
        (["1234567", "1234568"], ["1234567", "1234568"]),
        (["01", "1"], ["01", "1"]),
        (["1", "01", "10", "2"], ["01", "1", "2", "10"]),
        ([" a", "a", "b ", "b"], ["a", "b"]),
        (["²", "1"], ["1", "²"]),
        (["٣", "1"], ["1", "٣"]),
        (["9" * 5000, "1"], ["1", "9" * 5000]),
        (["1e3", "1000"], ["1000", "1e3"]),
        (["0", "00"], ["0", "00"]),
        (["-1", "1"], ["-1", "1"]),
        (["True", "true"], ["True", "true"]),
    ],
    ids=str,
)
def test_a_label_is_the_text_it_was(written: list[str], classes: list[str]) -> None:
    found, index = labels.make_labels("h", Head(column="k"), {"k": np.array(written)})
    assert found.tolist() == classes
    assert found[index].tolist() == [w.strip() for w in written]


# --- indexes -----------------------------------------------------------------------------------


BAD_INDEXES = [
    ("", "no column `files`"),
    ("file\na.png\n", "no column `files`"),
    ("files\n", "lists no files"),
    ("files\n\n\n", "lists no files"),
    ("files\n../a.png\n", "plain relative"),
    ("files\n/a.png\n", "plain relative"),
    ("files\nx\\a.png\n", "plain relative"),
    ("files\na\0.png\n", "plain relative"),
    ("files\na.exe\n", "no ending"),
    ("files\nimages/\n", "no ending"),
    ("files\n" + "".join(f"{i}.png\n" for i in range(60_000)) + "7.png\n", "7.png is listed"),
    ("<!doctype html>\n", "no column `files`"),
    ("files\n" + "a" * 200_000 + ".png\n", "index.csv"),
]


@pytest.mark.parametrize(("text", "expected"), BAD_INDEXES, ids=range(len(BAD_INDEXES)))
def test_a_bad_index_is_refused_in_a_line(text: str, expected: str) -> None:
    with pytest.raises(InputError, match=r"^index\.csv: ") as e:
        read_index(text, "index.csv")
    assert expected in str(e.value)
    assert "\n" not in str(e.value)
