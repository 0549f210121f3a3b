"""Pictures of a plain folder are read as viewers show them; published ones as ever. `docs/inputs.md` has the rules."""

import io
import logging
import struct
import sys
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from dataset_trees import blob, picture, write_mvtec_ad
from PIL import Image, ImageCms, ImageOps

from musc_jax.data import DataError, FolderLayout, open_dataset
from musc_jax.data.formats import own_pictures, pictures
from musc_jax.data.formats.files import Content, FileFault
from musc_jax.data.formats.remarks import overheard
from musc_jax.data.formats.showing import show

SIZE = (30, 40)


def opened(root, **options):
    layout = {name: options.pop(name) for name in list(options) if hasattr(FolderLayout, name)}
    return open_dataset(
        "folder",
        data_dir=root,
        cache_dir=root.parent / "cache",
        modality=options.pop("modality", "rgb"),
        folder=FolderLayout(**layout),
        **options,
    )


def content(data):
    return Content(Path("x"), data, "", (0, 0))


def encoded(pixels, form, **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form, **options)
    return buffer.getvalue()


def exif(orientation):
    notes = Image.Exif()
    notes[274] = orientation
    return notes


def png16(pixels, *, chunks=()):
    """A PNG of 16 bits in any number of channels, with chunks of one's own."""
    height, width, channels = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    listed = ((b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    coded = (struct.pack(">I", len(c)) + t + c + struct.pack(">I", zlib.crc32(t + c)) for t, c in listed)
    return b"\x89PNG\r\n\x1a\n" + b"".join(coded)


def write(root, files):
    root.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (root / name).write_bytes(data)
    return root


# Orientation


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_as_its_camera_noted(form, orientation):
    stored = picture(1, (*SIZE, 3))
    data = encoded(stored, form, exif=exif(orientation), **({"lossless": True} if form == "WEBP" else {}))
    with Image.open(io.BytesIO(data)) as plain:
        wanted = np.array(ImageOps.exif_transpose(plain).convert("RGB"))
    found = own_pictures.decode(content(data))
    np.testing.assert_array_equal(found.pixels, wanted)
    assert found.header.size == wanted.shape[:2]
    assert found.header.orientation == orientation
    if form == "PNG":
        np.testing.assert_array_equal(own_pictures.turned(stored, orientation), wanted)


def test_turned_pictures_are_said_and_the_published_ones_left(tmp_path):
    root = tmp_path / "parts"
    turned = encoded(picture(1, (*SIZE, 3)), "PNG", exif=exif(6))
    write(root, {"0.png": encoded(picture(0, (*SIZE[::-1], 3)), "PNG"), "1.png": turned})
    dataset = opened(root)
    shown = own_pictures.turned(picture(1, (*SIZE, 3)), 6)
    with Image.fromarray(shown) as whole:
        wanted = np.array(whole.resize((16, 16), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(dataset.load("parts", 1, size=16).image, wanted)
    account = dataset.accounts["parts"]
    assert account.facts["orientation"] == {"turned": 1, "masks_turned_alike": None}
    assert "orientation: 1 of 2 pictures are turned as their camera noted" in account.lines
    np.testing.assert_array_equal(pictures.decode_picture(content(turned)), picture(1, (*SIZE, 3)))


def turned_tree(root, orientation, shape, masks):
    """Two good samples and two defective ones, their pictures turned; `masks` by number."""
    for i in range(2):
        write(root / "good", {f"{i}.png": encoded(picture(i, (*shape, 3)), "PNG")})
        write(root / "bad", {f"{i}.png": encoded(picture(5 + i, (*shape, 3)), "PNG", exif=exif(orientation))})
        write(root / "masks", {f"{i}.png": masks[i]})
    return {"normal_dir": ("good",), "abnormal_dir": ("bad",), "mask_dir": ("masks",)}


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
@pytest.mark.parametrize("drawn", ["shown", "stored", "noted"])
def test_a_mask_fits_its_turned_picture_however_it_was_drawn(tmp_path, orientation, drawn):
    """On what is shown, on the stored pixels, or on these with the same note: sizes tell which."""
    root, stored = tmp_path / "parts", blob(SIZE)
    stored[0, 5] = 255
    shown = own_pictures.turned(stored, orientation)
    options = {"exif": exif(orientation)} if drawn == "noted" else {}
    data = encoded(shown if drawn == "shown" else stored, "PNG", **options)
    layout = turned_tree(root, orientation, SIZE, [data, data])
    dataset = opened(root, **layout)
    assert not dataset.warnings
    sample = dataset.load("parts", 2, size=40)
    with Image.fromarray(shown) as whole:
        wanted = np.array(whole.resize((40, 40), Image.Resampling.BILINEAR)) > 127
    np.testing.assert_array_equal(sample.gt_mask, wanted)
    alike = dataset.accounts["parts"].facts["orientation"]["masks_turned_alike"]
    assert alike == {"shown": False, "stored": True, "noted": None}[drawn]


def test_where_a_masks_size_does_not_tell_others_do_or_it_is_said(tmp_path):
    square, half = blob((40, 40)), encoded(blob((40, 40)), "PNG")
    layout = turned_tree(tmp_path / "a", 3, (40, 40), [half, half])
    dataset = opened(tmp_path / "a", **layout)
    (line,) = [line for line in dataset.warnings if "fits its picture both" in line]
    assert "masks/0.png" in line
    assert "1.png" in line
    np.testing.assert_array_equal(dataset.load("a", 2, size=40).gt_mask, square > 0)
    # Another mask of the category was drawn on stored pixels, so this one was.
    layout = turned_tree(tmp_path / "b", 3, (40, 40), [half, encoded(blob(SIZE), "PNG")])
    write(tmp_path / "b" / "bad", {"1.png": encoded(picture(6, (*SIZE, 3)), "PNG", exif=exif(6))})
    dataset = opened(tmp_path / "b", **layout)
    assert not [line for line in dataset.warnings if "fits" in line]
    np.testing.assert_array_equal(dataset.load("b", 2, size=40).gt_mask, square[::-1, ::-1] > 0)


def test_a_note_in_a_mask_that_makes_it_fit_no_more_is_not_followed(tmp_path):
    """An editor kept the note of the picture, which was saved anew without it."""
    data = encoded(blob(SIZE), "PNG", exif=exif(8))
    layout = turned_tree(tmp_path / "parts", 1, SIZE, [data, data])
    dataset = opened(tmp_path / "parts", **layout)
    assert "0.png: fits its picture only if it is not turned as its file says; not turned" in dataset.warnings[0]
    with Image.fromarray(blob(SIZE)) as whole:
        wanted = np.array(whole.resize((40, 40), Image.Resampling.BILINEAR)) > 127
    np.testing.assert_array_equal(dataset.load("parts", 2, size=40).gt_mask, wanted)


def test_a_mask_that_fits_no_way_is_refused_with_a_way_out(tmp_path):
    data = encoded(blob((10, 11)), "PNG")
    layout = turned_tree(tmp_path / "parts", 6, SIZE, [data, data])
    with pytest.raises(DataError, match=r"is 11 x 10 pixels, but its picture is 30 x 40; draw it on that picture"):
        opened(tmp_path / "parts", **layout)


def test_points_of_a_turned_picture_are_turned(tmp_path):
    root, shape = tmp_path / "parts", SIZE
    y, x = np.mgrid[: shape[0], : shape[1]]
    points = (np.stack([x + 1.0, y + 1.0, x + y + 1.0], -1) / 16).astype(np.float32)
    for i in range(2):
        write(root, {f"{i}.png": encoded(picture(i, (*shape, 3)), "PNG", exif=exif(6))})
        np.save(root / f"{i}.npy", points)
    sample = opened(root, modality="rgb+points").load("parts", 0, size=60)
    corner = own_pictures.turned(points, 6)[0, 0]
    np.testing.assert_array_equal(sample.points[0, 0], corner)
    assert tuple(16 * corner) == (1.0, shape[0], shape[0])


# Bits


def tiff16(pixels, **options):
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels.astype(np.uint16), photometric="minisblack", **options)
    return buffer.getvalue()


def ramp(largest, shape=SIZE):
    return np.round(np.linspace(0, largest, shape[0] * shape[1])).astype(np.uint16).reshape(shape)


@pytest.mark.parametrize(
    ("largest", "bits"), [(255, 8), (256, 10), (1023, 10), (1019, 10), (1024, 12), (4095, 12), (16383, 14), (16384, 16)]
)
def test_bits_are_those_of_the_largest_value_of_the_folder(tmp_path, largest, bits):
    """Ten bits in sixteen left two to five levels of grey."""
    root = write(tmp_path / "parts", {"0.tif": tiff16(ramp(largest)), "1.png": png16(ramp(largest // 2)[..., None])})
    dataset = opened(root, limit=None)
    facts = dataset.accounts["parts"].facts["bits"]
    assert (facts["bits"], facts["largest_value"], facts["by"]) == (bits, largest, "the largest value")
    assert [line for line in dataset.accounts["parts"].lines if line.startswith("bits:")] == (
        [] if bits == 16 else [f"bits: 2 pictures of 16 bits are read as holding {bits}, by the largest value "
                               f"({largest} over all of them) (--bits says otherwise)"]
    )  # fmt: skip
    for i, top in enumerate((largest, largest // 2)):
        image = dataset.load("parts", i, size=30).image
        assert abs(int(image.max()) - round(top * 255 / (2**bits - 1))) <= 2
        assert len(np.unique(image)) > image.max() / 2


def test_bits_are_decided_before_the_limit_and_with_colours(tmp_path):
    """The last file has the largest value, in colours of 16 bits, of which Pillow alone takes 8."""
    colors = np.stack([ramp(700), ramp(800), ramp(1000)], -1)
    root = write(tmp_path / "parts", {f"{i}.png": png16(ramp(200)[..., None]) for i in range(3)})
    write(root, {"3.png": png16(colors)})
    assert opened(root, limit=2).accounts["parts"].facts["bits"]["bits"] == 10
    image = opened(root).load("parts", 3, size=30).image
    assert [round(int(v) / 255 * 1023, -2) for v in image.max((0, 1))] == [700, 800, 1000]
    assert len(np.unique(image)) > 100


def test_a_files_own_tag_is_believed_and_says_so(tmp_path):
    """SMaxSampleValue 4095; a value that is no largest one of any depth is the picture's own, and not taken."""
    root = tmp_path / "parts"
    write(root, {"0.tif": tiff16(ramp(300), extratags=[(341, 3, 1, 4095, False)])})
    write(root, {"1.tif": tiff16(ramp(900), extratags=[(341, 3, 1, 900, False)])})
    dataset = opened(root)
    facts = dataset.accounts["parts"].facts["bits"]
    assert (facts["bits"], facts["say_themselves"]) == (10, 1)
    assert "1 pictures of 16 bits hold 12, as their files say" in " ".join(dataset.accounts["parts"].lines)
    images = [dataset.load("parts", i, size=30).image for i in range(2)]
    assert [int(image.max()) for image in images] == [round(300 / 4095 * 255), round(900 / 1023 * 255)]
    asked = opened(root, bits=11)
    images = [asked.load("parts", i, size=30).image for i in range(2)]
    assert [int(image.max()) for image in images] == [round(300 / 2047 * 255), round(900 / 2047 * 255)]
    assert asked.accounts["parts"].facts["bits"]["say_themselves"] == 0


@pytest.mark.parametrize(("largest", "bits"), [(1000, 12), (4095, 12), (65520, 16)])
def test_the_significant_bits_of_a_png_are_raw_or_scaled_up(tmp_path, largest, bits):
    noted = ((b"sBIT", bytes([12])),)
    files = {f"{i}.png": png16(ramp(largest)[..., None], chunks=noted) for i in range(2)}
    assert opened(write(tmp_path / "parts", files)).accounts["parts"].facts["bits"]["bits"] == bits


def test_packed_values_of_12_bits(tmp_path):
    values = ramp(4095).ravel()
    pairs = values.reshape(-1, 2).astype(np.uint32)
    packed = np.stack([pairs[:, 0] >> 4, (pairs[:, 0] & 15) << 4 | pairs[:, 1] >> 8, pairs[:, 1] & 255], -1)
    tags = [(256, SIZE[1]), (257, SIZE[0]), (258, 12), (259, 1), (262, 1), (273, 122), (277, 1), (278, SIZE[0])]
    tags.append((279, packed.size))
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    head = b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + b"\0\0\0\0"
    data = head.ljust(122, b"\0") + packed.astype(np.uint8).tobytes()
    dataset = opened(write(tmp_path / "parts", {"0.tif": data, "1.tif": data}))
    assert dataset.accounts["parts"].facts["bits"]["say_themselves"] == 2
    assert int(dataset.load("parts", 0, size=30).image.max()) >= 254


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("alpha", [False, True])
def test_colours_of_16_bits_that_lie_in_planes(tmp_path, compression, order, alpha):
    """Pillow mixes them up, and halves of them where they are packed."""
    values = np.stack([ramp(4000), ramp(4000).T.reshape(SIZE), 4000 - ramp(4000)])
    options = {"photometric": "rgb", "planarconfig": "separate", "compression": compression, "byteorder": order}
    if alpha:
        values = np.concatenate([values, np.full((1, *SIZE), 65535, np.uint16)])
        options["extrasamples"] = ["unassalpha"]
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, values, extratags=[(274, "H", 1, 6, True)], **options)
    dataset = opened(write(tmp_path / "parts", {f"{i}.tif": buffer.getvalue() for i in range(2)}))
    assert dataset.accounts["parts"].facts["bits"]["largest_value"] == 4000
    assert dataset.load("parts", 0, size=30).full_size == (SIZE[1], SIZE[0])
    shown = own_pictures.decode(content(buffer.getvalue()))
    np.testing.assert_array_equal(shown.pixels, np.rot90(np.moveaxis(values[:3], 0, -1), -1))
    assert not shown.halved


def test_planes_that_are_packed_in_another_way_are_refused(tmp_path, monkeypatch):
    def missing(*args, **options):
        raise ValueError("<COMPRESSION.LZW: 5> requires the 'imagecodecs' package")

    buffer = io.BytesIO()
    tifffile.imwrite(buffer, np.stack([ramp(4000)] * 3), photometric="rgb", planarconfig="separate")
    root = write(tmp_path / "parts", {f"{i}.tif": buffer.getvalue() for i in range(2)})
    monkeypatch.setattr(tifffile.TiffPage, "asarray", missing)
    with pytest.raises(DataError, match=r"packed in a way that is not read .*; save it with the colours of each pixel"):
        opened(root)


def test_bits_as_they_are_asked_for(tmp_path):
    root = write(tmp_path / "parts", {"0.tif": tiff16(ramp(100)), "1.tif": tiff16(ramp(4000))})
    dataset = opened(root, bits=14)
    assert int(dataset.load("parts", 1, size=30).image.max()) == round(4000 / 16383 * 255)
    with pytest.raises(
        DataError, match=r"1\.tif: has values up to 4000, over the 1023 of 10 bits; pass another --bits"
    ):
        opened(root, bits=10)
    with pytest.raises(DataError, match="bits: expected 8 to 16, received 7"):
        opened(root, bits=7)


def test_a_stray_value_that_decides_the_bits_is_said(tmp_path):
    pixels = ramp(1000, (400, 400))
    pixels[7, 9] = 65535
    root = write(tmp_path / "parts", {"0.tif": tiff16(pixels), "1.tif": tiff16(ramp(1000, (400, 400)))})
    (line,) = [line for line in opened(root).accounts["parts"].lines if line.startswith("bits:")]
    assert "only 1 of all values are over the 1023 of 10 bits" in line


def test_white_is_zero_in_16_bits(tmp_path):
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, ramp(65535), photometric="miniswhite")
    root = write(tmp_path / "parts", {f"{i}.tif": buffer.getvalue() for i in range(2)})
    image = opened(root).load("parts", 0, size=30).image
    assert int(image[0, 0, 0]) > int(image[-1, -1, 0])


def netpbm(values, kind, largest):
    """PGM or PPM as programs write it, with a comment."""
    head = f"{kind}\n# by a camera\n{values.shape[1]} {values.shape[0]}\n{largest}\n"
    return head.encode() + values.astype(">u2").tobytes()


@pytest.mark.parametrize("colors", [False, True])
@pytest.mark.parametrize(("largest", "stated", "bits"), [(1000, 65535, 10), (1000, 1023, None), (65535, 65535, 16)])
def test_pgm_and_ppm_of_16_bits(tmp_path, colors, largest, stated, bits):
    """Many programs write 65535 as the largest value, whatever they hold."""
    values = np.stack([ramp(largest)] * 3, -1) if colors else ramp(largest)
    data = netpbm(values, "P6" if colors else "P5", stated)
    dataset = opened(write(tmp_path / "parts", {f"{i}.ppm": data for i in range(2)}))
    facts = dataset.accounts["parts"].facts["bits"]
    assert facts["bits"] == bits or facts["say_themselves"] == 2
    assert not [line for line in dataset.accounts["parts"].lines if "as their files say" in line]
    image = dataset.load("parts", 0, size=30).image
    assert int(image.max()) >= 245
    assert len(np.unique(image)) > 120


def test_colour_profiles_that_differ_are_said(tmp_path):
    """They are not applied; one profile of all, or sRGB beside none, makes no difference."""
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    other = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()

    def lines(name, *profiles):
        files = {f"{i}.png": encoded(picture(i), "PNG", icc_profile=profile) for i, profile in enumerate(profiles)}
        account = opened(write(tmp_path / name, files)).accounts[name]
        return [line for line in account.lines if line.startswith("profiles:")]

    assert lines("same", other, other) == []
    assert lines("usual", srgb, None) == []
    (line,) = lines("mixed", srgb, None, other)
    assert "1 of 3 pictures have another colour profile than the others, and none is applied" in line


# Transparency


@pytest.mark.parametrize(
    ("asked", "color"), [({}, 255), ({"background": (0, 0, 0)}, 0), ({"background": (9, 9, 9)}, 9)]
)
def test_noise_under_what_is_transparent_does_not_show(tmp_path, asked, color):
    root = tmp_path / "parts"
    for i in range(2):
        pixels = np.random.default_rng(i).integers(0, 256, (40, 40, 4)).astype(np.uint8)
        pixels[..., 3] = 0
        pixels[10:30, 10:30] = (50, 60, 70, 255)
        write(root, {f"{i}.png": encoded(pixels, "PNG")})
    dataset = opened(root, **asked)
    first, second = (dataset.load("parts", i, size=40).image for i in range(2))
    np.testing.assert_array_equal(first, second)
    assert (first[:10] == color).all()
    assert (first[10:30, 10:30] == (50, 60, 70)).all()
    (line,) = [line for line in dataset.accounts["parts"].lines if line.startswith("alpha")]
    assert line.startswith("alpha: 2 of 2 pictures are transparent in parts; they are put onto")
    assert dataset.accounts["parts"].facts["alpha"] == {"files": 2, "background": [color] * 3}


def test_what_is_opaque_everywhere_is_not_worth_a_word(tmp_path):
    pixels = np.concatenate([picture(0), np.full((40, 40, 1), 255, np.uint8)], -1)
    root = write(tmp_path / "parts", {f"{i}.png": encoded(pixels, "PNG") for i in range(2)})
    dataset = opened(root)
    assert "alpha" not in dataset.accounts["parts"].facts
    np.testing.assert_array_equal(dataset.load("parts", 0, size=40).image, pixels[..., :3])


def half_transparent():
    """Name, file: half of each is transparent, the other half black."""
    grey = np.zeros((40, 40, 2), np.uint8)
    grey[20:, :, 1] = 255
    yield "la", encoded(grey, "PNG")
    palette = Image.fromarray((np.arange(1600) >= 800).astype(np.uint8).reshape(40, 40), "P")
    palette.putpalette([200, 9, 9, 0, 0, 0])
    for name, transparency in (("one colour", 0), ("a table", b"\0\xff")):
        buffer = io.BytesIO()
        palette.save(buffer, "PNG", transparency=transparency)
        yield name, buffer.getvalue()
    wide = np.zeros((40, 40, 2), np.uint16)
    wide[20:, :, 1] = 65535
    yield "16 bits", png16(wide)
    key = np.zeros((40, 40, 1), np.uint16)
    key[:20] = 77
    yield "a grey value", png16(key, chunks=((b"tRNS", struct.pack(">H", 77)),))
    colors = np.zeros((40, 40, 4), np.uint8)
    colors[20:, :, 3] = 255
    yield "webp", encoded(colors, "WEBP", lossless=True)


@pytest.mark.parametrize(
    ("name", "data"), list(half_transparent()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_every_form_of_transparency(name, data):
    found = own_pictures.decode(content(data))
    image = show(found, bits=16, background=(255, 255, 255))
    assert (image[:20] == 255).all(), name
    assert (image[20:] == 0).all(), name


def test_a_file_that_is_transparent_everywhere_is_not_believed(tmp_path):
    """As 32-bit pictures whose fourth byte nobody set."""
    pixels = [np.concatenate([picture(i), np.zeros((40, 40, 1), np.uint8)], -1) for i in range(2)]
    dataset = opened(write(tmp_path / "parts", {f"{i}.png": encoded(p, "PNG") for i, p in enumerate(pixels)}))
    np.testing.assert_array_equal(dataset.load("parts", 0, size=40).image, pixels[0][..., :3])
    (line,) = dataset.warnings
    assert "0.png: is transparent everywhere, which is not believed" in line
    assert "alpha" not in dataset.accounts["parts"].facts


def test_a_picture_that_vanishes_on_its_background_is_named(tmp_path):
    """White ink on nothing, on white."""
    pixels = np.full((2, 40, 40, 4), 255, np.uint8)
    pixels[..., 3] = blob()
    pixels[1, 0, 0, 3] = 255
    root = write(tmp_path / "parts", {f"{i}.png": encoded(pixels[i], "PNG") for i in range(2)})
    assert "0.png: shows one colour only (255,255,255); pass another --background" in opened(root).warnings[0]
    assert not opened(root, background=(0, 0, 0)).warnings


# Forms


@pytest.mark.parametrize(
    ("suffix", "form"),
    [("gif", "GIF"), ("ppm", "PPM"), ("jfif", "JPEG"), ("jpe", "JPEG"), ("dib", "DIB"), ("jp2", "JPEG2000")],
)
def test_more_forms_are_pictures_of_plain_folders_only(tmp_path, suffix, form):
    root = write(tmp_path / "parts", {f"{i}.{suffix}": encoded(picture(i), form) for i in range(2)})
    assert opened(root).load("parts", 0, size=16).image.any()
    assert f".{suffix}" not in pictures.EXTENSIONS


def test_heic_is_named_with_the_way_out_whatever_it_is_called(tmp_path):
    data = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 40
    root = write(tmp_path / "parts", {"0.heic": data, "1.jpg": data})
    with pytest.raises(DataError) as error:
        opened(root)
    lines = str(error.value).splitlines()[1:]
    assert [line.partition(": ")[0].strip() for line in lines] == [str(root / name) for name in ("0.heic", "1.jpg")]
    assert "is HEIC or HEIF, as phones write it" in lines[0]
    assert "save it as JPEG or PNG" in lines[0]


@pytest.mark.parametrize("orientation", [1, 6])
def test_heic_is_read_where_the_extra_is(tmp_path, orientation):
    plugin = pytest.importorskip("pillow_heif", reason="the extra `heic`")
    shown = np.zeros((64, 96, 3), np.uint8)
    shown[:32, :48] = 200
    file = plugin.from_pillow(Image.fromarray(shown))
    buffer = io.BytesIO()
    file.save(buffer, exif=exif(orientation).tobytes())
    found = own_pictures.decode(content(buffer.getvalue()))
    wanted = own_pictures.turned(shown, orientation)
    assert found.header.size == wanted.shape[:2]
    assert np.abs(found.pixels.astype(int) - wanted).mean() < 3
    root = write(tmp_path / "parts", {f"{i}.heic": buffer.getvalue() for i in range(2)})
    assert opened(root).load("parts", 0, size=16).image.any()


def pages(count):
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        for i in range(count):
            writer.write(picture(i), photometric="rgb")
    return buffer.getvalue()


def moving(form):
    first, *others = (Image.fromarray(picture(i)) for i in range(3))
    buffer = io.BytesIO()
    first.save(buffer, form, save_all=True, append_images=others)
    return buffer.getvalue()


def test_of_several_pages_the_first_is_read_which_is_said(tmp_path):
    files = {
        "0.tif": pages(3),
        "1.gif": moving("GIF"),
        "2.webp": moving("WEBP"),
        "3.png": moving("PNG"),
        "4.tif": pages(1),
    }
    dataset = opened(write(tmp_path / "parts", files))
    (line,) = (line for line in dataset.warnings if "are copies of others" not in line)
    assert line.startswith(f"{tmp_path / 'parts' / '0.tif'}: has 3 pictures in it; the first is read; the same of ")
    assert line.endswith("parts/1.gif, parts/2.webp, parts/3.png")
    assert len(dataset.accounts["parts"].facts["pages"]["has 3 pictures in it; the first is read"]) == 4
    np.testing.assert_array_equal(dataset.load("parts", 0, size=40).image, picture(0))


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("0.tif", tiff16(ramp(9))[:200], "is no readable picture"),
        ("0.png", b"\x89PNG\r\n\x1a\n" + b"x" * 50, "is no readable picture"),
        ("0.png", b"", "is empty"),
    ],
)
def test_a_way_out_for_own_files_is_no_archive(tmp_path, name, data, message):
    root = write(
        tmp_path / "parts", {"1.png": encoded(picture(1), "PNG"), "2.png": encoded(picture(2), "PNG"), name: data}
    )
    with pytest.raises(DataError, match=message) as error:
        opened(root)
    assert "archive" not in str(error.value)
    assert "save it again" in str(error.value)


def test_numbers_that_are_no_picture_are_refused(tmp_path):
    for values, message in (
        (ramp(9).astype(np.float32), "holds floating-point numbers, not a picture; convert it to 8 or 16 bits"),
        (ramp(9).astype(np.int32) + 70000, "has values outside of 16 bits; convert it to 8 or 16 bits"),
        (ramp(9).astype(np.int32) - 1, "has values outside of 16 bits"),
        ((ramp(9).astype(np.int16) - 1).astype(np.int8), "holds signed numbers of 8 bits, not a picture"),
    ):
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, values, photometric="minisblack")
        root = write(tmp_path / "parts", {f"{i}.tif": buffer.getvalue() for i in range(2)})
        with pytest.raises(DataError, match=message):
            opened(root)


def test_pictures_beyond_pillows_own_limit_are_read(tmp_path, monkeypatch):
    """It is a setting of the process, which stays as it is; there is a limit of this program's own."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    files = {"0.png": encoded(picture(2), "PNG"), "1.jpg": encoded(picture(1), "JPEG"), "2.tif": pages(1)}
    dataset = opened(write(tmp_path / "parts", files))
    assert not dataset.warnings
    np.testing.assert_array_equal(dataset.load("parts", 0, size=40).image, picture(2))
    assert dataset.load("parts", 1, size=40).image.any()
    assert Image.MAX_IMAGE_PIXELS == 100


def test_pictures_of_other_proportions_are_named(tmp_path):
    files = {f"{i}.png": encoded(picture(i, (24, 32, 3)), "PNG") for i in range(8)}
    files |= {"8.png": encoded(picture(8, (32, 24, 3)), "PNG"), "9.png": encoded(picture(9, (48, 64, 3)), "PNG")}
    dataset = opened(write(tmp_path / "parts", files))
    (line,) = [line for line in dataset.accounts["parts"].lines if line.startswith("shapes:")]
    assert line == (
        f"shapes: 1 of 10 pictures have other proportions than 32 x 24: {tmp_path / 'parts' / '8.png'} (24 x 32)"
    )


# What libraries remark


def torn_tiff():
    """Packed data that libtiff finds torn, and says so on standard error."""
    buffer = io.BytesIO()
    Image.fromarray(picture(0, (64, 64, 3))).save(buffer, "TIFF", compression="tiff_lzw")
    data = bytearray(buffer.getvalue())
    data[300:2000] = bytes(1700)
    return bytes(data)


def test_libraries_write_nothing_onto_the_screen(tmp_path, capfd):
    root = write(tmp_path / "parts", {"0.tif": torn_tiff(), "1.png": encoded(picture(1), "PNG")})
    with pytest.raises(DataError, match=r"0\.tif: is no readable picture"):
        opened(write(root, {"2.png": encoded(picture(2), "PNG")}))
    assert capfd.readouterr().err == ""


def test_what_libraries_remark_is_a_warning_that_names_the_file(tmp_path, monkeypatch):
    decode = own_pictures._plain

    def talking(image):
        warnings.warn_explicit("strange metadata\n in it", UserWarning, "PIL/x.py", 1, module="PIL.PngImagePlugin")
        return decode(image)

    monkeypatch.setattr(own_pictures, "_plain", talking)
    root = write(tmp_path / "parts", {f"{i}.png": encoded(picture(i), "PNG") for i in range(2)})
    dataset = opened(root)
    (line,) = dataset.warnings
    assert line == f"{root / '0.png'}: the file's library remarks: strange metadata in it; the same of parts/1.png"


def test_only_who_decodes_hears_and_all_is_as_it_was_afterwards(capfd):
    before = warnings.filters[:], warnings.showwarning, logging.getLogger("tifffile").filters[:]
    with overheard() as outer:
        with overheard() as inner:
            warnings.warn_explicit("one", UserWarning, "PIL/x.py", 1, module="PIL.Image")
            logging.getLogger("tifffile").warning("two %s", 3)
            own = own_pictures.decode
            with pytest.raises(FileFault):
                own(content(torn_tiff()))
        assert inner[:2] == ["one", "two 3"]
        # Of libtiff, which is out of reach where Pillow has it linked in.
        assert sys.platform == "win32" or "Not enough data at scanline" in inner[2]
    assert outer == inner
    assert (warnings.filters[:], warnings.showwarning, logging.getLogger("tifffile").filters[:]) == before
    assert capfd.readouterr().err == ""
    with pytest.warns(UserWarning, match="outside"):
        warnings.warn_explicit("outside", UserWarning, "PIL/x.py", 1, module="PIL.Image")


# Published datasets stay


def test_published_pictures_are_read_as_ever(tmp_path):
    """Same bytes, others' rules: transparency dropped, orientation left, 16 bits by their full range."""
    write_mvtec_ad(tmp_path / "mvtec", categories=("bottle",))
    folder = tmp_path / "mvtec" / "bottle" / "test" / "good"
    pixels = np.concatenate([picture(3), np.zeros((40, 40, 1), np.uint8)], -1)
    (folder / "000.png").write_bytes(encoded(pixels, "PNG", exif=exif(3)))
    (folder / "001.png").write_bytes(png16(ramp(1000, (40, 40))[..., None]))
    dataset = open_dataset("mvtec_ad", data_dir=tmp_path / "mvtec", cache_dir=tmp_path / "cache", modality="rgb")
    names = dataset.names("bottle")
    at = {name: dataset.load("bottle", i, size=40).image for i, name in enumerate(names)}
    np.testing.assert_array_equal(at["good_000"], picture(3))
    assert int(at["good_001"].max()) == round(1000 / 257)


def test_a_photograph_that_is_only_looked_at_is_decoded_smaller(tmp_path):
    """With at least so many pixels as are needed, and what is scored is not touched by that."""
    y, x = np.mgrid[:600, :800]
    Image.fromarray(np.stack([x / 4, y / 3, x * 0], -1).astype(np.uint8)).save(tmp_path / "a.jpg")
    file = content((tmp_path / "a.jpg").read_bytes())
    decode = lambda enough: own_pictures.decode(file, enough=enough).pixels  # noqa: E731
    sizes = {enough: decode(enough).shape[:2] for enough in (None, 120_001, 120_000, 29_000, 1)}
    assert sizes == {None: (600, 800), 120_001: (600, 800), 120_000: (300, 400), 29_000: (150, 200), 1: (75, 100)}
    small, whole = (decode(enough).astype(int) for enough in (29_000, None))
    np.testing.assert_allclose(small, whole.reshape(150, 4, 200, 4, 3).mean((1, 3)), atol=4)
