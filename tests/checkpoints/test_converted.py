"""Converted parameters: the same ones, with their provenance, and never trusted when damaged."""

import json
import multiprocessing
import os
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import weights
from musc_jax.storage import atomic
from weights import converted

TINY = {"width": 32, "depth": 2, "heads": 2, "mlp_width": 48, "native_grid": 4}


@pytest.fixture
def source(tmp_path, rng):
    """A checkpoint under DINO's own names."""
    w = lambda *s: rng.normal(size=s).astype(np.float32)  # noqa: E731
    entries = {"cls_token": w(1, 1, 32), "pos_embed": w(1, 17, 32), "patch_embed.proj.weight": w(32, 3, 8, 8)}
    entries |= {"patch_embed.proj.bias": w(32), "norm.weight": w(32), "norm.bias": w(32)}
    for i in range(2):
        for name, shape in {
            "norm1": (32,),
            "attn.qkv": (96, 32),
            "attn.proj": (32, 32),
            "norm2": (32,),
            "mlp.fc1": (48, 32),
            "mlp.fc2": (32, 48),
        }.items():
            entries[f"blocks.{i}.{name}.weight"], entries[f"blocks.{i}.{name}.bias"] = w(*shape), w(shape[0])
    save_file(entries, tmp_path / "source.safetensors")
    return tmp_path / "source.safetensors"


@pytest.fixture
def file(source, tmp_path):
    weights.convert(source, "dino_vitb8", tmp_path / "out" / "dino_vitb8.safetensors", heads=2)
    return tmp_path / "out" / "dino_vitb8.safetensors"


def rewrite(file, values=None, **metadata):
    """The same file with other values or metadata, sound as a safetensors file."""
    with safe_open(file, framework="np") as archive:
        known = archive.metadata()
    changed = {k: v for k, v in (known | metadata).items() if v is not None}
    save_file(load_file(file) | (values or {}), file, changed)


def test_gives_the_same_backbone_as_the_source(source, file):
    one, other = weights.load(source, "dino_vitb8", heads=2), weights.load(file, "dino_vitb8")
    assert one.module == other.module
    assert one.digest == other.digest
    assert jax.tree.structure(one.variables) == jax.tree.structure(other.variables)
    for a, b in zip(jax.tree.leaves(one.variables), jax.tree.leaves(other.variables), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX's")
def test_may_be_read_by_whoever_may_read_other_new_files(file):
    (file.parent / "other").touch()
    assert file.stat().st_mode == (file.parent / "other").stat().st_mode


def test_says_where_it_comes_from(source, file):
    with safe_open(file, framework="np") as archive:
        metadata = archive.metadata()
    assert metadata["source"] == str(source)
    assert metadata["backbone"] == "dino_vitb8"
    assert metadata["musc_jax_converter"] == str(converted.CONVERTER)
    assert metadata["source_sha256"] == weights.load(source, "dino_vitb8", heads=2).digest
    assert json.loads(metadata["architecture"])["width"] == 32
    assert [p.name for p in file.parent.iterdir()] == [file.name]


def test_parameters_outlive_the_file(file):
    """JAX must not go on using the memory of a mapped file that may change."""
    backbone = weights.load(file, "dino_vitb8")
    before = [np.array(leaf) for leaf in jax.tree.leaves(backbone.variables)]
    with file.open("r+b") as raw:
        raw.seek(-20_000, os.SEEK_END)
        raw.write(b"\xff" * 20_000)
    for a, b in zip(jax.tree.leaves(backbone.variables), before, strict=True):
        np.testing.assert_array_equal(a, b)


def flip(file):
    data = bytearray(file.read_bytes())
    data[-5] ^= 1
    file.write_bytes(bytes(data))


def cut(file):
    file.write_bytes(file.read_bytes()[:-10])


DAMAGED = {
    "a flipped bit": flip,
    "cut short": cut,
    "empty": lambda f: f.write_bytes(b""),
    "a web page": lambda f: f.write_text("<html>"),
    "another version": lambda f: rewrite(f, musc_jax_converter="0"),
    "another backbone": lambda f: rewrite(f, backbone="dino_vitb16"),
    "no architecture": lambda f: rewrite(f, architecture=None),
    "an architecture of nonsense": lambda f: rewrite(f, architecture='{"width": "x"}'),
    "an architecture without end": lambda f: rewrite(f, architecture=json.dumps({"depth": 10**9})),
    "unknown fields": lambda f: rewrite(f, architecture='{"colour": 1}'),
    "another value": lambda f: rewrite(f, {"norm/bias": np.zeros(32, np.float32)}),
    "another type": lambda f: rewrite(f, {"norm/bias": np.zeros(32, np.float16)}),
    "an additional array": lambda f: rewrite(f, {"more": np.zeros(3, np.float32)}),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_what_is_damaged_is_refused(file, kind):
    DAMAGED[kind](file)
    started = time.process_time()
    with pytest.raises(weights.WeightsError) as error:
        weights.load(file, "dino_vitb8")
    assert time.process_time() - started < 2
    assert str(file) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_checksum_that_fits_does_not_make_shapes_fit(file):
    """A file that was made to look sound, with a parameter that its architecture does not have."""
    values = load_file(file) | {"norm/bias": np.zeros(31, np.float32)}
    digest = converted._digest(values)
    rewrite(file, values, parameters_sha256=digest)
    with pytest.raises(weights.WeightsError, match="not those of its architecture"):
        weights.load(file, "dino_vitb8")


def test_output_is_checked_before_any_work(source, file, tmp_path):
    for arguments, message in (
        ((source, "dino_vitb8", tmp_path / "x.pth"), "ends in .safetensors"),
        ((source, "dino_vitb8", source), "same file"),
        ((file, "dino_vitb8", tmp_path / "y.safetensors"), "converted already"),
        ((source, "resnet", tmp_path / "y.safetensors"), "expected one of"),
        (("", "dino_vitb8", tmp_path / "y.safetensors"), "'': no such file or folder; pass a file or folder"),
        (("pretrained", "dino_vitb8", tmp_path / "y.safetensors"), "folder; pass a file or folder with a checkpoint"),
        (("https://a.org/w.pth", "dino_vitb8", tmp_path / "y.safetensors"), "https://a.org/w.pth: an address"),
    ):
        with pytest.raises(weights.WeightsError, match=message):
            weights.convert(*arguments)
    (tmp_path / "full").write_text("a file where a folder is needed")
    with pytest.raises(weights.WeightsError, match="cannot be written"):
        weights.convert(source, "dino_vitb8", tmp_path / "full" / "y.safetensors", heads=2)


def test_what_a_killed_process_left_is_removed(source, file):
    """A process that no longer runs; what a living one is writing stays."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    with atomic.temporary(file) as living:
        living.write_bytes(b"half")
        orphan = living.with_name(living.name.replace(f"~{os.getpid()}~", f"~{ended.pid}~"))
        orphan.write_bytes(b"half")
        weights.convert(source, "dino_vitb8", file, heads=2)
        assert living.exists()
        assert not orphan.exists()


def _convert(source, file):
    weights.convert(source, "dino_vitb8", file, heads=2)


def test_two_processes_converting_at_once_do_no_harm(source, tmp_path):
    file = tmp_path / "shared" / "dino_vitb8.safetensors"
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_convert, args=(source, file)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert weights.load(file, "dino_vitb8").depth == 2
    assert [p.name for p in file.parent.iterdir()] == [file.name]


# The cache of what was fetched


def test_a_damaged_cache_is_made_anew_and_said_so(source, file, tmp_path, monkeypatch):
    spec = weights.BACKBONES["dino_vitb8"]
    monkeypatch.delenv("MUSC_WEIGHTS_DIR", raising=False)
    fetched = []

    def fetch(spec, target, revision, report, progress):
        fetched.append(target)
        return weights.sources.converted.write(target, *_stored_parts(file, spec))

    monkeypatch.setattr(weights.sources, "_fetch", fetch)
    store = tmp_path / "cache"
    for round_, spoil in enumerate(
        (lambda f: None, lambda f: None, flip, cut, lambda f: rewrite(f, origin="elsewhere"))
    ):
        stored = store / f"{spec.name}.safetensors"
        if round_:
            spoil(stored)
        said = []
        backbone = weights.load("pretrained", "dino_vitb8", cache_dir=store, report=said.append)
        assert backbone.depth == 2
        assert len(fetched) == (1 if round_ < 2 else round_)
        assert bool([line for line in said if "made anew" in line]) == (round_ >= 2), said
    assert set(fetched) == {stored}


def test_what_is_stored_is_read_once(source, tmp_path, monkeypatch):
    """Its checksum takes as long as reading it."""
    monkeypatch.delenv("MUSC_WEIGHTS_DIR", raising=False)
    weights.convert(source, "dino_vitb8", tmp_path / "cache" / "dino_vitb8.safetensors", heads=2)
    read, seen = converted.read, []
    monkeypatch.setattr(converted, "read", lambda *arguments: seen.append(arguments) or read(*arguments))
    assert weights.load("pretrained", "dino_vitb8", cache_dir=tmp_path / "cache").depth == 2
    assert len(seen) == 1


def test_what_is_the_users_own_is_not_replaced_by_what_is_published(source, tmp_path, monkeypatch):
    """A damaged file in the folder of the user, made from parameters that cannot be fetched."""
    monkeypatch.delenv("MUSC_WEIGHTS_DIR", raising=False)
    monkeypatch.setattr(weights.sources, "_fetch", None)
    own = tmp_path / "mine" / "dino_vitb8.safetensors"
    weights.convert(source, "dino_vitb8", own, heads=2)
    assert weights.load("pretrained", "dino_vitb8", weights_dir=own.parent).depth == 2
    flip(own)
    before = own.read_bytes()
    for again in (
        lambda: weights.load("pretrained", "dino_vitb8", weights_dir=own.parent, cache_dir=tmp_path / "cache"),
        lambda: weights.fetch("dino_vitb8", own.parent),
    ):
        with pytest.raises(
            weights.WeightsError, match=r"a file of your own.*checksum differs.*convert that file again"
        ):
            again()
    assert own.read_bytes() == before


def _stored_parts(file, spec):
    values, provenance = converted.read(file, spec.name)
    return {k: np.array(v) for k, v in values.items()}, provenance
