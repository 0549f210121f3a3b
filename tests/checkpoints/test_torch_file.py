"""The reader of PyTorch files: sound files as PyTorch reads them, hostile ones refused, nothing executed."""

import json
import os
import pickle
import struct
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import weights
from weights import WeightsError
from weights.torch_file import TorchFile

GOLDEN = Path(__file__).parents[1] / "golden"


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
    "truncated zip": lambda p: p.write_bytes(archive(p, entry(tensor())).read_bytes()[:-30]),
}


def overlapping(path):
    """Two members that are the same bytes of the file."""
    archive(path, entry(tensor()), members=[("a/data/1", b"\0" * 16)])
    data = bytearray(path.read_bytes())
    at = data.rindex(b"a/data/1") - 46  # its record in the list of members
    first = data.index(b"PK\x01\x02")
    offset = data[first + 42 : first + 46]
    data[at + 42 : at + 46] = offset
    path.write_bytes(bytes(data))


def crowded(path):
    """A list of members that takes long to read."""
    with zipfile.ZipFile(path, "w") as file:
        for i in range(60_000):
            file.writestr(zipfile.ZipInfo(f"a/{i}"), b"")


def legacy(*, content=None, keys=("0",), counts=(4,), data=b"\0" * 16, order=True, magic=0x1950A86A20F9469CFC6C):
    """The older format: pickles in a row, then the storages."""
    content = entry(tensor()) if content is None else content
    system = {"protocol_version": 1001, "little_endian": order, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    parts = [pickle.dumps(magic, protocol=2), pickle.dumps(1001, protocol=2), pickle.dumps(system, protocol=2)]
    parts += [content, pickle.dumps(list(keys), protocol=2)]
    for count in counts:
        parts += [struct.pack("<q", count), data]
    return b"".join(parts)


def legacy_file(**options):
    return lambda p: p.write_bytes(legacy(**options))


HOSTILE |= {
    "members that overlap": overlapping,
    "a crowd of members": crowded,
    "bomb of names": lambda p: archive(p, b"\x80\x02" + (b"}" + text("a" * 200)) * 90 + tensor() + b"s" * 90 + b"."),
    "bomb of shared dictionaries": lambda p: archive(
        p,
        b"\x80\x02("
        + b"}q\x00"
        + text("w")
        + tensor()
        + b"s"
        + b"".join(
            b"}q" + bytes([i + 1]) + b"(" + text("a") + b"h" + bytes([i]) + text("b") + b"h" + bytes([i]) + b"u"
            for i in range(60)
        )
        + b"th\x3c.",
    ),
    "sizes of thousands of digits": lambda p: archive(p, entry(tensor(shape=(1 << 2000,) * 12, strides=(0,) * 12))),
    "a hundred thousand axes": lambda p: archive(p, entry(tensor(shape=(1,) * 90_000, strides=(1,) * 90_000))),
    "a name with an escape sequence": lambda p: archive(p, entry(tensor(), "\x1b[2J\nerror: all is well")),
    "legacy: cut short in a storage": lambda p: p.write_bytes(legacy()[:-3]),
    "legacy: cut short in the pickle": lambda p: p.write_bytes(legacy()[:120]),
    "legacy: cut short behind the magic": lambda p: p.write_bytes(legacy()[:16]),
    "legacy: os.system": legacy_file(content=evil("touch /tmp/musc-owned")),
    "legacy: another length": legacy_file(counts=(5,)),
    "legacy: a negative length": legacy_file(counts=(-4,)),
    "legacy: a storage twice": legacy_file(keys=("0", "0"), counts=(4, 4)),
    "legacy: a storage that no tensor has": legacy_file(keys=("7",)),
    "legacy: a huge storage": legacy_file(content=entry(tensor(count=1 << 39)), counts=(1 << 39,)),
    "legacy: no list of storages": lambda p: p.write_bytes(legacy().replace(pickle.dumps(["0"], protocol=2), b"N.")),
    "legacy: big-endian": legacy_file(order=False),
    "legacy: another protocol": lambda p: p.write_bytes(legacy().replace(struct.pack("<H", 1001), b"\x01\x01", 1)),
    "older than legacy": lambda p: p.write_bytes(b"\0" * 257 + b"ustar\x0000" + b"\0" * 300),
}


def sound(change=None, **arrays):
    """A small checkpoint of DINO that would load, with entries changed, added, or (None) left out."""
    rng = np.random.default_rng(1)
    entries = {"cls_token": (1, 1, 32), "pos_embed": (1, 17, 32), "patch_embed.proj.weight": (32, 3, 8, 8)}
    entries |= {"patch_embed.proj.bias": (32,), "norm.weight": (32,), "norm.bias": (32,)}
    for i in range(2):
        shapes = {"norm1": (32,), "attn.qkv": (96, 32), "attn.proj": (32, 32), "norm2": (32,)}
        shapes |= {"mlp.fc1": (48, 32), "mlp.fc2": (32, 48)}
        for name, shape in shapes.items():
            entries |= {f"blocks.{i}.{name}.weight": shape, f"blocks.{i}.{name}.bias": shape[:1]}
    made = {k: rng.normal(size=s).astype(np.float32) for k, s in entries.items()}
    made |= {k.replace("__", "."): v for k, v in arrays.items()}
    return {k: v for k, v in (change or (lambda e: e))(made).items() if v is not None}


def torch_zip(path, *, keys=None, spoil=None, more=b""):
    """`sound()` as a zip checkpoint, every parameter with a storage of its own - or what the options say."""
    entries, storages, content = sound(), {}, b"\x80\x02}("
    for index, (name, value) in enumerate(entries.items()):
        key = (keys or {}).get(name, str(index))
        strides = [int(s) // 4 for s in value.strides]
        content += text(name) + tensor(value.shape, strides, key=key, count=value.size)
        storages[str(index)] = value.tobytes()
    (spoil or (lambda _: None))(storages)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a/data.pkl", content + more + b"u.")
        for key, data in storages.items():
            file.writestr(f"a/data/{key}", data)
    return path


def index_of(name):
    return str(list(sound()).index(name))


def flipped(path):
    torch_zip(path)
    data, value = bytearray(path.read_bytes()), sound()["norm.weight"].tobytes()
    data[data.index(value) + 2] ^= 1
    path.write_bytes(bytes(data))


# Sound in everything but one thing, so that nothing else is found first.
ALMOST = {
    "a flipped bit": flipped,
    "a missing storage": lambda p: torch_zip(p, spoil=lambda s: s.pop("7")),
    "a storage that is too long": lambda p: torch_zip(p, spoil=lambda s: s.update({"7": s["7"] + b"\0\0\0\0"})),
    "a storage that is too short": lambda p: torch_zip(p, spoil=lambda s: s.update({"7": s["7"][:-4]})),
    "a storage outside of the archive": lambda p: torch_zip(p, keys={"norm.weight": "../../../etc/passwd"}),
    "two parameters in one storage": lambda p: torch_zip(p, keys={"norm.weight": index_of("norm.bias")}),
    "os.system beside sound parameters": lambda p: torch_zip(p, more=text("x") + evil(f"touch {p}.owned")[2:-1]),
    "an unknown global beside sound parameters": lambda p: torch_zip(p, more=text("x") + Global("my.code", "F").text),
    "eval beside sound parameters": lambda p: torch_zip(p, more=text("x") + Global("builtins", "eval").text),
}


@pytest.mark.parametrize("kind", ALMOST)
def test_one_thing_wrong_is_enough(tmp_path, kind):
    path = tmp_path / "weights.pth"
    assert weights.load(torch_zip(tmp_path / "sound.pth"), "dino_vitb8", heads=2).depth == 2
    ALMOST[kind](path)
    refused(path, lambda: weights.load(path, "dino_vitb8", heads=2))
    refused(path, lambda: weights.convert(path, "dino_vitb8", tmp_path / "out.safetensors", heads=2))
    assert not os.path.exists(f"{path}.owned")


def as_safetensors(change=None, **arrays):
    return lambda p: save_file(sound(change, **arrays), p)


def header(size, content=b"{}"):
    return lambda p: p.write_bytes(struct.pack("<Q", size) + content)


def many_entries(path):
    names = ",".join(f'"{i}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}' for i in range(300_000))
    content = b"{" + names.encode() + b"}"
    path.write_bytes(struct.pack("<Q", len(content)) + content)


SAFETENSORS = {
    "nothing": lambda p: p.write_bytes(b""),
    "a header larger than the file": header(1 << 62),
    "a header of 60 MB": header(60 << 20, b"{" + b" " * (60 << 20)),
    "a header of 300,000 entries": many_entries,
    "a header that is no JSON": header(9, b"{]]]]]]]]"),
    "a header nested without end": header(200_000, b'{"a":' * 40_000),
    "offsets past the end": header(62, b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}       '),
    "a size that overflows": header(
        86, b'{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}}            '
    ),
    "cut short": lambda p: (save_file(sound(), p), p.write_bytes(p.read_bytes()[:-7])),
    "a web page": lambda p: p.write_text("<!DOCTYPE html><html>Sign in</html>"),
    "swapped shapes": as_safetensors(lambda e: {k: v.T.copy() if v.ndim == 2 else v for k, v in e.items()}),
    "one swapped shape": as_safetensors(blocks__1__mlp__fc1__weight=np.zeros((32, 48), np.float32)),
    "whole numbers": as_safetensors(lambda e: {k: v.astype(np.int32) for k, v in e.items()}),
    "true or false": as_safetensors(norm__bias=np.zeros(32, bool)),
    "missing keys": as_safetensors(norm__bias=None, blocks__0__attn__qkv__bias=None),
    "a missing block": as_safetensors(lambda e: {k: v for k, v in e.items() if not k.startswith("blocks.0.")}),
    "not a number": as_safetensors(norm__bias=np.full(32, np.nan, np.float32)),
    "infinite": as_safetensors(blocks__0__mlp__fc1__weight=np.full((48, 32), np.inf, np.float32)),
    "positions that are no square": as_safetensors(pos_embed=np.zeros((1, 16, 32), np.float32)),
    "no positions at all": as_safetensors(pos_embed=np.zeros((1, 0, 32), np.float32)),
    "a name in two wrappers": as_safetensors(lambda e: e | {"module.norm.bias": e["norm.bias"]}),
    "a block of a senseless number": as_safetensors(lambda e: e | {"blocks.99999999999.x": e["norm.bias"]}),
    "a thousand blocks": as_safetensors(
        lambda e: e | {f"blocks.{i}.mlp.fc1.weight": e["norm.bias"] for i in range(2, 3000)}
    ),
}


def peak():
    """Most memory since it was last asked, in MB; None where this system does not say."""
    try:
        with open("/proc/self/status") as status:
            value = next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024
        with open("/proc/self/clear_refs", "w") as reset:
            reset.write("5")
    except OSError:
        return None
    return value


EXECUTED = []


def _watch(event, _):
    if event in ("os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "pickle.find_class"):
        EXECUTED.append(event)


sys.addaudithook(_watch)


def refused(path, load):
    """Loads what must not be loaded: one line, soon, in little memory, nothing executed, nothing left behind."""
    before, around = peak(), sorted(path.parent.iterdir())
    now = peak()
    EXECUTED.clear()
    for _ in range(3):
        started = time.process_time()  # of this process: others may keep the machine busy
        with pytest.raises(WeightsError) as error:
            load()
        if time.process_time() - started < 2:
            break
    else:
        pytest.fail("takes long, and does so every time")
    assert not EXECUTED
    assert str(path) in str(error.value)
    assert str(error.value).isprintable(), "line breaks or escape sequences"
    assert len(str(error.value)) < 2500
    assert sorted(path.parent.iterdir()) == around
    if before is not None:
        assert peak() - now < 200


@pytest.fixture(scope="module")
def warm():
    """What is compiled and imported once is not a file's doing."""
    weights.load("random", "dino_vitb8", width=32, depth=2, heads=2, mlp_width=48, native_grid=4)
    weights.load(GOLDEN / "point_mae_tiny.pth", "point_mae", heads=3)


@pytest.mark.usefixtures("warm")
@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_files_end_in_one_error(tmp_path, kind):
    path = tmp_path / "weights.pth"
    HOSTILE[kind](path)
    for backbone in ("dino_vitb8", "point_mae"):
        refused(path, lambda name=backbone: weights.load(path, name, heads=2))
    refused(path, lambda: weights.convert(path, "point_mae", tmp_path / "out.safetensors"))
    assert not os.path.exists(f"{path}.owned")
    assert not os.path.exists("/tmp/musc-owned")


@pytest.mark.usefixtures("warm")
@pytest.mark.parametrize("kind", SAFETENSORS)
def test_hostile_safetensors_end_in_one_error(tmp_path, kind):
    path = tmp_path / "weights.safetensors"
    SAFETENSORS[kind](path)
    refused(path, lambda: weights.load(path, "dino_vitb8", heads=2))
    refused(path, lambda: weights.convert(path, "dino_vitb8", tmp_path / "out.safetensors", heads=2))


SETTINGS = {"model_type": "vit", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "patch_size": 8}
HOSTILE_SETTINGS = {
    "nested": "[" * 100_000,
    "no object": "[1]",
    "too large": " " * (2 << 20),
    "a number without end": '{"hidden_size": ' + "9" * 5000 + "}",
    "a billion blocks": json.dumps(SETTINGS | {"num_hidden_layers": 10**9}),
    "no heads": json.dumps(SETTINGS | {"num_attention_heads": 0}),
    "heads that do not divide": json.dumps(SETTINGS | {"num_attention_heads": 3}),
    "true for a number": json.dumps(SETTINGS | {"num_hidden_layers": True}),
    "an epsilon that is none": json.dumps(SETTINGS | {"layer_norm_eps": "1e-6"}),
    "an endless epsilon": json.dumps(SETTINGS | {"layer_norm_eps": float("inf")}),
    "an unknown activation": json.dumps(SETTINGS | {"hidden_act": "import os"}),
    "a list for the model's type": json.dumps(SETTINGS | {"model_type": ["vit"]}),
}


@pytest.mark.usefixtures("warm")
@pytest.mark.parametrize("kind", HOSTILE_SETTINGS)
def test_hostile_settings_end_in_one_error(tmp_path, kind):
    save_file(sound(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(HOSTILE_SETTINGS[kind])
    refused(tmp_path, lambda: weights.load(tmp_path, "dino_vitb8"))


def test_the_sound_ones_load(tmp_path):
    """What the hostile ones are made from is not refused."""
    save_file(sound(), tmp_path / "w.safetensors")
    assert weights.load(tmp_path / "w.safetensors", "dino_vitb8", heads=2).depth == 2
    for content in (legacy(), archive(tmp_path / "x.pth", entry(tensor())).read_bytes()):
        (tmp_path / "w.pth").write_bytes(content)
        file = TorchFile(tmp_path / "w.pth")
        np.testing.assert_array_equal(file.read(file.tensors()["w"]), np.zeros(4, np.float32))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_duplicate_members_are_refused(tmp_path):
    path = archive(tmp_path / "w.pth", entry(tensor()), members=[("a/data/0", b"\1" * 16)])
    with pytest.raises(WeightsError, match="comes twice"):
        TorchFile(path)


def test_a_view_of_a_storage_in_the_old_format(tmp_path):
    """Before PyTorch 0.4 a storage could be a part of another one."""
    view = storage().removesuffix(b"tQ") + numbers_of_view() + b"tQ"
    content = (
        Global("torch._utils", "_rebuild_tensor_v2").text + b"(" + view + number(0) + numbers((2,)) + numbers((1,))
    )
    data = np.arange(4, dtype="<f4").tobytes()
    (tmp_path / "w.pth").write_bytes(legacy(content=entry(content + b"\x89NtR"), data=data))
    file = TorchFile(tmp_path / "w.pth")
    np.testing.assert_array_equal(file.read(file.tensors()["w"]), [1, 2])


def numbers_of_view():
    return b"(" + text("v") + number(1) + number(2) + b"t"


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
