"""Bad input ends in one report that names every file and the way out."""

import contextlib
import os
import random
import struct
import zlib

import numpy as np
import pytest
import tifffile
from eyecandies_tree import SIDE, fingerprint, write_category, write_sample
from PIL import Image

from musc_jax.data import DataError, open_dataset
from musc_jax.data.formats import files

INDICES = ("00", "01", "02", "03", "04", "05", "06", "07")


@pytest.fixture
def raw(tmp_path):
    return write_category(tmp_path / "data", "Lollipop", INDICES)


@pytest.fixture
def xyz(tmp_path):
    return write_category(tmp_path / "data", "Lollipop", INDICES, raw=False, xyz=True)


def read(folder, **options):
    options.setdefault("cache_dir", folder.parents[3] / "cache")
    return open_dataset("eyecandies", data_dir=folder.parents[2], **options)


def report(folder, **options):
    before = fingerprint(folder.parents[2])
    with pytest.raises(DataError) as caught:
        read(folder, **options)
    assert fingerprint(folder.parents[2]) == before
    return str(caught.value)


def png(path, pixels):
    Image.fromarray(pixels).save(path)


def claim_size(path, width, height):
    """A PNG that claims to be much larger than it is."""
    data = path.read_bytes()
    header = b"IHDR" + struct.pack(">II", width, height) + data[24:29]
    path.write_bytes(data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:])


def cut(path, share=0.6):
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


def break_chunk(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


def replaced_by_folder(path):
    path.unlink()
    path.mkdir()


def replaced_by_loop(path):
    path.unlink()
    path.symlink_to(path.name)


def replaced_by_dangling_link(path):
    path.unlink()
    path.symlink_to("nowhere")


def replaced_by_pipe(path):
    path.unlink()
    os.mkfifo(path)


def grey(value, dtype=np.uint8, side=SIDE):
    return np.full((side, side), value, dtype)


SIDE_FAULTS = {
    "image missing": ("image_0.png", lambda p: p.unlink(), "missing"),
    "image empty": ("image_0.png", lambda p: p.write_bytes(b""), "empty"),
    "image cut": ("image_0.png", cut, "damaged PNG"),
    "image cut near its end": ("image_0.png", lambda p: cut(p, 0.97), "damaged PNG"),
    "image header only": ("image_0.png", lambda p: p.write_bytes(p.read_bytes()[:20]), "not a PNG"),
    "image chunk": ("image_0.png", break_chunk, "damaged PNG"),
    "image no PNG": ("image_0.png", lambda p: p.write_bytes(b"GIF89a" * 20), "not a PNG"),
    "image grey": ("image_0.png", lambda p: png(p, grey(9)), "must be 8-bit RGB"),
    "image with alpha": ("image_0.png", lambda p: png(p, np.full((SIDE, SIDE, 4), 9, np.uint8)), "must be 8-bit RGB"),
    "image bomb": ("image_0.png", lambda p: claim_size(p, 60000, 60000), "claims 60000 x 60000"),
    "image zero wide": ("image_0.png", lambda p: claim_size(p, 0, 10), "damaged PNG"),
    "image folder": ("image_0.png", replaced_by_folder, "not a regular file"),
    "image loop": ("image_0.png", replaced_by_loop, "cannot be read"),
    "image dangling": ("image_0.png", replaced_by_dangling_link, "missing"),
    "image pipe": ("image_0.png", replaced_by_pipe, "not a regular file"),
    "mask missing": ("mask.png", lambda p: p.unlink(), "missing"),
    "mask cut": ("mask.png", cut, "damaged PNG"),
    "mask size": ("mask.png", lambda p: png(p, grey(0, side=SIDE + 1)), f"its image is {SIDE} x {SIDE}"),
    "mask 16 bit": ("mask.png", lambda p: png(p, grey(0, np.uint16)), "must be 8-bit grey"),
    "mask colour": ("mask.png", lambda p: png(p, np.zeros((SIDE, SIDE, 3), np.uint8)), "must be 8-bit grey"),
}
RAW_FAULTS = SIDE_FAULTS | {
    "depth missing": ("depth.png", lambda p: p.unlink(), "missing"),
    "depth cut": ("depth.png", cut, "damaged PNG"),
    "depth 8 bit": ("depth.png", lambda p: png(p, grey(7)), "must be 16-bit grey"),
    "depth size": ("depth.png", lambda p: png(p, grey(7, np.uint16, SIDE // 2)), f"{SIDE // 2} x {SIDE // 2} pixels"),
    "depth zero": ("depth.png", lambda p: png(p, grey(0, np.uint16)), "no points"),
    "range missing": ("info_depth.yaml", lambda p: p.unlink(), "missing"),
    "range broken": ("info_depth.yaml", lambda p: p.write_text("{normalization: ["), "not readable YAML"),
    "range no mapping": ("info_depth.yaml", lambda p: p.write_text("- 1\n"), "not a YAML mapping"),
    "range no section": ("info_depth.yaml", lambda p: p.write_text("min: 1\nmax: 2\n"), "no section"),
    "range no max": ("info_depth.yaml", lambda p: p.write_text("normalization: {min: 1}"), "normalization.max"),
    "range NaN": ("info_depth.yaml", lambda p: p.write_text("normalization: {min: .nan, max: 2}"), "not finite"),
    "range infinite": ("info_depth.yaml", lambda p: p.write_text("normalization: {min: 1, max: .inf}"), "not finite"),
    "range word": ("info_depth.yaml", lambda p: p.write_text("normalization: {min: a, max: 2}"), "not a number"),
    "range turned": ("info_depth.yaml", lambda p: p.write_text("normalization: {min: 2, max: 1}"), "no range"),
    "range code": (
        "info_depth.yaml",
        lambda p: p.write_text("!!python/object/apply:os.getcwd []"),
        "not readable YAML",
    ),
    "range bytes": ("info_depth.yaml", lambda p: p.write_bytes(b"\xff\xfe\x00\x01"), "not readable YAML"),
    "pose missing": ("pose.txt", lambda p: p.unlink(), "missing"),
    "pose words": ("pose.txt", lambda p: p.write_text("a b c d\n" * 4), "4 x 4 matrix of numbers"),
    "pose 3 x 4": ("pose.txt", lambda p: p.write_text("1 0 0 0\n" * 3), r"its shape is (3, 4)"),
    "pose ragged": ("pose.txt", lambda p: p.write_text("1 0 0 0\n1 0\n"), "4 x 4 matrix of numbers"),
    "pose NaN": ("pose.txt", lambda p: p.write_text("nan 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1\n"), "finite"),
    "pose singular": ("pose.txt", lambda p: p.write_text("1 0 0 0\n" * 4), "cannot be inverted"),
}


def tiff(path, array):
    tifffile.imwrite(path, array, photometric="minisblack")


def nan_at(path):
    points = tifffile.imread(path)
    points[3, 4, 1] = np.nan
    tiff(path, points)


XYZ_FAULTS = {
    "xyz missing": ("xyz.tiff", lambda p: p.unlink(), "missing"),
    "xyz empty": ("xyz.tiff", lambda p: p.write_bytes(b""), "empty"),
    "xyz cut": ("xyz.tiff", cut, "not a readable TIFF"),
    "xyz header": ("xyz.tiff", lambda p: p.write_bytes(p.read_bytes()[:12]), "not a readable TIFF"),
    "xyz no TIFF": ("xyz.tiff", lambda p: p.write_bytes(b"hello" * 9), "not a readable TIFF"),
    "xyz NaN": ("xyz.tiff", nan_at, "NaN"),
    "xyz zero": ("xyz.tiff", lambda p: tiff(p, np.zeros((SIDE, SIDE, 3), np.float32)), "no points"),
    "xyz never all three": (
        "xyz.tiff",
        lambda p: tiff(p, np.tile(np.float32([0, 1, 1]), (SIDE, SIDE, 1))),
        "no points",
    ),
    "xyz integers": ("xyz.tiff", lambda p: tiff(p, np.ones((SIDE, SIDE, 3), np.uint16)), "floating-point"),
    "xyz channels first": ("xyz.tiff", lambda p: tiff(p, np.ones((3, SIDE, SIDE), np.float32)), "shape"),
    "xyz grey": ("xyz.tiff", lambda p: tiff(p, np.ones((SIDE, SIDE), np.float32)), "shape"),
    "xyz size": ("xyz.tiff", lambda p: tiff(p, np.ones((SIDE, SIDE - 1, 3), np.float32)), f"its image is {SIDE}"),
}


def check_fault(folder, item, spoil, words):
    spoil(folder / f"05_{item}")
    text = report(folder)
    assert "\n" not in text
    # A lost xyz.tiff is told as a lack of depth, which would do as well.
    assert text.startswith(str(folder / "05_")), text
    assert f"05_{item}" in text
    assert words in text
    assert "; " in text  # the way out
    kept = read(folder, skip_bad=True)
    assert kept.skipped == {"Lollipop": ("05",)}
    assert kept.names("Lollipop") == tuple(index for index in INDICES if index != "05")
    assert any(f"05_{item}" in line for line in kept.warnings)
    assert len(list(kept.samples("Lollipop", size=8))) == 7


@pytest.mark.parametrize("name", RAW_FAULTS)
def test_one_fault_of_a_raw_sample(raw, name):
    check_fault(raw, *RAW_FAULTS[name])


@pytest.mark.parametrize("name", XYZ_FAULTS)
def test_one_fault_of_an_xyz_sample(xyz, name):
    check_fault(xyz, *XYZ_FAULTS[name])


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission(raw):
    check_fault(raw, "mask.png", lambda path: path.chmod(0), "Permission denied")


def test_a_file_that_may_not_be_read(raw, monkeypatch):
    plain = type(raw).read_bytes

    def refuse(path):
        if path.name == "05_mask.png":
            raise PermissionError(13, "Permission denied")
        return plain(path)

    monkeypatch.setattr(type(raw), "read_bytes", refuse)
    with pytest.raises(DataError, match=r"05_mask\.png: cannot be read \(Permission denied\)"):
        read(raw)


def spoil_six(folder):
    (folder / "00_mask.png").unlink()
    cut(folder / "01_image_0.png")
    png(folder / "03_depth.png", grey(0, np.uint16))
    (folder / "04_info_depth.yaml").write_text("normalization: {min: .nan, max: 1}")
    (folder / "06_pose.txt").write_text("1\n")
    png(folder / "07_mask.png", grey(0, side=3))
    return ["00_mask.png", "01_image_0.png", "03_depth.png", "04_info_depth.yaml", "06_pose.txt", "07_mask.png"]


def test_six_faults_are_all_named_in_order(raw):
    names = spoil_six(raw)
    lines = report(raw).splitlines()
    assert lines[0].startswith("6 problems")
    assert [line.split(": ")[0].strip() for line in lines[1:]] == [str(raw / name) for name in names]


def test_all_faults_of_one_sample_and_of_all_categories(raw):
    other = write_category(raw.parents[2], "Confetto", ("0", "1"))
    (other / "1_mask.png").unlink()
    (raw / "02_mask.png").write_bytes(b"")
    (raw / "02_depth.png").unlink()
    (raw / "02_pose.txt").unlink()
    write_category(raw.parents[2], "Alone", ("0",))
    text = report(raw, categories=["Lollipop", "Alone", "Confetto", "Nothing"])
    positions = [text.index(part) for part in ("Alone", "1_mask", "02_depth", "02_mask", "02_pose", "'Nothing'")]
    assert positions == sorted(positions)
    assert text.startswith("6 problems")


def test_order_does_not_depend_on_the_file_system(tmp_path):
    texts = []
    for turn in range(3):
        order = list(INDICES)
        random.Random(turn).shuffle(order)
        folder = tmp_path / "data" / "Lollipop" / "test_public" / "data"
        for index in order:
            write_sample(folder, index, seed=int(index))
        spoil_six(folder)
        texts.append(report(folder, workers=1 + turn))
        folder.parents[2].rename(tmp_path / f"old{turn}")
    assert texts[0] == texts[1] == texts[2]


def test_skipping_must_leave_two(raw):
    for index in INDICES[1:]:
        (raw / f"{index}_mask.png").unlink()
    text = report(raw, skip_bad=True)
    assert "1 sample to score" in text
    assert text.count("_mask.png: is missing") == 7
    write_sample(raw, "01")
    assert read(raw, skip_bad=True).names("Lollipop") == ("00", "01")


def test_skipping_does_not_excuse_a_whole_category(raw):
    text = report(raw, skip_bad=True, categories=["Lollipop", "Confetto"])
    assert "'Confetto'" in text
    assert "Lollipop" in text


def test_one_sample_is_refused_by_name(tmp_path):
    folder = write_category(tmp_path / "data", "Lollipop", ("7",))
    assert "Lollipop: 1 sample to score, but samples score each other" in report(folder)


def test_a_limit_of_one_is_refused(raw):
    text = report(raw, limit=1)
    assert "samples score each other" in text
    assert "limit" in text


def test_an_image_that_is_gone_is_no_smaller_dataset(raw):
    (raw / "03_image_0.png").unlink()
    assert "03_image_0.png: is missing" in report(raw, modality="rgb")


def test_no_data_dir(tmp_path):
    with pytest.raises(DataError, match=r"data_dir.*test_public/data.*https://"):
        open_dataset("eyecandies", data_dir=None, cache_dir=tmp_path)


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.write_text("x"), lambda path: path.mkdir()])
def test_a_data_dir_without_categories(tmp_path, make):
    path = tmp_path / "somewhere"
    make(path)
    with pytest.raises(DataError, match=r"somewhere: .*test_public/data.*https://"):
        open_dataset("eyecandies", data_dir=path, cache_dir=tmp_path / "cache")


def test_a_data_dir_one_too_deep(raw, tmp_path):
    with pytest.raises(DataError, match="give its parent folder"):
        open_dataset("eyecandies", data_dir=raw.parents[1], cache_dir=tmp_path / "cache")


def test_a_category_without_samples(raw):
    (raw.parents[2] / "Confetto" / "test_public" / "data").mkdir(parents=True)
    assert "has no samples" in report(raw, categories=["Confetto"])


def test_the_cache_is_not_put_into_a_category(raw):
    assert "choose another cache_dir" in report(raw, cache_dir=raw.parents[1] / "cache")


def test_a_cache_that_cannot_be_made(raw, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="choose another cache_dir"):
        read(raw, cache_dir=tmp_path / "file")


@pytest.mark.parametrize("item", ["image_0.png", "depth.png", "xyz.tiff"])
def test_random_damage_is_always_a_fault_or_harmless(tmp_path, item):
    folder = tmp_path / "d"
    write_sample(folder, "0", xyz=True)
    whole = (folder / f"0_{item}").read_bytes()
    decode = {"image_0.png": files.decode_image, "depth.png": files.decode_depth, "xyz.tiff": files.decode_xyz}[item]
    rng = np.random.default_rng(0)
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(rng.integers(1, 4)):
            # Half of the damage where the structure is.
            place = rng.integers(min(len(data), 300)) if rng.random() < 0.5 else rng.integers(len(data))
            data[place] = rng.integers(256)
        content = files.Content(folder / item, bytes(data), "", (0, 0))
        # Anything else than a fault, a warning too, fails the test.
        with contextlib.suppress(files.FileFault):
            decode(content)
