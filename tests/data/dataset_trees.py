"""Small trees in the layouts of the published datasets, odd corners included, written without the code under test."""

import csv
from pathlib import Path

import numpy as np
import tifffile
from eyecandies_tree import write_category
from PIL import Image

SIDE = 40


def picture(seed, shape=(SIDE, SIDE, 3)):
    return np.random.default_rng(seed).integers(30, 220, shape).astype(np.uint8)


def blob(shape=(SIDE, SIDE), value=255):
    mask = np.zeros(shape, np.uint8)
    mask[10:20, 12:22] = value
    return mask


def save(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


def write_mvtec_ad(root, *, categories=("bottle", "grid")):
    """grid is grey, as are zipper and screw; text files lie at the roots; masks are called NNN_mask.png."""
    for number, category in enumerate(categories):
        folder = root / category
        shape = (SIDE, SIDE) if category == "grid" else (SIDE, SIDE, 3)
        for i in range(2):
            save(folder / "train" / "good" / f"{i:03d}.png", picture(i, shape))
        for i in range(3):
            save(folder / "test" / "good" / f"{i:03d}.png", picture(10 * number + i, shape))
        for first, defect in ((100, "broken_large"), (110, "contamination")):
            for i in range(2):
                save(folder / "test" / defect / f"{i:03d}.png", picture(first + i, shape))
                save(folder / "ground_truth" / defect / f"{i:03d}_mask.png", blob())
        (folder / "readme.txt").write_text("about")
        (folder / "license.txt").write_text("CC BY-NC-SA 4.0")
    (root / "readme.txt").write_text("about")


def write_mpdd(root):
    for category, defects in (("tubes", ("anomalous",)), ("metal_plate", ("major_rust", "total_rust"))):
        folder = root / "MPDD" / category
        for i in range(2):
            save(folder / "test" / "good" / f"{i:03d}.png", picture(i))
        for defect in defects:
            save(folder / "test" / defect / "000.png", picture(7))
            save(folder / "ground_truth" / defect / "000_mask.png", blob())


def write_btad(root):
    """Each product has file types of its own; numbers return in ok and ko; masks hold odd values, one is empty."""
    top = root / "BTech_Dataset_transformed"
    for category, image, mask in (("01", "bmp", "png"), ("02", "png", "png"), ("03", "bmp", "bmp")):
        folder = top / category
        for i in range(2):
            save(folder / "train" / "ok" / f"{i:04d}.{image}", picture(i))
            save(folder / "test" / "ok" / f"{i:04d}.{image}", picture(20 + i))
            save(folder / "test" / "ko" / f"{i:04d}.{image}", picture(40 + i))
            value = 255 if i == 0 else 3 if category == "02" else 0 if category == "03" else 255
            save(folder / "ground_truth" / "ko" / f"{i:04d}.{mask}", blob(value=value))


def write_visa(root, *, top=""):
    """A table says what is tested; masks hold numbers of classes; normal names have four digits, others three."""
    rows = []
    for category in ("candle", "pcb1"):
        data = root / top / category / "Data"
        for i in range(4):
            image = Path(category, "Data", "Images", "Normal", f"{i:04d}.JPG")
            save(root / top / image, picture(i, (30, 50, 3)), quality=95, format="JPEG")
            rows.append([category, "test" if i < 2 else "train", "normal", image.as_posix(), ""])
        for i in range(2):
            image = Path(category, "Data", "Images", "Anomaly", f"{i:03d}.JPG")
            mask = Path(category, "Data", "Masks", "Anomaly", f"{i:03d}.png")
            save(root / top / image, picture(50 + i, (30, 50, 3)), quality=95, format="JPEG")
            save(root / top / mask, blob((30, 50), value=1 + 3 * i))
            rows.append([category, "test", "anomaly", image.as_posix(), mask.as_posix()])
        (root / top / category / "image_anno.csv").write_text("image,label,mask\n")
        assert data.is_dir()
    table = root / top / "split_csv" / "1cls.csv"
    table.parent.mkdir(parents=True)
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([["object", "split", "label", "image", "mask"], *rows])


def raw_scan(seed, height=60, width=80):
    """A tilted plane half a metre away that fills the view, a box upon it, and holes that were never measured."""
    rng = np.random.default_rng(seed)
    row, column = np.mgrid[:height, :width]
    xyz = np.stack(
        [(column - width / 2 + 0.3) * 0.001, (row - height / 2 + 0.3) * 0.001, np.zeros((height, width))], -1
    )
    xyz[..., 2] = 0.5 + 0.1 * xyz[..., 0] - 0.05 * xyz[..., 1] + rng.normal(size=(height, width)) * 0.0005
    top = slice(height // 3, 2 * height // 3), slice(width // 3, 2 * width // 3)
    xyz[(*top, 2)] -= 0.03
    xyz[rng.random((height, width)) < 0.02] = 0
    on_object = np.zeros((height, width), bool)
    on_object[top] = True
    return xyz.astype(np.float32), on_object & (xyz != 0).all(-1)


def write_mvtec3d(root, *, categories=("bagel", "rope"), samples=2, cleaned=False):
    """Pictures, scans and masks of one stem; good samples have black masks that nobody reads."""
    for number, category in enumerate(categories):
        for kind in ("good", "crack"):
            for i in range(samples):
                folder, stem = root / category / "test" / kind, f"{i:03d}"
                xyz, on_object = raw_scan(10 * number + i + 50 * (kind == "crack"))
                rgb, gt = picture(i, (*xyz.shape[:2], 3)), blob(xyz.shape[:2]) if kind == "crack" else blob(value=0)
                if cleaned:
                    xyz = np.pad(np.where(on_object[..., None], xyz, 0), ((20, 20), (10, 10), (0, 0)))
                    rgb = np.pad(np.where(on_object[..., None], rgb, 0), ((20, 20), (10, 10), (0, 0)))
                    gt = np.pad(gt, ((20, 20), (10, 10))) if kind == "crack" else gt
                save(folder / "rgb" / f"{stem}.png", rgb)
                save(folder / "gt" / f"{stem}.png", gt)
                (folder / "xyz").mkdir(parents=True, exist_ok=True)
                tifffile.imwrite(
                    folder / "xyz" / f"{stem}.tiff",
                    xyz.astype(np.float32),
                    photometric="minisblack",
                    planarconfig="contig",
                )
        calibration = root / category / "calibration"
        calibration.mkdir()
        (calibration / "camera_parameters.json").write_text("{}")
    (root / "readme.txt").write_text("about")


def write_eyecandies(root):
    for category in ("CandyCane", "Lollipop"):
        write_category(root, category, ("00", "01", "02", "03"))


# dataset -> (writer, categories, good and defective samples of each, other numbers than were published)
TREES = {
    "mvtec_ad": (write_mvtec_ad, ("bottle", "grid"), {"bottle": (3, 4), "grid": (3, 4)}),
    "mpdd": (write_mpdd, ("metal_plate", "tubes"), {"metal_plate": (2, 2), "tubes": (2, 1)}),
    "btad": (write_btad, ("01", "02", "03"), {"01": (2, 2), "02": (2, 2), "03": (2, 2)}),
    "visa": (write_visa, ("candle", "pcb1"), {"candle": (2, 2), "pcb1": (2, 2)}),
    "mvtec3d": (write_mvtec3d, ("bagel", "rope"), {"bagel": (2, 2), "rope": (2, 2)}),
    "eyecandies": (write_eyecandies, ("CandyCane", "Lollipop"), {"CandyCane": (2, 2), "Lollipop": (2, 2)}),
}
