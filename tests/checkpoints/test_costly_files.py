"""Files made to cost time, memory or an unexpected exception, rather than to run something."""

import json
import struct
import zipfile

import pytest
from safetensors.numpy import save_file
from test_torch_file import archive, entry, legacy, number, refused, sound, tensor, text

import weights
from weights import WeightsError
from weights.files import strip_prefixes


def dictionary(items):
    return b"\x80\x02}(" + b"".join(items) + b"u."


def colliding_keys(path):
    """Whole numbers that all fall into one slot of a dictionary."""
    archive(path, dictionary(number(i * ((1 << 61) - 1)) + b"N" for i in range(1, 49_000)))


def crowd_of_tensors(path):
    first = text("embeddings.cls_token") + tensor() + b"q\x05"
    archive(path, dictionary([first, *(text(f"{'.mlp.fc1' * 40}{i}") + b"h\x05" for i in range(40_000))]))


def long_globals(path):
    """Names of a thousand characters, each kept in full by whatever was made with it."""
    name = b"ctorch\n\xf0\x9f\x98\x80" + b"\xff" * 990 + b"\nq\x00"
    archive(path, b"\x80\x02(" + name + b"h\x00)R" * 60_000 + b"t.")


def offset_beyond_all_numbers(path):
    archive(path, entry(tensor()))
    data = bytearray(path.read_bytes())
    at, extra = data.rindex(b"PK\x01\x02"), struct.pack("<HHQ", 1, 8, (1 << 64) - 1)
    name = int.from_bytes(data[at + 28 : at + 30], "little")
    data[at + 42 : at + 46] = b"\xff" * 4
    data[at + 30 : at + 32] = struct.pack("<H", len(extra))
    data[at + 46 + name : at + 46 + name] = extra
    end = data.rindex(b"PK\x05\x06")
    data[end + 12 : end + 16] = struct.pack("<I", int.from_bytes(data[end + 12 : end + 16], "little") + len(extra))
    path.write_bytes(bytes(data))


def list_of_no_members(path):
    """The archive's end says that it holds nothing, though it begins like one that does."""
    archive(path, entry(tensor()))
    data = bytearray(path.read_bytes())
    end = data.rindex(b"PK\x05\x06")
    data[end + 8 : end + 16] = bytes(8)  # two counts and the size of the list
    path.write_bytes(bytes(data))


COSTLY = {
    "keys that collide": (colliding_keys, "a dictionary key of a senseless size"),
    "a crowd of tensors": (
        crowd_of_tensors,
        "holds 40001 parameters, which no backbone has",
    ),
    "long names of globals": (long_globals, "an endless name"),
    "a list of no members": (list_of_no_members, "its list of members is empty"),
    "an offset beyond all numbers": (offset_beyond_all_numbers, "cannot be read as a PyTorch checkpoint"),
}


@pytest.mark.parametrize("kind", COSTLY)
def test_costly_files_end_in_one_error(tmp_path, kind):
    make, message = COSTLY[kind]
    path = tmp_path / "weights.pth"
    make(path)
    refused(path, lambda: weights.load(path, "dino_vitb8", heads=2))
    with pytest.raises(WeightsError, match=message):
        weights.load(path, "dino_vitb8", heads=2)


def test_the_pickles_of_the_older_format_share_their_limit(tmp_path):
    """Five of them, each as long as one may be, would take five times as long."""
    path, padding = tmp_path / "weights.pth", b"q\x00" * 150_000
    content = legacy(content=b"\x80\x02}" + padding + b".")
    path.write_bytes(content.replace(b"\x80\x02M\xe9\x03.", b"\x80\x02M\xe9\x03" + padding + b".", 1))
    refused(path, lambda: weights.load(path, "dino_vitb8", heads=2))
    with pytest.raises(WeightsError, match="does not come to an end"):
        weights.load(path, "dino_vitb8", heads=2)


def test_a_crowd_of_entries_in_safetensors(tmp_path):
    path = tmp_path / "weights.safetensors"
    empty = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    content = json.dumps({f"encoder.layer.{i}": empty for i in range(40_000)}, separators=(",", ":")).encode()
    path.write_bytes(struct.pack("<Q", len(content)) + content)
    refused(path, lambda: weights.load(path, "dino_vitb8", heads=2))
    with pytest.raises(WeightsError, match="holds 40000 parameters, which no backbone has"):
        weights.load(path, "dino_vitb8", heads=2)


def test_torchscript_is_recognised_by_its_code(tmp_path):
    """Only the code in such an archive is compressed; that is not what is wrong with it."""
    path = archive(tmp_path / "ViT-B-32.pt", entry(tensor()), members=[("a/constants.pkl", b"N.")])
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a/code/__torch__.py", "x = 1\n" * 100)
    refused(path, lambda: weights.load(path, "clip_vitb32"))
    with pytest.raises(WeightsError, match=r"a TorchScript archive, .* from Hugging Face"):
        weights.load(path, "clip_vitb32")


@pytest.mark.parametrize("wrappers", ["", "module.", "model.module.", "dinov2_with_registers.", "module.vit." * 3])
def test_wrappers_are_taken_off_in_any_order(tmp_path, wrappers):
    assert strip_prefixes(f"{wrappers}blocks.0.model.x") == "blocks.0.model.x"
    save_file(sound(lambda e: {wrappers + k: v for k, v in e.items()}), tmp_path / "w.safetensors")
    assert weights.load(tmp_path / "w.safetensors", "dino_vitb8", heads=2).depth == 2
