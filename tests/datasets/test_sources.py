"""Sources of every form are fetched whole or refused in one line."""

import hashlib
import io
import json
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from facet.datasets import sources
from facet.errors import InputError
from tests.helpers import draw_faces


def fetch(source: Any, tmp_path: Path, name: str = "faces") -> tuple[Path, dict[str, Any]]:
    folder = tmp_path / "raw"
    folder.mkdir()
    return folder, sources.download(name, source, folder, tmp_path / "cache")


def test_a_web_folder_comes_whole_with_a_true_manifest(tmp_path: Path, serve: Any) -> None:
    names = draw_faces(tmp_path / "source")
    url, _ = serve(tmp_path / "source", {f"/images/{names[3]}": 2})  # answered 503 twice
    folder, manifest = fetch(url, tmp_path)
    assert sorted(f["name"] for f in manifest["files"]) == sorted(f"images/{n}" for n in names)
    for file in manifest["files"]:
        content = (folder / file["name"]).read_bytes()
        assert content == (tmp_path / "source" / file["name"]).read_bytes()
        assert file["sha256"] == hashlib.sha256(content).hexdigest()
        assert file["bytes"] == len(content)


def test_a_local_folder_gives_the_same_and_without_index_is_listed(tmp_path: Path) -> None:
    names = draw_faces(tmp_path / "source")
    (tmp_path / "source/notes.txt").write_text("?")
    _, indexed = fetch((tmp_path / "source").as_uri(), tmp_path)
    (tmp_path / "source/files_list.csv").unlink()
    (tmp_path / "b").mkdir()
    _, listed = fetch((tmp_path / "source").as_uri(), tmp_path / "b")
    assert len(indexed["files"]) == len(listed["files"]) == len(names)
    assert listed["left_out"] == ["notes.txt"]


def test_a_download_cut_off_goes_on_where_it_was(tmp_path: Path, serve: Any) -> None:
    names = draw_faces(tmp_path / "source")
    url, handler = serve(tmp_path / "source", {f"/images/{names[-1]}": 99})
    with pytest.raises(InputError, match=f"{names[-1]}: .* after 5 tries"):
        fetch(url, tmp_path)
    got = [p for p in handler.seen if p.endswith(".png")]
    handler.faults.clear()
    handler.seen.clear()
    sources.download("faces", url, tmp_path / "raw", tmp_path / "cache")
    again = {p for p in handler.seen if p.endswith(".png")} - {f"/images/{names[0]}"}
    assert len(got) >= len(names)
    assert len(again) < len(names) / 2
    assert len(list((tmp_path / "raw/images").iterdir())) == len(names)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ("file\na.png\n", "no column `files`"),
        ("", "no column `files`"),
        ("files\n", "lists no files"),
        ("files\n../a.png\n", "not a plain relative file name"),
        ("files\n/etc/passwd\n", "not a plain relative file name"),
        ("files\na.png\na.png\n", "a.png is listed twice"),
        ("files\na.exe\n", "no ending of a known kind"),
    ],
)
def test_a_bad_index_is_refused(tmp_path: Path, index: str, message: str) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source/files_list.csv").write_text(index)
    with pytest.raises(InputError, match=f"files_list.csv: .*{message}"):
        fetch((tmp_path / "source").as_uri(), tmp_path)


def test_a_missing_file_is_named(tmp_path: Path, serve: Any) -> None:
    names = draw_faces(tmp_path / "source")
    (tmp_path / "source/images" / names[5]).unlink()
    url, _ = serve(tmp_path / "source")
    with pytest.raises(InputError, match=f"{names[5]}: not found"):
        fetch(url, tmp_path)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("file:///nowhere/at/all", "nowhere/at/all"),
        ("http://127.0.0.1:9/faces", "files_list.csv"),
        ("nonsense://x/y.csv", "nonsense"),
        ("file:///nowhere/x.csv#sha256=12", "64 hexadecimal digits"),
    ],
)
def test_an_unusable_source_is_refused(tmp_path: Path, source: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        fetch(source, tmp_path)


def test_embedded_data_of_an_unknown_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no embedded data named plants"):
        fetch("embedded", tmp_path, "plants")


def test_a_pinned_file_must_have_its_sha256(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b\n1,2\n")
    right = hashlib.sha256(b"a,b\n1,2\n").hexdigest()
    folder, _ = fetch(f"{(tmp_path / 't.csv').as_uri()}#sha256={right}", tmp_path)
    assert (folder / "t.csv").exists()
    (tmp_path / "b").mkdir()
    with pytest.raises(InputError, match="SHA-256 is"):
        fetch(f"{(tmp_path / 't.csv').as_uri()}#sha256={'0' * 64}", tmp_path / "b")


def archive(path: Path, members: dict[str, bytes]) -> None:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as z:
            for name, content in members.items():
                z.writestr(name, content)
    else:
        with tarfile.open(path, "w:gz") as t:
            for name, content in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                t.addfile(info, io.BytesIO(content))


@pytest.mark.parametrize("ending", ["tar.gz", "zip"])
def test_an_archive_is_unpacked_without_what_is_no_data(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"wine.{ending}"
    archive(path, {"a.csv": b"x;y\n1;2\n", "b.csv": b"x;y\n3;4\n", "wine.names": b"text"})
    folder, manifest = fetch(path.as_uri(), tmp_path)
    assert sorted(p.name for p in folder.iterdir()) == ["a.csv", "b.csv"]
    assert manifest["left_out"] == ["wine.names"]


@pytest.mark.parametrize("ending", ["tar.gz", "zip"])
def test_an_archive_cannot_write_outside(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"evil.{ending}"
    inside = tmp_path / "inside"
    inside.mkdir()
    archive(path, {"../../evil.csv": b"x\n1\n", "good.csv": b"x\n1\n"})
    try:
        fetch(path.as_uri(), inside)
    except InputError as e:
        assert "archive" in str(e)  # noqa: PT017  either is safe: refused or kept inside
    assert not list(tmp_path.glob("evil.csv"))
    assert not list(tmp_path.parent.glob("evil.csv"))


def test_a_cut_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tar.gz"
    archive(path, {f"{i}.csv": bytes(range(256)) * 40 for i in range(20)})
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(InputError, match=r"a.tar.gz: not a whole archive"):
        fetch(path.as_uri(), tmp_path)


def test_uci_faces_are_unpacked_and_bad_files_counted(
    tmp_path: Path, shared: Path, serve: Callable[..., Any]
) -> None:
    url, _ = serve(shared / "uci")
    _, manifest = fetch(f"{url}/faces.tar.gz", tmp_path)
    assert len(manifest["files"]) == 1872
    assert len(manifest["left_out"]) == 7
    assert {Path(n).suffix for n in manifest["left_out"]} == {".bad"}


def test_the_real_faces_over_http_and_from_disk_are_the_same(
    tmp_path: Path, shared: Path, serve: Callable[..., Any]
) -> None:
    url, _ = serve(shared / "faces")
    _, web = fetch(url, tmp_path)
    (tmp_path / "b").mkdir()
    _, disk = fetch((shared / "faces").as_uri(), tmp_path / "b")
    assert len(web["files"]) == 624
    assert json.dumps(web) == json.dumps(disk)
