"""The reader of PyTorch files: sound files as PyTorch reads them, hostile ones refused, nothing executed."""

import os
import pickle
import struct
import time
import zipfile

import numpy as np
import pytest

from weights import WeightsError
from weights.torch_file import TorchFile


class Global:
    """Pickles as a bare global, whatever it is called."""

    def __init__(self, module, name):
        self.text = b"c" + module.encode() + b"\n" + name.encode() + b"\n"


def storage(kind="FloatStorage", key="0", count=4):
    return b"(" + text("storage") + Global("torch", kind).text + text(key) + text("cpu") + number(count) + b"tQ"


def text(value):
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def number(value):
    raw = value.to_bytes((value.bit_length() // 8) + 1, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def numbers(values):
    return b"(" + b"".join(map(number, values)) + b"t"


def tensor(shape=(4,), strides=(1,), offset=0, **options):
    arguments = storage(**options) + number(offset) + numbers(shape) + numbers(strides) + b"\x89" + b"N"
    return Global("torch._utils", "_rebuild_tensor_v2").text + b"(" + arguments + b"tR"


def entry(value, name="w"):
    return b"\x80\x02}" + text(name) + value + b"s."


def archive(path, content, *, data=b"\0" * 16, members=(), compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr("a/data.pkl", content)
        file.writestr("a/data/0", data)
        for name, value in members:
            file.writestr(name, value)
    return path


def evil(command):
    return b"\x80\x02" + Global("os", "system").text + b"(" + text(command) + b"tR."


HOSTILE = {
    "os.system": lambda p: archive(p, evil(f"touch {p}.owned")),
    "reduce of a builtin": lambda p: archive(p, entry(Global("builtins", "eval").text + b"(" + text("1/0") + b"tR")),
    "storage past the end": lambda p: archive(p, entry(tensor(shape=(5,)))),
    "offset past the end": lambda p: archive(p, entry(tensor(offset=1))),
    "negative offset": lambda p: archive(p, entry(tensor(offset=-1))),
    "negative stride": lambda p: archive(p, entry(tensor(strides=(-1,)))),
    "overlapping rows": lambda p: archive(p, entry(tensor(shape=(1000000, 4), strides=(0, 1)))),
    "negative size": lambda p: archive(p, entry(tensor(shape=(-4,)))),
    "shape and strides of different lengths": lambda p: archive(p, entry(tensor(shape=(2, 2)))),
    "huge declared size": lambda p: archive(p, entry(tensor(shape=(1 << 40,), count=1 << 40))),
    "storage longer than declared": lambda p: archive(p, entry(tensor()), data=b"\0" * 20),
    "storage missing": lambda p: archive(p, entry(tensor(key="7"))),
    "path as a storage key": lambda p: archive(p, entry(tensor(key="../../etc/passwd"))),
    "unknown opcode": lambda p: archive(p, b"\x80\x02\x95" + b"\0" * 8 + b"."),
    "persistent id of another kind": lambda p: archive(p, b"\x80\x02" + text("x") + b"Q."),
    "item of something that is no dictionary": lambda p: archive(p, b"\x80\x02]" + text("a") + text("b") + b"s."),
    "append to something that is no list": lambda p: archive(p, b"\x80\x02}" + text("a") + b"a."),
    "unhashable key": lambda p: archive(p, b"\x80\x02}]" + text("b") + b"s."),
    "memo never put down": lambda p: archive(p, b"\x80\x02h\x07."),
    "pop of nothing": lambda p: archive(p, b"\x80\x02R."),
    "no end": lambda p: archive(p, b"\x80\x02}"),
    "cut short inside a string": lambda p: archive(p, b"\x80\x02X\xff\xff\xff\x7fabc"),
    "mark bomb": lambda p: archive(p, b"\x80\x02" + b"(" * 2_000_000 + b"."),
    "self-containing dictionary": lambda p: archive(p, b"\x80\x02}q\x00" + text("a") + b"h\x00s."),
    "nested tuples": lambda p: archive(p, b"\x80\x02}" + b"\x85" * 500_000 + b"."),
    "nested tuple as a key": lambda p: archive(p, b"\x80\x02})" + b"\x85" * 150_000 + text("b") + b"s."),
    "compressed member": lambda p: archive(p, entry(tensor()), compression=zipfile.ZIP_DEFLATED),
    "two top folders": lambda p: archive(p, entry(tensor()), members=[("b/data/1", b"")]),
    "big-endian": lambda p: archive(p, entry(tensor()), members=[("a/byteorder", b"big")]),
    "TorchScript": lambda p: archive(p, entry(tensor()), members=[("a/constants.pkl", b""), ("a/code/x.py", b"1/0")]),
    "web page": lambda p: p.write_text("<!DOCTYPE html><html>Not found</html>"),
    "empty": lambda p: p.write_bytes(b""),
    "bare pickle": lambda p: p.write_bytes(pickle.dumps({"a": 1})),
    "legacy file": lambda p: p.write_bytes(pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2) + b"more"),
    "truncated zip": lambda p: p.write_bytes(archive(p, entry(tensor())).read_bytes()[:-30]),
}


def read_everything(path):
    file = TorchFile(path)
    found = file.tensors()
    if not found:
        # Nothing was executed and nothing usable is left: the loader says so.
        raise WeightsError(f"{path}: holds no parameters")
    for value in found.values():
        file.read(value)


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_files_end_in_one_error(tmp_path, kind):
    path = tmp_path / "weights.pth"
    HOSTILE[kind](path)
    started = time.process_time()  # of this process: others may keep the machine busy
    with pytest.raises(WeightsError) as error:
        read_everything(path)
    assert time.process_time() - started < 2
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    assert not os.path.exists(f"{path}.owned")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_duplicate_members_are_refused(tmp_path):
    path = archive(tmp_path / "w.pth", entry(tensor()), members=[("a/data/0", b"\1" * 16)])
    with pytest.raises(WeightsError, match="comes twice"):
        TorchFile(path)


def test_names_that_are_not_needed_become_placeholders(tmp_path):
    scalar = Global("numpy.core.multiarray", "scalar").text + b"(" + text("x") + b"tR"
    content = b"\x80\x02}(" + text("metrics") + scalar + text("w") + tensor(shape=(2, 2), strides=(1, 2)) + b"u."
    data = np.arange(4, dtype="<f4")
    file = TorchFile(archive(tmp_path / "w.pth", content, data=data.tobytes()))
    found = file.tensors()
    assert set(found) == {"w"}
    np.testing.assert_array_equal(file.read(found["w"]), [[0, 2], [1, 3]])


def test_an_optimizer_is_never_read(tmp_path):
    inner = b"}" + text("state") + tensor(key="missing") + b"s"
    content = b"\x80\x02}(" + text("optimizer") + inner + text("w") + tensor() + b"u."
    file = TorchFile(archive(tmp_path / "w.pth", content))
    assert set(file.tensors()) == {"w"}


def test_reads_what_torch_writes(tmp_path):
    torch = pytest.importorskip("torch")
    base = torch.randn(6, 5)
    values = {
        "plain": base,
        "transposed": base.T,
        "sliced": base[1:, ::2],
        "scalar": torch.tensor(3, dtype=torch.int64),
        "empty": torch.zeros(0, 4),
        "half": base.half(),
        "bfloat16": base.bfloat16(),
        "double": base.double(),
        "flags": torch.tensor([True, False]),
        "parameter": torch.nn.Parameter(base),
    }
    path = tmp_path / "w.pth"
    torch.save({"base_model": values, "optimizer": {"state": {0: base}}, "epoch": 3, "best": np.float64(0.5)}, path)
    file = TorchFile(path)
    found = file.tensors()
    assert set(found) == {f"base_model.{name}" for name in values}
    for name, want in values.items():
        got = file.read(found[f"base_model.{name}"])
        assert got.shape == tuple(want.shape)
        np.testing.assert_array_equal(got.astype(np.float64), want.detach().double().numpy())
