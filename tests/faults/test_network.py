"""A web server's faults: each is borne, or told in one line that names the file."""

import contextlib
import gzip
import http.server
import io
import re
import shutil
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from email.utils import formatdate
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
import tenacity

from facet.base.config import check_params
from facet.datasets import sources
from facet.errors import InputError
from tests.helpers import small_parameters

ROWS = b"x,y\n" + b"1,2\n" * 2000
Answer = Callable[["Scripted"], None]


class Scripted(http.server.BaseHTTPRequestHandler):
    """Answers /data/files_list.csv and /data/a.csv, the second by a list of answers."""

    answers: list[Answer]
    requests: list[str]
    says = len(ROWS)  # how long the file is, to who asks beforehand

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(self.says))
        self.end_headers()

    def do_GET(self) -> None:
        self.requests.append(self.path)
        if self.path.endswith("files_list.csv"):
            return give(b"files\na.csv\n")(self)
        if "/images/" in self.path:  # is it there that they are?
            return give(b"", 404)(self)
        number = len([p for p in self.requests if re.search("/data/[ab].csv", p)]) - 1
        with contextlib.suppress(OSError):  # who asked has gone
            self.answers[min(number, len(self.answers) - 1)](self)
        return None

    def log_message(self, *_: Any) -> None:
        pass


def give(content: bytes, status: int = 200, length: int | None = None, **headers: str) -> Answer:
    """Answer with this, and say that it is `length` bytes long."""

    def answer(handler: Scripted) -> None:
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(content) if length is None else length))
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(content)
        handler.close_connection = True

    return answer


def send(content: bytes) -> Answer:
    """Send these bytes and no more, whatever HTTP says."""

    def answer(handler: Scripted) -> None:
        handler.wfile.write(content)
        handler.close_connection = True

    return answer


def be_silent(handler: Scripted) -> None:
    time.sleep(1.5)


def drip(handler: Scripted) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(ROWS)))
    handler.end_headers()
    for i in range(20):
        handler.wfile.write(ROWS[i : i + 1])
        handler.wfile.flush()
        time.sleep(0.05)


def flood(handler: Scripted) -> None:
    handler.send_response(200)
    handler.end_headers()
    while True:
        handler.wfile.write(bytes(2**20))


GOOD = give(ROWS)
PAGE = give(b"\xef\xbb\xbf\n<!DOCTYPE html><title>Sign in</title>" + bytes(99))
OK = b"HTTP/1.1 200 OK\r\n"
# What a server does, and the answer that is due: "" where all comes in the end.
FAULTS: dict[str, tuple[list[Answer], str]] = {
    **{f"once_{s}": ([give(b"", s), GOOD], "") for s in (408, 425, 429, 500, 502, 503, 504, 599)},
    **{f"always_{s}": ([give(b"", s)], f"after 5 tries: {s}") for s in (429, 500, 503)},
    **{
        f"{s}": ([give(b"", s)], f"ClientResponseError: {s}")
        for s in (400, 401, 403, 410, 418, 451)
    },
    "404": ([give(b"", 404)], "not found"),
    "four_times_503": ([*[give(b"", 503)] * 4, GOOD], ""),
    "cut_once": ([give(ROWS[:99], length=len(ROWS)), GOOD], ""),
    "cut_always": ([give(ROWS[:99], length=len(ROWS))], "after 5 tries"),
    "empty_once": ([give(b""), GOOD], ""),
    "empty": ([give(b"")], "after 5 tries: no bytes came"),
    "closed_once": ([send(b""), GOOD], ""),
    "closed": ([send(b"")], "after 5 tries"),
    "no_http": ([send(b"SSH-2.0-OpenSSH_9\r\n")], "a.csv: "),
    "half_a_status": ([send(b"HTTP/1.1 2")], "a.csv: "),
    "bad_length": ([send(OK + b"Content-Length: x\r\n\r\n")], "a.csv: "),
    "minus_length": ([send(OK + b"Content-Length: -4\r\n\r\n")], "a.csv: "),
    "bad_chunk": ([send(OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n")], "a.csv: "),
    "half_a_chunk": ([send(OK + b"Transfer-Encoding: chunked\r\n\r\nff\r\nabc")], "after 5 tries"),
    "long_header": ([send(OK + b"X: " + b"a" * 100_000 + b"\r\n\r\n")], "a.csv: "),
    "bad_gzip": ([give(b"no gzip", Content_Encoding="gzip")], "a.csv: "),
    "good_gzip": ([give(gzip.compress(ROWS), Content_Encoding="gzip")], ""),
    "page": ([PAGE], "a web page instead"),
    "page_once_503": ([give(b"", 503), PAGE], "a web page instead"),
    "to_itself": ([give(b"", 302, Location="a.csv")], "TooManyRedirects"),
    "to_nowhere": ([give(b"", 302, Location="http://127.0.0.1:9/x")], "after 5 tries"),
    "to_a_file": ([give(b"", 302, Location="file:///etc/passwd")], "a.csv: "),
    "silent": ([be_silent], "after 5 tries"),
    "silent_once": ([be_silent, GOOD], ""),
    "drip": ([drip], "fewer than 1000 bytes a second"),
    "drip_once": ([drip, GOOD], ""),
    "flood": ([flood], "more than 0.05 GB"),
}


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[list[Answer]], Any]]:
    """Serve by a script; nothing is waited for between two tries, and limits are small."""
    waits: list[float] = []
    monkeypatch.setattr(tenacity.nap, "time", SimpleNamespace(sleep=waits.append))
    client = sources.HTTP["client_kwargs"]
    monkeypatch.setitem(client, "timeout", aiohttp.ClientTimeout(sock_connect=5, sock_read=0.6))
    monkeypatch.setattr(sources, "SLOW_SECONDS", 0.3)
    monkeypatch.setattr(sources, "LEAST_RATE", 1000)
    monkeypatch.setattr(sources, "USUAL_BYTES", 50_000_000)
    servers = []

    def start(answers: list[Answer], **more: Any) -> Any:
        requests: list[str] = []
        handler = type("S", (Scripted,), {"answers": answers, "requests": requests, **more})
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        url = f"http://127.0.0.1:{server.server_port}/data"
        return SimpleNamespace(url=url, requests=requests, waits=waits)

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def fetch(url: str, tmp_path: Path) -> bytes:
    (folder := tmp_path / "raw").mkdir()
    sources.download("t", url, folder, tmp_path / "cache")
    return (folder / "a.csv").read_bytes()


def test_there_are_forty() -> None:
    assert len(FAULTS) >= 40


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_borne_or_told(tmp_path: Path, served: Any, name: str) -> None:
    answers, expected = FAULTS[name]
    server = served(answers)
    if not expected:
        assert fetch(server.url, tmp_path) == ROWS
        return
    with pytest.raises(InputError) as e:
        fetch(server.url, tmp_path)
    message = str(e.value)
    assert expected in message
    assert message.startswith(f"{server.url}/a.csv: ")
    assert "\n" not in message
    assert len(message) <= 400
    # "after 5 tries" is said of what was tried five times.
    tries = server.requests.count("/data/a.csv")
    if "after 5 tries" in message:
        assert tries in (5, 10)  # the client itself asks twice where a server hangs up
    elif name != "to_itself":
        assert tries <= 2
    assert not list((tmp_path / "raw").iterdir())


@pytest.mark.parametrize(
    ("retry_after", "waited"),
    [("7", 7), ("0", 0), ("9999", sources.LONGEST_WAIT), ("soon", None), ("-3", None)],
)
def test_a_server_that_asks_for_time_gets_it(
    tmp_path: Path, served: Any, retry_after: str, waited: float | None
) -> None:
    server = served([give(b"", 503, Retry_After=retry_after), GOOD])
    fetch(server.url, tmp_path)
    (wait,) = server.waits
    assert wait == waited if waited is not None else 0 < wait < 2


def test_a_server_may_ask_for_time_by_a_date(tmp_path: Path, served: Any) -> None:
    server = served([give(b"", 429, Retry_After=formatdate(time.time() + 30, usegmt=True)), GOOD])
    fetch(server.url, tmp_path)
    assert 25 < server.waits[0] <= 30


def test_nobody_listening_is_told_as_that(tmp_path: Path, served: Any) -> None:
    for name in ("", "/a.csv"):
        (folder := tmp_path / f"x{len(name)}").mkdir()
        with pytest.raises(InputError, match="ClientConnectorError after 5 tries: Cannot connect"):
            fetch(f"http://127.0.0.1:9/data{name}", folder)


def test_a_file_larger_than_expected_does_not_come(tmp_path: Path, served: Any) -> None:
    server = served([give(b"x,y\n", length=10**9)], says=10**9)
    with pytest.raises(InputError, match=r"a\.csv: more than 0\.05 GB; .* add #most=1GB"):
        fetch(f"{server.url}/a.csv", tmp_path)


def test_the_outer_file_of_a_chain_is_bounded_and_told(tmp_path: Path, served: Any) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("a.csv", ROWS)
    server = served([give(b"", 503), give(packed.getvalue())], says=len(packed.getvalue()))
    for cache in ("", "simplecache::"):
        (folder := tmp_path / f"x{cache[:1]}").mkdir()
        assert fetch(f"zip://a.csv::{cache}{server.url}/a.csv", folder) == ROWS
    large, page = bytes(60_000_000), b"<!doctype html><p>Log in"
    for i, (content, says, expected) in enumerate(
        (
            (b"PK", 10**9, r"more than 0\.05 GB; .* add #most=1GB"),
            (large, 1000, r"more than 0\.05 GB; .* add #most=1GB"),
            (page, len(page), "a web page instead of the file"),
            (b"no zip", 6, "not a zip file"),
        )
    ):
        server = served([give(content, length=max(says, len(content)))], says=says)
        (folder := tmp_path / str(i)).mkdir()
        with pytest.raises(InputError, match=rf"a\.csv: .*{expected}"):
            fetch(f"zip://a.csv::{server.url}/a.csv", folder)
        assert sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) < 52_000_000


@pytest.mark.parametrize("chain", ["", "zip://b.zip::"])
def test_an_archive_that_the_server_repairs_is_fetched_again(
    tmp_path: Path, served: Any, chain: str
) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("a.csv", ROWS)
    inner = packed.getvalue()
    if chain:
        with zipfile.ZipFile(packed := io.BytesIO(), "w") as archive:
            archive.writestr("b.zip", inner)
    whole = packed.getvalue()
    answers = [give(bytes(len(whole)))]
    server = served(answers, says=len(whole))
    with pytest.raises(InputError, match=r"b\.zip"):
        fetch(f"{chain}{server.url}/b.zip", tmp_path)
    answers[0] = give(whole)
    shutil.rmtree(tmp_path / "raw")
    assert fetch(f"{chain}{server.url}/b.zip", tmp_path) == ROWS


# --- secrets -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "source",
    [
        "https://me:hunter2@example.org/x.zip",
        "https://hunter2@example.org/x.zip",
        "https://example.org/x.zip?token=hunter2",
        "https://example.org/x.zip?a=1&X-Amz-Signature=hunter2",
        "https://example.org/x.zip?api_key=hunter2",
        "zip://a.csv::https://me:hunter2@example.org/x.zip",
        "ftp://me:hunter2@example.org/x.csv",
    ],
)
def test_a_secret_in_an_address_is_refused_and_not_repeated(source: str) -> None:
    tree = small_parameters("embedded")
    name = next(iter(tree["datasets"]))
    tree["datasets"][name]["source"] = source
    with pytest.raises(InputError, match=rf"datasets\.{name}\.source: holds a password") as e:
        check_params(tree)
    assert "hunter2" not in str(e.value)


def test_where_a_server_leads_to_is_told_without_its_signature(tmp_path: Path, served: Any) -> None:
    answers = [give(b"", 302, Location="/data/b.csv?X-Amz-Signature=hunter2"), give(b"", 403)]
    with pytest.raises(InputError, match="403") as e:
        fetch(served(answers).url, tmp_path)
    assert "hunter2" not in str(e.value)


def test_a_password_of_netrc_is_used_and_told_to_nobody(
    tmp_path: Path, served: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = []

    def ask(handler: Scripted) -> None:
        heard.append(handler.headers.get("Authorization"))
        give(b"", 403)(handler)

    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password hunter2\n")
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with pytest.raises(InputError, match="403") as e:
        fetch(served([ask]).url, tmp_path)
    assert re.match("Basic ", heard[0])
    assert "hunter2" not in str(e.value)


def test_an_address_says_what_it_may_bring() -> None:
    pin = "a" * 64
    assert sources.parse_source(f"s3://a/b#x.csv#sha256={pin}&most=50GB") == sources.Address(
        "s3://a/b#x.csv", pin, 50 * 10**9
    )
    for bad in ("#sha256=12", "#most=50", "#most=0GB", "#most=5GB&x=1", f"#sha256={pin}&most=-1GB"):
        with pytest.raises(InputError, match=r"^file:///a\.csv#"):
            sources.parse_source("file:///a.csv" + bad)
