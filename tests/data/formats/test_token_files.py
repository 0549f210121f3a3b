"""Files of tokens: read strictly, whoever wrote them."""

import json
import pickle
import struct

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save

from musc_jax.data.feature_notes import FeatureNotes, read_notes
from musc_jax.data.formats.files import FileFault
from musc_jax.data.formats.tokens import read_tokens, tokens_bytes
from musc_jax.data.sample import SampleTokens


def f(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def safetensors_of(kinds):
    """By hand, for types that NumPy lacks."""
    header, body = {}, b""
    for name, (kind, array) in kinds.items():
        header[name] = {
            "dtype": kind,
            "shape": list(array.shape),
            "data_offsets": [len(body), len(body) + array.nbytes],
        }
        body += array.tobytes()
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


BOTH = {"image.0": f(9, 4), "image.1": f(9, 5), "points.0": f(6, 3), "points.1": f(6, 3), "pixels": np.arange(6)}


def test_what_is_written_is_read_back_bit_for_bit(tmp_path):
    tokens = SampleTokens(
        (f(9, 4), f(9, 5)), (f(6, 3), f(6, 3)), np.arange(6, dtype=np.int32), np.abs(f(6)), embedding=f(7)
    )
    (tmp_path / "a.safetensors").write_bytes(tokens_bytes(tokens, {"made": "here"}))
    found = read_tokens(tmp_path / "a.safetensors")
    assert found.notes == {"made": "here"}
    assert found.centers is None
    for name in ("image", "points"):
        for got, want in zip(getattr(found.tokens, name), getattr(tokens, name), strict=True):
            np.testing.assert_array_equal(got, want)
    for name in ("pixels", "curvature", "embedding"):
        got, want = getattr(found.tokens, name), getattr(tokens, name)
        assert got.dtype == want.dtype
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("shape", [(9, 4), (2, 9, 4)])
def test_arrays_of_numpy_are_tokens_of_an_image(tmp_path, shape):
    array = f(*shape)
    for given in (array, np.asfortranarray(array), array.astype(">f4"), array.astype(np.float64)):
        np.save(tmp_path / "a.npy", given)
        found = read_tokens(tmp_path / "a.npy").tokens
        assert found.points == ()
        np.testing.assert_array_equal(np.stack(found.image), array.reshape(-1, 9, 4))
        assert all(stage.dtype == np.float32 and stage.dtype.isnative for stage in found.image)


@pytest.mark.parametrize(("kind", "dtype"), [("F16", np.float16), ("BF16", ml_dtypes.bfloat16), ("F64", np.float64)])
def test_other_types_become_float32(tmp_path, kind, dtype):
    given = f(4, 3).astype(dtype)
    (tmp_path / "a.safetensors").write_bytes(safetensors_of({"image.0": (kind, given)}))
    (stage,) = read_tokens(tmp_path / "a.safetensors").tokens.image
    np.testing.assert_array_equal(stage, given.astype(np.float32))


def test_centres_may_stand_for_pixels(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(save({"points.0": f(6, 3), "centers": f(6, 3, seed=1)}))
    found = read_tokens(tmp_path / "a.safetensors")
    np.testing.assert_array_equal(found.centers, f(6, 3, seed=1))
    assert found.tokens.pixels.shape == (0,)
    assert found.tokens.curvature is None


def _with(**changes):
    arrays = {**BOTH, **changes}
    return {name: np.ascontiguousarray(array) for name, array in arrays.items() if array is not None}


WRONG = {
    "pickles": ("a.npy", pickle.dumps([1]), "cannot be read as NPY"),
    "NPY whose header never ends": (
        "a.npy",
        b"\x93NUMPY\x01\x00v\x00" + b"(" * 117 + b"\n",
        "cannot be read as NPY",
    ),
    "class token": (
        {"image.0": f(10, 4)},
        "image.0: 10 tokens are 3 x 3 patches and 1 more; leave out the class token",
    ),
    "no grid": ({"image.0": f(12, 4)}, "image.0: 12 tokens are no square grid"),
    "other name": (_with(image=f(9, 4)), "'image' is no name of an array here; expected image.0, image.1"),
    "gap": (_with(**{"image.3": f(9, 4)}), "'image.3' is no name of an array here"),
    "nothing": ({"embedding": f(3)}, "holds no tokens; expected image.0"),
    "integers": ({"image.0": np.ones((4, 2), np.int32)}, "image.0: holds I32; save float32"),
    "pixels of floats": (_with(pixels=f(6)), "pixels: holds F32; save int32 or int64"),
    "negative pixels": (_with(pixels=np.full(6, -1)), "pixels: expected numbers from 0 on"),
    "far pixels": (_with(pixels=np.full(6, 2**31)), "pixels: expected numbers from 0 on"),
    "pixels of others": (_with(pixels=np.arange(5)), r"pixels: expected the shape \(6\), received \(5,\)"),
    "no place": (_with(pixels=None), "does not say where its groups lie; save pixels"),
    "centres": (_with(centers=f(6, 2)), r"centers: expected the shape \(6, 3\), received \(6, 2\)"),
    "curvature": (_with(curvature=f(6, 1)), r"curvature: expected the shape \(6\), received \(6, 1\)"),
    "stages apart": (_with(**{"points.1": f(5, 3)}), r"points.1: expected the shape \(6, channels\)"),
    "a stack": ({"image.0": f(2, 9, 4)}, r"image.0: expected the shape \(tokens, channels\), received \(2, 9, 4\)"),
    "empty": ({"image.0": f(0, 4)}, r"image.0: expected the shape \(tokens, channels\), received \(0, 4\)"),
    "NaN": (_with(**{"points.1": np.full((6, 3), np.nan, np.float32)}), "points.1: holds values that are not finite"),
    "beyond float32": ({"image.0": np.full((4, 2), 1e300)}, "image.0: holds values that are not finite"),
    "a cube": (
        f(4, 4, 7),
        r"\(4, 4, 7\) may be 4 stages of 2 x 2 patches, or 4 x 4 patches; save patches as \(16, 7\)",
    ),
    "channels first": (f(64, 7, 7), "image.0: 7 tokens are no square grid"),
    "a batch": (f(2, 2, 9, 4), r"has the shape \(2, 2, 9, 4\); expected \(tokens, channels\) or"),
    "one axis": (f(9), r"has the shape \(9,\)"),
    "whole numbers": (np.ones((9, 4), np.int8), "holds int8; save float32"),
    "complex": (np.ones((9, 4), complex), "holds complex128; save float32"),
    "long double": (np.ones((9, 4), np.longdouble), "holds float128; save float32"),
    "objects": (np.array([[{}]]), "holds Python objects, which are not read"),
    "bfloat16": (np.ones((9, 4), ml_dtypes.bfloat16), "as NPY files of bfloat16 do; save float32, or safetensors"),
    "nothing at all": ("a.safetensors", b"", "is empty"),
    "text": ("a.safetensors", b"image.0 = 1", "cannot be read as safetensors"),
    "a huge claim": (
        "a.safetensors",
        safetensors_of({"image.0": ("F32", f(4, 2))}).replace(b"[4, 2]", b"[9, 9]"),
        "cannot be read as safetensors",
    ),
    "a web page": ("a.safetensors", b"<!doctype html><html>", "is a web page"),
    "cut short": ("a.safetensors", save({"image.0": f(4, 2)})[:-3], "cannot be read as safetensors"),
}


@pytest.mark.parametrize("name", WRONG)
def test_anything_else_is_refused_in_a_line(tmp_path, name):
    *given, message = WRONG[name]
    content = given[-1]
    path = tmp_path / (given[0] if len(given) == 2 else "a.npy" if isinstance(content, np.ndarray) else "a.safetensors")
    if isinstance(content, np.ndarray):
        np.save(path, content, allow_pickle=True)
    else:
        path.write_bytes(content if isinstance(content, bytes) else save(content))
    with pytest.raises(FileFault, match=message) as caught:
        read_tokens(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert len(str(caught.value).splitlines()) == 1


def test_a_claim_of_numpys_header_is_compared_with_the_file(tmp_path):
    np.save(tmp_path / "a.npy", f(9, 4))
    data = (tmp_path / "a.npy").read_bytes()
    for changed in (data.replace(b"(9, 4)", b"(9, 9)"), data[:-1], data + b"\0", data.replace(b"(9, 4)", b"(9,-4)")):
        assert changed != data
        (tmp_path / "a.npy").write_bytes(changed)
        with pytest.raises(FileFault, match=r"claims|cannot be read"):
            read_tokens(tmp_path / "a.npy")


def test_a_grid_that_is_said_decides(tmp_path):
    np.save(tmp_path / "a.npy", f(4, 4, 7))
    assert [stage.shape for stage in read_tokens(tmp_path / "a.npy", grid=2).tokens.image] == [(4, 7)] * 4
    np.save(tmp_path / "a.npy", f(1, 4, 7))
    with pytest.raises(FileFault, match=r"4 tokens are not the 3 x 3 of features\.json"):
        read_tokens(tmp_path / "a.npy", grid=3)


def test_notes_are_read(tmp_path):
    path = tmp_path / "features.json"
    assert read_notes(path) == FeatureNotes()
    said = {"grid": [14, 14], "stages": 3, "image_size": 224, "modality": "rgb", "aggregated": True, "random": True}
    path.write_text(json.dumps(said | {"backbone": {"image": "net"}, "licence": "MIT", "made": {"by": 1}}))
    notes = read_notes(path)
    assert notes == FeatureNotes(14, 3, 224, "rgb", True, {"image": "net"}, "MIT", True, {"by": 1})
    assert (notes.backbone_of("image"), notes.backbone_of("points")) == ("net", "given tokens")
    assert FeatureNotes(backbone="net").backbone_of("points") == "net"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read as JSON"),
        ("[" * 100_000, "cannot be read as JSON"),
        ("[]", r"expected an object, received \[\]"),
        ('{"agregated": true}', "nobody knows 'agregated'; expected some of grid, stages"),
        ('{"aggregated": 1}', "aggregated: expected true or false, received 1"),
        ('{"grid": [14, 7]}', r"grid: expected the side of a square of patches, or that twice, received \[14, 7\]"),
        ('{"grid": true}', "grid: expected"),
        ('{"stages": 0}', "stages: expected a whole number of at least 1, received 0"),
        ('{"image_size": 1.5}', "image_size: expected a whole number"),
        ('{"modality": "depth"}', "modality: expected one of rgb, points"),
        ('{"backbone": {"rgb": "a"}}', "backbone: expected a name, or"),
        ('{"licence": null}', "licence: expected a text, received null"),
        ('{"random": "no"}', "random: expected true or false"),
    ],
)
def test_notes_that_are_wrong_are_refused_in_a_line(tmp_path, text, message):
    path = tmp_path / "features.json"
    path.write_text(text)
    with pytest.raises(FileFault, match=message) as caught:
        read_notes(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert len(str(caught.value).splitlines()) == 1
