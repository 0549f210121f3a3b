"""Downloads from a server on this machine that misbehaves in every way a server does."""

import hashlib
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from filelock import FileLock

from musc_jax.storage.download import DownloadError, download

CONTENT = bytes(range(256)) * 4000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Server(BaseHTTPRequestHandler):
    """What it does is told by the path; what it was asked is kept by the server."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.server.asked.append((self.path, dict(self.headers)))
        getattr(self, "serve_" + self.path.strip("/").split("/")[0])()

    def part(self, content=CONTENT, tag='"one"', stop=None, slow=False, length=True, partial=True):
        """The content, or what is left of it; cut off after `stop` bytes; `slow`: no part before the last arrived."""
        start, asked = 0, self.headers.get("Range")
        if partial and asked and self.headers.get("If-Range", tag) == tag:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            if start >= len(content):
                self.send_response(416)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        if tag:
            self.send_header("ETag", tag)
        if length:
            self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        end = len(content) if stop is None else min(len(content), start + stop)
        for at in range(start, end, 65_536):
            self.wfile.write(content[at : min(end, at + 65_536)])
            while slow and self.server.arrived < min(end, at + 65_536):
                self.server.news.wait()
                self.server.news.clear()
        if end < len(content) or not length:
            self.close_connection = True

    def serve_plain(self):
        self.part()

    def serve_drops(self):
        self.part(stop=300_000)

    def serve_drops_for_ever(self):
        self.part(stop=0)

    def serve_slow(self):
        self.part(slow=True)

    def serve_to_two(self):
        for _ in range(2):
            self.server.waiting.acquire()
        self.part()

    def serve_hangs_once(self):
        hang = len(self.server.asked) == 1
        self.part(stop=100_000 if hang else None)
        if hang:
            self.server.asked_again.wait()
        else:
            self.server.asked_again.set()

    def serve_changes(self):
        first = len(self.server.asked) == 1
        self.part(CONTENT if first else CONTENT[::-1], '"one"' if first else '"two"', stop=300_000 if first else None)

    def serve_no_ranges(self):
        self.part(tag=None, partial=False, stop=300_000 if len(self.server.asked) == 1 else None)

    def serve_page(self):
        self.part(b"<!DOCTYPE html><html>Please sign in</html>")

    def serve_redirect(self):
        self.send_response(302)
        self.send_header("Location", "/plain/other")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def serve_redirect_to_file(self):
        self.send_response(302)
        self.send_header("Location", "file:///etc/passwd")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def serve_redirects_for_ever(self):
        self.send_response(302)
        self.send_header("Location", self.path + "/x")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def serve_missing(self):
        self.send_error(404)

    def serve_busy(self):
        if len(self.server.asked) < 3:
            self.send_error(503)
        else:
            self.part()

    def serve_enormous(self):
        self.send_response(200)
        self.send_header("Content-Length", str(1 << 60))
        self.end_headers()
        self.close_connection = True

    def serve_no_http(self):
        self.wfile.write(b"\x00\x01\x02 hello\r\n\r\n")
        self.close_connection = True


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        server.daemon_threads, server.asked = True, []
        server.arrived, server.news = 0, threading.Event()
        server.waiting, server.asked_again = threading.Semaphore(0), threading.Event()
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        server.address = f"http://127.0.0.1:{server.server_port}"
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def get(server, tmp_path):
    def call(path, **options):
        told = options.pop("progress", lambda *_: None)

        def progress(*report):
            told(*report)
            server.arrived = report[1]
            server.news.set()

        options = {"timeout": 30.0, "pause": 0.01, "attempts": 4, "progress": progress} | options
        return download(f"{server.address}/{path}", tmp_path / "there" / "w.pth", **options)

    return call


def left(tmp_path):
    """What is in the folder, besides the lock that others may be waiting for."""
    return sorted(p.name for p in (tmp_path / "there").iterdir() if not p.name.endswith(".lock"))


@pytest.mark.parametrize("kind", ["plain", "drops", "slow", "no_ranges", "redirect", "busy"])
@pytest.mark.parametrize("digest", [None, DIGEST])
def test_arrives_whole(get, server, tmp_path, kind, digest):
    seen = []
    file = get(kind, sha256=digest, progress=lambda *report: seen.append(report))
    assert file.read_bytes() == CONTENT
    assert left(tmp_path) == ["w.pth"]
    assert seen[-1] == ("w.pth", len(CONTENT), len(CONTENT))
    if kind == "drops":
        assert [h.get("Range") for _, h in server.asked] == [
            None,
            *(f"bytes={n}-" for n in (300_000, 600_000, 900_000)),
        ]
        assert [h.get("If-Range") for _, h in server.asked] == [None, '"one"', '"one"', '"one"']
    get(kind)
    assert len(server.asked) <= 4, "what is there is not fetched again"


def test_a_server_that_hangs_is_asked_again(get, tmp_path):
    # The server hangs until it is asked again. Where all is slow, it may be asked more often than twice.
    assert get("hangs_once", timeout=0.3, attempts=1000).read_bytes() == CONTENT
    assert left(tmp_path) == ["w.pth"]


def test_a_file_that_changed_meanwhile_is_not_mixed(get):
    assert get("changes").read_bytes() == CONTENT[::-1]


def test_an_interrupted_download_goes_on_in_the_next_run(get, server, tmp_path):
    def stop(_, done, __):
        if done > 500_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        get("plain", progress=stop)
    assert "w.pth" not in left(tmp_path)
    kept = (tmp_path / "there" / "w.pth.part").stat().st_size
    assert kept >= 500_000
    assert get("plain").read_bytes() == CONTENT
    assert server.asked[-1][1]["Range"] == f"bytes={kept}-"


def test_what_another_address_left_is_not_used(get, tmp_path):
    there = tmp_path / "there"
    there.mkdir()
    (there / "w.pth.part").write_bytes(b"something else")
    (there / "w.pth.part.json").write_text('{"url": "http://elsewhere/", "validator": "\\"one\\""}')
    assert get("plain").read_bytes() == CONTENT


def test_a_part_that_is_longer_than_the_file_is_begun_anew(get, server, tmp_path):
    there = tmp_path / "there"
    there.mkdir()
    (there / "w.pth.part").write_bytes(b"x" * (len(CONTENT) + 5))
    (there / "w.pth.part.json").write_text(f'{{"url": "{server.address}/plain", "validator": "\\"one\\""}}')
    assert get("plain").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("path", "message", "kept"),
    [
        ("missing", "404", []),
        ("page", "a web page", []),
        ("redirect_to_file", "file:///etc/passwd", []),
        ("redirects_for_ever", "302", []),
        ("enormous", "more than the 17179869184 expected", []),
        ("no_http", "given up after 2 attempts", []),
        ("drops_for_ever", "given up after 2 attempts", ["w.pth.part", "w.pth.part.json"]),
    ],
)
def test_what_cannot_be_had_is_one_error(get, server, tmp_path, path, message, kept):
    with pytest.raises(DownloadError, match=message) as error:
        get(path, attempts=2)
    assert server.address in str(error.value)
    assert str(error.value).isprintable()
    assert left(tmp_path) == kept


def test_another_digest_is_refused_and_nothing_is_kept(get, tmp_path):
    with pytest.raises(DownloadError, match=DIGEST):
        get("plain", sha256="0" * 64)
    assert left(tmp_path) == []


def test_nobody_there(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody listens, and nobody else can
        for url, message in (
            (f"http://127.0.0.1:{taken.getsockname()[1]}/w", "refused"),
            ("https://no-such-host.invalid/w", "is there a network"),
            ("file:///etc/passwd", "expected a web address"),
        ):
            with pytest.raises(DownloadError, match=message):
                download(url, tmp_path / "w.pth", attempts=2, pause=0.01)
    assert not (tmp_path / "w.pth").exists()


def test_no_room_and_no_permission_are_named(get, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000})())
    with pytest.raises(DownloadError, match="make room"):
        get("plain")
    (tmp_path / "file").write_text("")
    with pytest.raises(DownloadError, match="cannot be written"):
        download("http://127.0.0.1:1/w", tmp_path / "file" / "w.pth")


def test_two_that_ask_at_once_fetch_it_once(get, server, monkeypatch):
    """The server answers when both are at the lock."""

    class Lock(FileLock):
        def acquire(self, *args, **options):
            server.waiting.release()
            return super().acquire(*args, **options)

    monkeypatch.setattr("musc_jax.storage.download.FileLock", Lock)
    threads = [threading.Thread(target=get, args=("to_two",)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.asked) == 1
    assert get("to_two").read_bytes() == CONTENT
