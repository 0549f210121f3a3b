"""Checkpoints that Python 2 and PyTorch before 0.4 wrote: other opcodes and other calls for the same things."""

import struct

import numpy as np
import pytest
from test_torch_file import Global, legacy, number, numbers, storage

import weights
from weights import WeightsError
from weights.torch_file import TorchFile

ORDERED = Global("collections", "OrderedDict").text


def short(value):
    """A string: bytes, as Python 2's are."""
    return b"U" + bytes([len(value)]) + value.encode()


def old_tensor(shape=(4,), strides=(1,), offset=0, *, size=None, **options):
    """As PyTorch before 0.4 has it: no gradient, no hooks."""
    shape_text = numbers(shape) if size is None else size
    arguments = storage(**options) + number(offset) + shape_text + numbers(strides)
    return Global("torch._utils", "_rebuild_tensor").text + b"(" + arguments + b"tR"


def ordered(**entries):
    """What Python 2 reduces a dictionary in order to: a call with a list of pairs, each of them a list."""
    pairs = b"".join(b"](" + short(name) + value + b"e" for name, value in entries.items())
    return ORDERED + b"](" + pairs + b"e\x85R"


def written(tmp_path, content):
    (tmp_path / "w.pth").write_bytes(
        legacy(content=b"\x80\x02" + content + b".", data=np.arange(4, dtype="<f4").tobytes())
    )
    return TorchFile(tmp_path / "w.pth")


def parameter(value):
    """Called with its tensor; its state is set afterwards."""
    return Global("torch.nn.parameter", "Parameter").text + b"(" + value + b"tR(\x89\x89Ntb"


SOUND = {
    "pairs": ordered(w=old_tensor()),
    "within others": b"}" + short("state_dict") + ordered(model=ordered(w=old_tensor())) + b"s",
    "the call of today": ordered(
        w=old_tensor().replace(b"_rebuild_tensor\n", b"_rebuild_tensor_v2\n").replace(b"tR", b"\x89NtR")
    ),
    "a size of its own type": ordered(w=old_tensor(size=Global("torch", "Size").text + numbers((4,)) + b"\x85R")),
    "a parameter": ordered(w=parameter(old_tensor())),
    "a variable": ordered(
        w=parameter(old_tensor()).replace(b"torch.nn.parameter\nParameter", b"torch.autograd.variable\nVariable")
    ),
    "numbers and long strings as text": ordered(
        epoch=b"I4294967296\n", best=b"I01\n", log=b"T" + struct.pack("<i", 300) + b"x" * 300, w=old_tensor()
    ),
    "pairs as tuples": ORDERED + b"](" + short("w") + old_tensor() + b"\x86e\x85R",
}


@pytest.mark.parametrize("kind", SOUND)
def test_what_python2_wrote_is_read(tmp_path, kind):
    file = written(tmp_path, SOUND[kind])
    found = {name.rpartition(".")[2]: tensor for name, tensor in file.tensors().items()}
    assert set(found) == {"w"}
    np.testing.assert_array_equal(file.read(found["w"]), np.arange(4, dtype=np.float32))


HOSTILE = {
    "pairs of three": ORDERED + b"](](" + short("a") + b"NNe" + b"e\x85R",
    "pairs that are none": ORDERED + b"](" + short("ab") + b"e\x85R",
    "a key that is none": ORDERED + b"](](]Ne" + b"e\x85R",
    "a tensor past the end": ordered(w=old_tensor(shape=(5,))),
    "a tensor over itself": ordered(w=old_tensor(shape=(1000, 4), strides=(0, 1))),
    "a size of no numbers": ordered(w=old_tensor(size=Global("torch", "Size").text + b"(" + short("a") + b"t\x85R")),
    "a string of less than nothing": b"T" + struct.pack("<i", -5),
    "a number that is none": b"Iabc\n",
    "a number without end": b"I" + b"9" * 300 + b"\n",
    "a call of something": Global("os", "system").text + b"(" + short("true") + b"tR",
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_what_is_wrong_with_it_ends_in_one_error(tmp_path, kind):
    with pytest.raises(WeightsError, match=r"w\.pth: no sound PyTorch checkpoint: .*; ") as error:
        written(tmp_path, HOSTILE[kind])
    assert str(error.value).isprintable()


def test_a_backbone_is_loaded_from_it(tmp_path):
    """All of it, through the call that users make."""
    from test_torch_file import sound

    entries = sound()
    content = ordered(
        **{
            name: old_tensor(value.shape, [s // 4 for s in value.strides], key=str(i), count=value.size)
            for i, (name, value) in enumerate(entries.items())
        }
    )
    keys, counts = [str(i) for i in range(len(entries))], [value.size for value in entries.values()]
    data = legacy(content=b"\x80\x02" + content + b".", keys=keys, counts=())
    data += b"".join(
        struct.pack("<q", count) + value.tobytes() for count, value in zip(counts, entries.values(), strict=True)
    )
    (tmp_path / "w.pth").write_bytes(data)
    loaded = weights.load(tmp_path / "w.pth", "dino_vitb8", heads=2)
    np.testing.assert_array_equal(loaded.variables["params"]["norm"]["scale"], entries["norm.weight"])
