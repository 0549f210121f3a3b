"""NumPy archives of parameters: read as any other file; hostile and damaged ones are named."""

import io
import struct
import time
import zipfile

import numpy as np
import pytest
from test_checkpoint_loading import CONFIG, dino_entries, tokens

import weights
from weights import WeightsError
from weights.files import read_entries

CODE = "__import__('os').system('touch pwned')"


def npy(header, values=b"", version=(1, 0)):
    """A member with a header of one's own."""
    text = header.encode("latin1").ljust(118) + b"\n"
    return b"\x93NUMPY" + bytes(version) + struct.pack("<H" if version[0] == 1 else "<I", len(text)) + text + values


def good(shape=(3,), dtype="<f4", values=bytes(12)):
    return npy(f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}", values)


def zipped(*members, how=zipfile.ZIP_STORED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", how) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return file.getvalue()


def pickled():
    file = io.BytesIO()
    np.savez(file, cls_token=np.array([CODE, None], object))
    return file.getvalue()


def twice():
    with pytest.warns(UserWarning, match="Duplicate name"):
        return zipped(("a.npy", good()), ("a.npy", good()))


def changed(data, offset, value):
    """A byte of the first entry in the list of members."""
    out = bytearray(data)
    out[out.rindex(b"PK\x01\x02") + offset] = value
    return bytes(out)


def overlapping():
    """Many names for the same megabyte."""
    data = zipped(("a.npy", good((1 << 18,), values=bytes(1 << 20))))
    at, end = data.index(b"PK\x01\x02"), data.index(b"PK\x05\x06")
    entry = data[at:end]
    entries = b"".join(entry.replace(b"a.npy", bytes([97 + i]) + b".npy") for i in range(9))
    tail = data[end : end + 8] + struct.pack("<HHLLH", 9, 9, len(entries), at, 0)
    return data[:at] + entries + tail


HOSTILE = {
    "a pickle": (pickled, "cls_token.npy holds Python objects, which are not read; save arrays of numbers"),
    "code for a header": (lambda: zipped(("a.npy", npy(CODE))), "malformed node"),
    "a nested header": (lambda: zipped(("a.npy", npy("(" * 117))), ""),
    "a bomb": (
        lambda: zipped(("a.npy", good((1 << 23,), values=bytes(1 << 25))), how=zipfile.ZIP_DEFLATED),
        "far more than it holds",
    ),
    "more claimed than held": (lambda: zipped(("a.npy", good((1 << 40,)))), "claims .* and does not hold so many"),
    "a negative shape": (lambda: zipped(("a.npy", good((-3,)))), "has the shape"),
    "truth for a shape": (lambda: zipped(("a.npy", good((True, 3)))), "has the shape"),
    "no array in a member": (lambda: zipped(("a.npy", b"x" * 200)), "magic string"),
    "an empty member": (lambda: zipped(("a.npy", b"")), ""),
    "a name twice": (twice, "a.npy comes twice"),
    "encrypted": (lambda: changed(zipped(("a.npy", good())), 8, 1), "encrypted"),
    "another packing": (lambda: zipped(("a.npy", good()), how=zipfile.ZIP_LZMA), "packed in a way that NumPy has not"),
    "members that overlap": (overlapping, "its members overlap"),
    "a format to come": (
        lambda: zipped(("a.npy", npy("{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }", bytes(12), (3, 0)))),
        "of version",
    ),
    "a crowd": (lambda: zipped(*((f"{i}.npy", good()) for i in range(10_001))), "10001 arrays, which no backbone has"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_and_damaged_archives_are_named(tmp_path, monkeypatch, case):
    monkeypatch.chdir(tmp_path)
    make, message = HOSTILE[case]
    path = tmp_path / "w.npz"
    path.write_bytes(make())
    began = time.process_time()
    with pytest.raises(WeightsError, match=f"^{path}: no sound NumPy archive: .*{message}") as error:
        read_entries(path)
    assert str(error.value).isprintable()
    assert not (tmp_path / "pwned").exists()
    # A minute would be a way to keep the machine busy; this is three orders of magnitude more than any case takes.
    assert time.process_time() - began < 30


@pytest.fixture
def saved(tmp_path, rng):
    """DINO's parameters in an archive."""
    entries = dino_entries(rng)
    np.savez(tmp_path / "w.npz", **entries)
    return tmp_path / "w.npz", entries


SIZES = {"heads": CONFIG["num_attention_heads"], "norm_epsilon": CONFIG["layer_norm_eps"]}


def test_an_archive_is_read_like_any_other_file(saved, tmp_path):
    path, entries = saved
    from safetensors.numpy import save_file

    save_file(entries, tmp_path / "w.safetensors")
    want = tokens(weights.load(tmp_path / "w.safetensors", "dino_vitb8", **SIZES))
    np.savez_compressed(tmp_path / "packed.npz", **entries)
    np.savez(tmp_path / "turned.npz", **{k: np.asfortranarray(v.astype(">f4")) for k, v in entries.items()})
    path.rename(tmp_path / "nameless")
    for name in ("nameless", "packed.npz", "turned.npz"):
        np.testing.assert_array_equal(tokens(weights.load(tmp_path / name, "dino_vitb8", **SIZES)), want)


def test_another_models_settings_beside_it_do_not_count(saved, tmp_path):
    (tmp_path / "config.json").write_text("{")
    assert weights.load(saved[0], "dino_vitb8", **SIZES).depth == 2


@pytest.mark.parametrize("cut", [100, 5000])
def test_an_archive_that_is_cut_short_is_no_checkpoint(saved, cut):
    path, _ = saved
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(WeightsError, match=f"^{path}: .*fetch it again"):
        weights.load(path, "dino_vitb8", **SIZES)


def test_a_value_that_was_changed_is_noticed(saved):
    path, entries = saved
    data = bytearray(path.read_bytes())
    data[data.index(entries["layernorm.bias"].tobytes()) + 2] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(WeightsError, match=r"no sound NumPy archive: Bad CRC-32 for file 'layernorm\.bias\.npy'"):
        weights.load(path, "dino_vitb8", **SIZES)


def test_what_is_no_floating_point_number_is_named(saved):
    path, entries = saved
    np.savez(path, **entries | {"layernorm.bias": np.arange(32)})
    with pytest.raises(WeightsError, match=r"layernorm\.bias of type int64, expected floating point numbers"):
        weights.load(path, "dino_vitb8", **SIZES)
