"""Cache files are whole or absent, and never trusted when damaged."""

import multiprocessing
import os
import re

import numpy as np
import pytest

from musc_jax.storage import atomic


@pytest.fixture
def stored(tmp_path):
    arrays = {"points": np.arange(12, dtype=np.float32).reshape(2, 2, 3), "flag": np.array(True)}
    path = tmp_path / "store" / "a.bin"
    atomic.write_arrays(path, "key", arrays)
    return path, arrays


def test_what_was_written_is_read(stored):
    path, arrays = stored
    found = atomic.read_arrays(path, "key")
    assert found.keys() == arrays.keys()
    for name in arrays:
        np.testing.assert_array_equal(found[name], arrays[name])
    assert [entry.name for entry in path.parent.iterdir()] == ["a.bin"]


def test_another_key_is_not_trusted(stored):
    assert atomic.read_arrays(stored[0], "other") is None


def test_missing_is_none(tmp_path):
    assert atomic.read_arrays(tmp_path / "none", "key") is None


@pytest.mark.parametrize("where", [0, 31, 32, 60, -1])
def test_a_changed_byte_is_seen(stored, where):
    data = bytearray(stored[0].read_bytes())
    data[where] ^= 1
    stored[0].write_bytes(data)
    assert atomic.read_arrays(stored[0], "key") is None


@pytest.mark.parametrize("length", [0, 10, 32, 33, 200])
def test_a_cut_file_is_seen(stored, length):
    stored[0].write_bytes(stored[0].read_bytes()[:length])
    assert atomic.read_arrays(stored[0], "key") is None


def test_an_exception_leaves_no_trace(tmp_path):
    def write():
        with atomic.temporary(tmp_path / "x" / "target") as part:
            part.mkdir()
            (part / "half").write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write()
    assert list((tmp_path / "x").iterdir()) == []


def _leave_rubbish(folder):
    with atomic.temporary(folder / "t") as part:
        part.mkdir()
        (part / "f").write_text("x")
        os._exit(1)  # killed in the middle


def test_sweep_removes_only_what_the_dead_left(tmp_path):
    child = multiprocessing.get_context("spawn").Process(target=_leave_rubbish, args=(tmp_path,))
    child.start()
    child.join()
    (left,) = tmp_path.iterdir()
    elsewhere = tmp_path / re.sub("-[^~]*~", "-another_host~", left.name, count=1)
    elsewhere.write_text("other machine's")
    unrelated = {".partial-", ".partial-notes", left.name + "0", left.name[:-1], ".partial-a~1~b~c", left.name[1:]}
    for name in unrelated:
        (tmp_path / name).write_text("not ours")
    link = tmp_path / (left.name[:-1] + ("0" if left.name[-1] != "0" else "1"))
    link.symlink_to(tmp_path)
    with atomic.temporary(tmp_path / "mine") as mine:
        mine.write_text("alive")
        atomic.sweep(tmp_path)
        assert {path.name for path in tmp_path.iterdir()} == {elsewhere.name, *unrelated, link.name, mine.name}
        atomic.sweep(tmp_path, alone=True)
    assert {path.name for path in tmp_path.iterdir()} == {*unrelated, link.name}


def test_an_earlier_run_with_our_process_id_is_dead(tmp_path):
    with atomic.temporary(tmp_path / "t") as part:
        run = part.name.split("~")[2]
    old = tmp_path / part.name.replace(run, "00000000")
    old.write_text("earlier")
    atomic.sweep(tmp_path)
    assert not old.exists()


def test_sweep_of_a_missing_folder(tmp_path):
    atomic.sweep(tmp_path / "none")


@pytest.mark.parametrize("name", ["a", "x" * 255])
def test_a_file_is_replaced_whole_or_not_at_all(tmp_path, name, monkeypatch):
    path = tmp_path / "new" / name
    for text in ("old", "süß"):
        atomic.write_text(path, text)
        assert path.read_bytes() == text.encode()
    monkeypatch.setattr(type(path), "write_bytes", lambda part, data: part.touch() or fail())

    def fail():
        raise OSError("no room")

    with pytest.raises(OSError, match="no room"):
        atomic.write_bytes(path, b"new")
    assert [(entry.name, entry.read_bytes()) for entry in path.parent.iterdir()] == [(name, "süß".encode())]
