"""Sources of every form are fetched whole or refused in one line."""

import contextlib
import hashlib
import io
import json
import re
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tenacity

from facet.base.config import read_params
from facet.datasets import sources
from facet.errors import InputError
from tests.helpers import ROOT, SHARED, decode_folder, draw_faces, words_of


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two tries of one file nothing is waited for here."""
    monkeypatch.setattr(tenacity.nap, "time", SimpleNamespace(sleep=lambda _: None))


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
    with pytest.raises(InputError, match=f"/images/{names[-1]}: "):
        fetch(url, tmp_path)
    got = [p for p in handler.seen if p.endswith(".png")]
    assert got.count(f"/images/{names[-1]}") == 5
    handler.faults.clear()
    handler.seen.clear()
    sources.download("faces", url, tmp_path / "raw", tmp_path / "cache")
    again = {p for p in handler.seen if p.endswith(".png")} - {f"/images/{names[0]}"}
    assert len(got) >= len(names)
    assert len(again) < len(names) / 2
    assert len(list((tmp_path / "raw/images").iterdir())) == len(names)


@pytest.mark.parametrize(
    ("index", "named"),
    [
        ("file\na.png\n", {"files"}),
        ("", {"files"}),
        ("files\n", {"files"}),
        ("files\n../a.png\n", {"../a.png"}),
        ("files\n/etc/passwd.png\n", {"/etc/passwd.png"}),
        ("files\na.png\na.png\n", {"a.png", "twice"}),
        ("files\na.exe\n", {"a.exe"}),
    ],
)
def test_a_bad_index_is_refused(tmp_path: Path, index: str, named: set[str]) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source/files_list.csv").write_text(index)
    for name in ("a.png", "a.exe"):
        (tmp_path / "source" / name).write_bytes(b"there")
    (tmp_path / "a.png").write_bytes(b"outside")
    source = (tmp_path / "source").as_uri()
    with pytest.raises(InputError, match=f"^{source}/files_list\\.csv: ") as e:
        fetch(source, tmp_path)
    # Without the dots that a message's end would take off.
    assert {n.strip(".") for n in named} <= words_of(e.value)


def test_a_missing_file_is_named(tmp_path: Path, serve: Any) -> None:
    names = draw_faces(tmp_path / "source")
    (tmp_path / "source/images" / names[5]).unlink()
    url, handler = serve(tmp_path / "source")
    with pytest.raises(InputError, match=f"^{url}/images/{names[5]}: "):
        fetch(url, tmp_path)
    assert handler.seen.count(f"/images/{names[5]}") == 1  # asking again would bring nothing


@pytest.mark.parametrize(
    ("source", "named"),
    [
        ("file:///nowhere/at/all", "nowhere/at/all"),
        ("http://127.0.0.1:9/faces", "http://127.0.0.1:9/faces/files_list.csv"),
        ("nonsense://x/y.csv", "nonsense://x/y.csv"),
        ("file:///nowhere/x.csv#sha256=12", "file:///nowhere/x.csv#sha256=12"),
    ],
)
def test_an_unusable_source_is_refused(tmp_path: Path, source: str, named: str) -> None:
    with pytest.raises(InputError, match=f"{re.escape(named)}: "):
        fetch(source, tmp_path)


def test_embedded_data_of_another_name(tmp_path: Path) -> None:
    folder, _ = fetch("embedded:wine", tmp_path, "drinks")
    assert (folder / "wine_quality.csv").exists()
    (tmp_path / "other").mkdir()
    with pytest.raises(InputError, match="no embedded data named plants"):
        fetch("embedded:plants", tmp_path / "other", "wine")


def test_embedded_data_of_an_unknown_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"datasets\.plants\.source: "):
        fetch("embedded", tmp_path, "plants")


def test_a_pinned_file_must_have_its_sha256(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b\n1,2\n")
    right = hashlib.sha256(b"a,b\n1,2\n").hexdigest()
    folder, _ = fetch(f"{(tmp_path / 't.csv').as_uri()}#sha256={right}", tmp_path)
    assert (folder / "t.csv").exists()
    (tmp_path / "b").mkdir()
    with pytest.raises(InputError, match=f"t.csv: .*{right}.*params\\.yaml"):
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


def test_tables_beside_images_are_kept_and_hidden_files_are_not(tmp_path: Path, serve: Any) -> None:
    members = dict.fromkeys(("x/a.png", "x/labels.csv", "x/.b.png", "__MACOSX/x/._a.png"), b"?")
    archive(tmp_path / "x.zip", members)
    folder, manifest = fetch((tmp_path / "x.zip").as_uri(), tmp_path)
    assert [f["name"] for f in manifest["files"]] == ["x/a.png", "x/labels.csv"]
    assert manifest["left_out"] == ["__MACOSX/x/._a.png", "x/.b.png"]
    assert sorted(p.name for p in folder.rglob("*") if p.is_file()) == ["a.png", "labels.csv"]
    (tmp_path / "b").mkdir()
    archive(tmp_path / "source.tar.gz", members)
    with tarfile.open(tmp_path / "source.tar.gz") as t:
        # Python 3.11.2 knows no `filter`, later ones want it.
        options: Any = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
        t.extractall(tmp_path / "source", **options)
    folder, _ = fetch((tmp_path / "source").as_uri(), tmp_path / "b")
    kept = sorted(p.name for p in folder.rglob("*") if p.is_file())
    assert kept == ["a.png", "labels.csv"]


@pytest.mark.parametrize("web", [False, True])
def test_an_index_with_labels_is_kept(tmp_path: Path, serve: Any, web: bool) -> None:
    names = draw_faces(tmp_path / "source")
    index = tmp_path / "source/files_list.csv"
    text = "".join(f"{name},{i % 2}\n" for i, name in enumerate(names))
    index.write_text(f"files,kind\n{text}")
    source = serve(tmp_path / "source")[0] if web else (tmp_path / "source").as_uri()
    folder, manifest = fetch(source, tmp_path)
    assert (folder / "files_list.csv").read_text() == index.read_text()
    listed = [f["name"] for f in manifest["files"]]
    assert listed == ["files_list.csv", *sorted(f"images/{n}" for n in names)]
    kinds = decode_folder(folder).columns["kind"].tolist()
    assert kinds == [i % 2 for _, i in sorted((n, i) for i, n in enumerate(names))]


def test_a_missing_folder_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^file:///nowhere/at/all: not found$"):
        fetch("file:///nowhere/at/all", tmp_path)


@pytest.mark.parametrize("ending", ["tar.gz", "zip"])
def test_an_archive_cannot_write_outside(tmp_path: Path, ending: str) -> None:
    """Such a file is refused or kept inside: either is safe."""
    path = tmp_path / f"bad.{ending}"
    (inside := tmp_path / "a/b/c").mkdir(parents=True)
    names = [f"{'../' * up}outside{up}.csv" for up in range(1, 6)]
    for name in [*names, f"{tmp_path}/outside.csv"]:
        archive(path, {name: b"x\n1\n", "good.csv": b"x\n1\n"})
        with contextlib.suppress(InputError):
            fetch(path.as_uri(), inside)
        shutil.rmtree(inside / "raw")
        shutil.rmtree(inside / "cache" / hashlib.sha256(path.as_uri().encode()).hexdigest()[:16])
        assert list(tmp_path.rglob("outside*")) == [], name


def test_a_link_in_an_archive_is_no_data(tmp_path: Path) -> None:
    (tmp_path / "secret.csv").write_text("secret\n1\n")
    path = tmp_path / "a.tar.gz"
    with tarfile.open(path, "w:gz") as t:
        link = tarfile.TarInfo("link.csv")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path / "secret.csv")
        t.addfile(link)
        good = tarfile.TarInfo("good.csv")
        good.size = 4
        t.addfile(good, io.BytesIO(b"x\n1\n"))
    folder, _ = fetch(path.as_uri(), tmp_path)
    assert [p.name for p in folder.iterdir()] == ["good.csv"]


def test_a_cut_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tar.gz"
    archive(path, {f"{i}.csv": bytes(range(256)) * 40 for i in range(20)})
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(InputError, match=r"^a\.tar\.gz: "):
        fetch(path.as_uri(), tmp_path)
    assert not list((tmp_path / "raw").iterdir())


@pytest.mark.shared
def test_uci_faces_are_unpacked_and_bad_files_counted(
    tmp_path: Path, serve: Callable[..., Any]
) -> None:
    url, _ = serve(SHARED / "uci")
    _, manifest = fetch(f"{url}/faces.tar.gz", tmp_path)
    assert len(manifest["files"]) == 1872
    assert len(manifest["left_out"]) == 7
    assert {Path(n).suffix for n in manifest["left_out"]} == {".bad"}


def test_the_course_setting_asks_for_no_ranges(tmp_path: Path, serve: Callable[..., Any]) -> None:
    """Its faces are an archive within a zip, on a web server that may send whole files alone."""
    published = read_params(ROOT / "settings/class.yaml")["datasets"]["faces"]["source"]
    chain, _, _ = published.rpartition("https://")
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w:gz") as tar:
        for name in ("faces/a/a_left.pgm", "faces/a/a_left.bad"):
            member = tarfile.TarInfo(name)
            member.size = 4
            tar.addfile(member, io.BytesIO(b"P5 1"))
    (tmp_path / "web").mkdir()
    with zipfile.ZipFile(tmp_path / "web/faces.zip", "w") as outer:
        outer.writestr("faces.tar.gz", inner.getvalue())
    url, _ = serve(tmp_path / "web")
    _, manifest = fetch(f"{chain}{url}/faces.zip", tmp_path)
    assert [f["name"] for f in manifest["files"]] == ["faces/a/a_left.pgm"]
    assert manifest["left_out"] == ["faces/a/a_left.bad"]


@pytest.mark.shared
def test_the_real_faces_over_http_and_from_disk_are_the_same(
    tmp_path: Path, serve: Callable[..., Any]
) -> None:
    url, _ = serve(SHARED / "faces")
    _, web = fetch(url, tmp_path)
    (tmp_path / "b").mkdir()
    _, disk = fetch((SHARED / "faces").as_uri(), tmp_path / "b")
    assert len(web["files"]) == 624
    assert json.dumps(web) == json.dumps(disk)
