"""Whole datasets as published, as far as names and numbers go; their files hold a picture's header or a few bytes."""

import csv
import io
import struct
import zlib

from musc_jax.data.datasets import published_datasets


def header(size=None):
    """A PNG of which nothing but the size can be read."""
    chunk = b"IHDR" + struct.pack(">LLBBBBB", *(size or (32, 32)), 8, 2, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + struct.pack(">L", 13) + chunk + struct.pack(">L", zlib.crc32(chunk))
    return start + struct.pack(">L", 0) + b"IDAT" + struct.pack(">L", zlib.crc32(b"IDAT"))


def _mvtec_ad(category, expected, picture):
    for i in range(2):
        yield f"{category}/train/good/{i:03d}.png", picture
    for i in range(expected.good):
        yield f"{category}/test/good/{i:03d}.png", picture
    for i in range(expected.defective):
        kind = ("broken", "scratch")[i % 2]
        yield f"{category}/test/{kind}/{i:03d}.png", picture
        yield f"{category}/ground_truth/{kind}/{i:03d}_mask.png", picture
    yield f"{category}/readme.txt", b"about"


def _mvtec3d(category, expected, picture):
    yield f"{category}/calibration/camera_parameters.json", b"{}"
    yield f"{category}/validation/good/rgb/000.png", picture
    for i in range(expected.good + expected.defective):
        kind = "good" if i < expected.good else ("crack", "hole")[i % 2]
        yield f"{category}/test/{kind}/rgb/{i:03d}.png", picture
        yield f"{category}/test/{kind}/xyz/{i:03d}.tiff", b"II*\0"
        yield f"{category}/test/{kind}/gt/{i:03d}.png", picture


def _btad(category, expected, picture):
    image, mask = {"01": ("bmp", "png"), "02": ("png", "png"), "03": ("bmp", "bmp")}[category]
    for i in range(expected.good):
        yield f"{category}/test/ok/{i:04d}.{image}", picture
    for i in range(expected.defective):
        yield f"{category}/test/ko/{i:04d}.{image}", picture
        yield f"{category}/ground_truth/ko/{i:04d}.{mask}", picture


def _visa(category, expected, picture):
    for i in range(expected.good + 2):
        yield f"{category}/Data/Images/Normal/{i:04d}.JPG", picture
    for i in range(expected.defective):
        yield f"{category}/Data/Images/Anomaly/{i:03d}.JPG", picture
        yield f"{category}/Data/Masks/Anomaly/{i:03d}.png", picture
    yield f"{category}/image_anno.csv", b"image,label,mask\n"


def _eyecandies(category, expected, picture):
    yield f"{category}/train/data/000_image_0.png", picture
    for i in range(expected.good + expected.defective):
        # The others of a sample's files are there for one only: this is about names, and would take long.
        more = ("image_5.png", "normals.png", "bumps_mask.png", "metadata.yaml", "foreground.png") if i == 0 else ()
        # The archives say `object_params`, their documentation `obj_params`.
        more += (("object_params.yaml", "obj_params.yaml")[i % 2],) if i < 2 else ()
        for item in ("image_0.png", "mask.png", "depth.png", "info_depth.yaml", "pose.txt", *more):
            yield f"{category}/test_public/data/{i:02d}_{item}", picture if item.endswith("png") else b"text"


# dataset -> what yields the paths and contents of a category
MAKERS = {
    "mvtec3d": _mvtec3d,
    "eyecandies": _eyecandies,
    "mvtec_ad": _mvtec_ad,
    "visa": _visa,
    "mpdd": _mvtec_ad,
    "btad": _btad,
}


def published_files(name, source=None):
    """Every path of a dataset with its content, by default in the numbers that were published."""
    source = source or published_datasets()[name]
    found = {}
    rows = [["object", "split", "label", "image", "mask"]]
    for category, expected in source.categories.items():
        found |= dict(MAKERS[name](category, expected, header(expected.size)))
        for i in range(expected.good + 2):
            image = f"{category}/Data/Images/Normal/{i:04d}.JPG"
            rows.append([category, "train" if i < 2 else "test", "normal", image, ""])
        for i in range(expected.defective):
            image, mask = (f"{category}/Data/{folder}/Anomaly/{i:03d}" for folder in ("Images", "Masks"))
            rows.append([category, "test", "anomaly", f"{image}.JPG", f"{mask}.png"])
    if name == "visa":
        table = io.StringIO()
        csv.writer(table).writerows(rows)
        found["split_csv/1cls.csv"] = table.getvalue().encode()
    return found


def write_published(name, root, source=None):
    files = {root / path: content for path, content in published_files(name, source).items()}
    for folder in dict.fromkeys(path.parent for path in files):
        folder.mkdir(parents=True, exist_ok=True)
    for path, content in files.items():
        path.write_bytes(content)
