"""`python -m launch.fetch`: what it fetches, from a server on this machine, and what it refuses."""

import hashlib
import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import zipfile
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from published_trees import published_files, write_published
from waiting import PATIENCE_SECONDS, until

from launch import command, fetch
from launch.fetch import Order
from musc_jax.data import DATASETS
from musc_jax.data.datasets import published_datasets
from musc_jax.data.spec import Archive

# As published, but of few samples: there is nothing to learn from a thousand.
SMALL = {
    name: replace(source, categories={c: replace(e, good=3, defective=4) for c, e in source.categories.items()})
    for name, source in published_datasets().items()
}
BTAD = published_files("btad", SMALL["btad"])


def zip_of(files, top=""):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in files.items():
            archive.writestr(top + name, content)
    return out.getvalue()


def tar_of(files, top=""):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", compresslevel=1) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(top + name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


ZIP = zip_of(BTAD, "BTech_Dataset_transformed/")
DIGEST = hashlib.sha256(ZIP).hexdigest()
HALF = len(ZIP) // 2
HOSTILE = zip_of({"../outside": b"x"})


class Server(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.server.asked.append((self.path, self.headers.get("Range")))
        content = self.server.content.get(self.path.rsplit("/", 1)[-1])
        if content is None:
            self.send_error(404)
            return
        start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").rstrip("-"))
        end = len(content)
        held = self.path.startswith("/held") and not start
        if held or (self.path.startswith("/drops") and not start):
            end = len(content) // 2
            self.close_connection = True
        self.send_response(206 if start else 200)
        self.send_header("ETag", '"one"')
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        try:
            for at in range(start, end, 8192):
                self.wfile.write(content[at : min(end, at + 8192)])
        except OSError:
            self.close_connection = True  # the other side was interrupted
        if held:
            self.server.over.wait()


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        server.daemon_threads, server.asked, server.over = True, [], threading.Event()
        server.content = {"hostile.zip": HOSTILE, "btad.zip": ZIP}
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        server.address = f"http://127.0.0.1:{server.server_port}"
        yield server
        server.over.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def run(tmp_path, capsys, monkeypatch):
    """Carries out an order in this process; returns exit code, stdout, stderr."""
    for name, source in SMALL.items():
        monkeypatch.setitem(DATASETS, name, replace(DATASETS[name], source=source))

    def call(dataset="btad", data_dir=tmp_path / "data", accept_license=True, **options):
        order = Order(dataset=dataset, data_dir=data_dir, accept_license=accept_license, **options)
        code = command.execute(
            ["fetch"], lambda: fetch.carry_out(order), fetch.BAD_INPUT, interrupted=fetch._INTERRUPTED
        )
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return code, out, err

    return call


def published_at(monkeypatch, name, url, digest=None):
    """Where an archive is said to be."""
    source = replace(SMALL[name], archives=(Archive(url.rsplit("/", 1)[-1], url, digest),))
    monkeypatch.setitem(DATASETS, name, replace(DATASETS[name], source=source))


def below(root):
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_fetched_unpacked_and_compared(run, server, tmp_path, monkeypatch):
    published_at(monkeypatch, "btad", f"{server.address}/btad.zip", DIGEST)
    code, out, err = run()
    assert code == 0, err
    assert err.startswith("BTAD, https://avires.dimi.uniud.it/papers/btad\nlicence: CC BY-SA 4.0")
    assert "contradicts" in err
    assert out.splitlines()[0].startswith("unpacked ")
    assert out.splitlines()[-1] == f"{tmp_path / 'data'}: all test samples of btad are there (3 categories)"
    root = tmp_path / "data" / "BTech_Dataset_transformed"
    assert below(root) == BTAD
    assert list((tmp_path / "data").iterdir()) == [root], "no archive, no lock, no folder of ours"
    code, out, _ = run()
    assert code == 0
    assert "nothing was fetched" in out
    assert len(server.asked) == 1


def test_without_accepting_the_licence(run, server, tmp_path, monkeypatch):
    published_at(monkeypatch, "btad", f"{server.address}/btad.zip")
    for options in ({}, {"url": f"{server.address}/btad.zip"}, {"archives": [Path(__file__)]}):
        code, out, err = run(accept_license=False, **options)
        assert code == 2
        assert "licence: CC BY-SA 4.0" in err.splitlines()[1]
        assert err.splitlines()[-1].startswith("error: ")
        assert "--accept_license" in err.splitlines()[-1]
        assert out == ""
    assert server.asked == []
    assert list(tmp_path.iterdir()) == []


def test_a_connection_that_breaks_is_taken_up(run, server, tmp_path):
    code, _, err = run(url=f"{server.address}/drops/btad.zip", sha256=DIGEST.upper(), keep_archive=True)
    assert code == 0, err
    assert [asked for _, asked in server.asked] == [None, f"bytes={HALF}-"]
    (kept,) = (tmp_path / "data" / ".download").glob("*.zip")
    assert kept.read_bytes() == ZIP
    assert str(kept) in err


@pytest.fixture
def interruptible():
    """Where the tests themselves run in the background, Ctrl-C is ignored by all that they start."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
def test_interrupted_and_continued_by_the_same_command(server, tmp_path):
    """The server sends half and then nothing, so that there is a download to interrupt however slow this process is."""
    data, files = tmp_path / "data", published_files("btad")
    whole = server.content["btad.zip"] = zip_of(files, "BTech_Dataset_transformed/")
    line = [sys.executable, "-m", "launch.fetch", "--dataset=btad", f"--data_dir={data}", "--accept_license"]
    line += [f"--url={server.address}/held/btad.zip", f"--sha256={hashlib.sha256(whole).hexdigest()}"]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    until(lambda: any(part.stat().st_size > 30_000 for part in data.glob(".download/*.part")), process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 130, err
    assert err.splitlines()[-1] == "interrupted; the same command goes on where it stopped"
    assert [p.name for p in data.iterdir()] == [".download"]
    size = next(data.glob(".download/*.part")).stat().st_size
    assert 30_000 < size <= len(whole) // 2
    done = subprocess.run(line, capture_output=True, text=True, cwd=tmp_path, timeout=PATIENCE_SECONDS)
    assert done.returncode == 0, done.stderr
    assert server.asked[-1] == ("/held/btad.zip", f"bytes={size}-")
    assert below(data / "BTech_Dataset_transformed") == files
    assert not (data / ".download").exists()


def test_help_and_list(tmp_path, in_process):
    line = [sys.executable, "-m", "launch.fetch", "--help"]
    done = subprocess.run(line, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert "--[no]accept_license" in done.stdout
    code, table, _ = in_process(fetch, "--list")
    assert code == 0
    for name, source in published_datasets().items():
        assert source.licence in next(line for line in table.splitlines() if line.startswith(f"{name} "))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dataset": None}, "--dataset is needed"),
        ({"data_dir": None}, "--data_dir is needed"),
        ({"url": "http://127.0.0.1:9/a", "archives": [Path("a")]}, "exclude each other"),
        ({"sha256": "abc"}, "expected 64 hexadecimal digits"),
        ({"archives": [Path("/nowhere/a.zip")]}, "/nowhere/a.zip is no file"),
        ({"archives": [Path(__file__)] * 2, "sha256": "0" * 64}, "one by one"),
        ({"url": "ftp://127.0.0.1/a.zip"}, "expected a web address"),
        ({"url": "file://elsewhere/a.zip"}, "names another machine"),
        ({"url": "file:///nowhere/a.zip"}, "/nowhere/a.zip is no file"),
        ({"url": "http://no-such-host.invalid/a.zip"}, "is there a network"),
        ({"categories": ["bagel"], "check": True}, "no category 'bagel'"),
        ({"data_dir": Path(__file__) / "below"}, "choose another --data_dir"),
    ],
)
def test_bad_input_is_one_line(run, tmp_path, options, message):
    code, out, err = run(**options)
    assert code == 2
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert message in line
    assert line == err.splitlines()[-1]
    assert out == ""
    assert not list(tmp_path.rglob("*.part"))


def test_not_found_says_where_else_to_look(run, server, tmp_path, monkeypatch):
    published_at(monkeypatch, "mvtec3d", f"{server.address}/gone/mvtec_3d_anomaly_detection.tar.xz")
    code, _, err = run("mvtec3d")
    assert code == 2
    assert "the server answered 404" in err
    assert "open the home page" in err
    assert "--archive=PATH" in err
    assert DATASETS["mvtec3d"].source.home in err
    code, _, err = run(url=f"{server.address}/nothing.zip")
    assert code == 2
    assert "404" in err


def test_another_digest(run, server, tmp_path, monkeypatch):
    published_at(monkeypatch, "btad", f"{server.address}/btad.zip", "0" * 64)
    data = tmp_path / "data"
    for options in ({}, {"url": f"{server.address}/btad.zip"}, {"sha256": "1" * 64}):
        code, out, err = run(**options)
        assert code == 2
        assert DIGEST in err
        assert ("1" if "sha256" in options else "0") * 64 in err
        assert out == ""
        assert not data.exists()
    code, _, err = run(sha256=DIGEST)
    assert code == 0, err


def test_an_archive_kept_earlier_is_verified(run, server, tmp_path, monkeypatch):
    published_at(monkeypatch, "btad", f"{server.address}/btad.zip", DIGEST)
    kept = tmp_path / "data" / ".download" / "btad.zip"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(ZIP[:-1] + b"!")
    code, _, err = run()
    assert code == 2
    assert "another file than expected" in err
    kept.write_bytes(ZIP)
    assert run()[0] == 0
    assert server.asked == []


def test_a_hostile_archive_is_not_kept(run, server, tmp_path):
    code, out, err = run(url=f"{server.address}/hostile.zip", sha256=hashlib.sha256(HOSTILE).hexdigest())
    assert code == 2
    assert "climbs out" in err
    assert out == ""
    assert not list(tmp_path.rglob("outside"))
    assert not list(tmp_path.rglob("*.zip"))


def test_by_hand(run, tmp_path):
    for name, words in (("mpdd", "sharepoint.com"), ("eyecandies", "drive.google.com/file/d/1OI0Jh5tUj98j3")):
        code, out, err = run(name)
        assert code == 2
        assert f"error: {name} cannot be fetched by a program; by hand:" in err
        assert words in err
        assert err.splitlines()[-1].strip().startswith("then: python -m launch.fetch")
        assert out == ""
    assert "MPDD" in run("mpdd")[2].splitlines()[0]
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("how", ["archive", "url"])
def test_an_archive_from_this_machine(run, tmp_path, how):
    archive = tmp_path / "MPDD (1).zip"
    archive.write_bytes(zip_of(published_files("mpdd", SMALL["mpdd"]), "MPDD/"))
    given = {"archives": [archive]} if how == "archive" else {"url": archive.as_uri()}
    code, out, err = run("mpdd", **given)
    assert code == 0, err
    assert "(6 categories)" in out
    assert archive.exists()
    assert [p.name for p in (tmp_path / "data").iterdir()] == ["MPDD"]
    assert run("mpdd", **given)[0] == 0, "all of it is there already, and the same"
    (tmp_path / "data" / "MPDD" / "tubes" / "test" / "good" / "000.png").write_bytes(b"changed")
    code, _, err = run("mpdd", **given)
    assert code == 2
    assert "is there with other content" in err


def test_an_archive_by_hand_must_be_the_published_one(run, tmp_path):
    archive = tmp_path / "btad.zip"
    archive.write_bytes(ZIP)
    code, _, err = run(archives=[archive])
    assert code == 2
    assert f"pass --sha256={DIGEST} if" in err
    assert not (tmp_path / "data").exists()
    assert run(archives=[archive], sha256=DIGEST)[0] == 0


@pytest.mark.parametrize("top", ["Lollipop/", "Eyecandies/Lollipop/", ""])
def test_eyecandies_in_each_way_it_is_said_to_unpack(run, tmp_path, top):
    files = {
        k.split("/", 1)[1]: v
        for k, v in published_files("eyecandies", SMALL["eyecandies"]).items()
        if k.startswith("Lollipop/")
    }
    archive = tmp_path / "Lollipop.zip"
    archive.write_bytes(tar_of(files, top))
    code, out, err = run("eyecandies", archives=[archive], categories=["Lollipop"])
    assert code == 0, err
    assert out.endswith(" are there (1 category)\n")
    assert below(tmp_path / "data" / (top or "Lollipop/")) == files
    code, out, err = run("eyecandies", archives=[archive])
    assert code == 0, "more archives may come"
    assert "1 of 10 categories of eyecandies are there: Lollipop; absent: CandyCane, ChocolateCookie, " in out
    code, again, _ = run("eyecandies", check=True)
    assert code == fetch.SOME_ABSENT
    assert again.splitlines() == out.splitlines()[1:]


def test_eyecandies_of_an_unknown_category(run, tmp_path):
    archive = tmp_path / "download.tar"
    archive.write_bytes(tar_of({"test_public/data/00_image_0.png": b"1"}))
    code, _, err = run("eyecandies", archives=[archive])
    assert code == 2
    assert "name the file by its category" in err
    assert not (tmp_path / "data").exists()


def test_our_own_folder_is_no_archives_business(run, tmp_path):
    archive = tmp_path / "MPDD.zip"
    archive.write_bytes(zip_of({".download/x.zip.part": b"1"}))
    code, _, err = run("mpdd", archives=[archive])
    assert code == 2
    assert "is no archive of the dataset" in err


def test_check(run, tmp_path):
    data = tmp_path / "data"
    write_published("btad", data, SMALL["btad"])
    code, out, err = run(check=True, accept_license=False)
    assert (code, err) == (0, "")
    assert "all test samples of btad are there" in out
    (data / "02" / "ground_truth" / "ko" / "0002.png").unlink()
    (data / "notes").mkdir()
    code, out, err = run(check=True, accept_license=False)
    assert code == 2
    assert out.splitlines() == [
        f"note: {data / 'notes'}: is an unexpected folder; not used",
        f"{data / '02' / 'ground_truth' / 'ko' / '0002.png'}: is missing, the mask of "
        f"{data / '02' / 'test' / 'ko' / '0002.png'}; copy it again from the dataset's archive",
    ]
    assert err == f"error: {data}: 1 problem, btad is not as published (see above)\n"
    assert run(check=True, categories=["01", "03"])[0] == 0
    shutil.rmtree(data / "01")
    code, out, err = run(check=True)
    assert (code, len(out.splitlines())) == (2, 3), "the mask is still missing"
    line = f"{data}: 2 of 3 categories of btad are there: 02 (see above), 03; absent: 01"
    assert out.splitlines()[-1] == line
    assert err == f"error: {data}: 1 problem, btad is not as published (see above)\n"
    shutil.rmtree(data / "02")
    code, out, err = run(check=True)
    assert (code, err) == (3, "")
    assert out.splitlines() == [
        f"note: {data / 'notes'}: is an unexpected folder; not used",
        f"{data}: 1 of 3 categories of btad are there: 03; absent: 01, 02",
    ]
    assert run(check=True, categories=["03"])[0] == 0
    code, out, err = run(check=True, categories=["02", "03"])
    assert (code, err) == (2, f"error: {data}: 1 problem, btad is not as published (see above)\n")
    assert out.startswith(f"{data / '02'}: is missing, published with 3 good and 4 defective samples")
    code, out, err = run(check=True, data_dir=tmp_path / "none")
    assert code == 2
    assert "is not a folder" in out


def test_two_at_once(run, tmp_path):
    from filelock import FileLock

    (tmp_path / "data" / ".download").mkdir(parents=True)
    with FileLock(tmp_path / "data" / ".download" / "lock"):
        code, _, err = run(url="http://127.0.0.1:9/btad.zip")
    assert code == 2
    assert "another launch.fetch works there" in err
