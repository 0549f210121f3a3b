"""VisA, its test split of the one-class setting.

    DIR/split_csv/1cls.csv                               object,split,label,image,mask
    DIR/<object>/Data/Images/{Normal,Anomaly}/*.JPG
    DIR/<object>/Data/Masks/Anomaly/*.png

or below VisA. The table decides which images are test images, their labels and their masks. Masks hold numbers of
classes (1 to 9), every one of which is a defect; they look black in a viewer.
"""

import csv
import io
from pathlib import Path

from musc_jax.data.dataset import Candidate
from musc_jax.data.formats import files
from musc_jax.data.formats.files import FileFault
from musc_jax.data.image_sample import Picture
from musc_jax.data.sample import DataError
from musc_jax.data.spec import Archive, DatasetSpec, Expected, Layout, Source
from musc_jax.data.trees import Found, Request, add_candidates, is_folder, natural, root_of
from musc_jax.storage.paths import UnsafeNameError, below

_LAYOUT = "split_csv/1cls.csv"
_COLUMNS = ("object", "split", "label", "image", "mask")
_MOST_BYTES = 20_000_000

SOURCE = Source(
    title="VisA",
    home="https://github.com/amazon-science/spot-diff",
    licence="CC BY 4.0 (its README and LICENSE-DATASET), https://creativecommons.org/licenses/by/4.0",
    categories={
        "candle": Expected(100, 100),
        "capsules": Expected(60, 100),
        "cashew": Expected(50, 100),
        "chewinggum": Expected(50, 100),
        "fryum": Expected(50, 100),
        "macaroni1": Expected(100, 100),
        "macaroni2": Expected(100, 100),
        "pcb1": Expected(100, 100),
        "pcb2": Expected(100, 100),
        "pcb3": Expected(101, 100),
        "pcb4": Expected(101, 100),
        "pipe_fryum": Expected(50, 100),
    },
    layout=Layout(
        folder="Data",
        known=frozenset({"Data"}),
        roots=frozenset({"split_csv"}),
        scored=("Data/Images/Anomaly", "Data/Masks"),  # good pictures that are not tested are for training
        masks=frozenset({"Masks"}),
    ),
    example="`candle/Data/Images/...`, `split_csv/1cls.csv`",
    archives=(
        Archive(
            "VisA_20220922.tar",
            "https://amazon-visual-anomaly.s3.us-west-2.amazonaws.com/VisA_20220922.tar",
            "2eb8690c803ab37de0324772964100169ec8ba1fa3f7e94291c9ca673f40f362",
        ),
    ),
    recipe=("open the home page and download the archive that it names",),
    wrappers=("VisA", "VisA_20220922"),
    remark="anomalib's documentation says CC BY-NC-SA 4.0, which contradicts the authors",
    signs=("split_csv/1cls.csv",),
)


def find_visa(request: Request) -> Found:
    """Find every sample of VisA's test split, without looking into any picture."""
    root, found = root_of("visa", request.data_dir, layout=_LAYOUT, home=SOURCE.home), Found()
    root = next(
        (r for r in (root, *(root / wrapper for wrapper in SOURCE.wrappers)) if is_folder((r / _LAYOUT).parent)), root
    )
    rows = _rows(root / _LAYOUT)
    known = sorted({row["object"] for _, row in rows}, key=natural)
    for category in dict.fromkeys(request.categories or known):
        if category not in known:
            found.fault(category, f"{root}: no category {category!r}; take one of those that exist: {', '.join(known)}")
            continue
        samples: list[tuple[str, Candidate]] = []
        for line, row in rows:
            if row["object"] != category or row["split"] != "test":
                continue
            place = f"{root / _LAYOUT} line {line}"
            label = {"normal": 0, "anomaly": 1}.get(row["label"])
            image, mask = _inside(root, row["image"]), _inside(root, row["mask"])
            if label is None or image is None or (row["mask"] and mask is None):
                found.fault(category, f"{place}: expected normal or anomaly and paths below DATA_DIR; fetch it again")
                continue
            picture = Picture(
                f"{'Anomaly' if label else 'Normal'}_{image.stem}",
                image,
                label,
                mask if label else None,
                str(root / category / "Data" / "Masks" / "Anomaly" / f"{image.stem}.png"),
                nonzero=True,
            )
            samples.append((picture.name, Candidate.of(picture)))
        ordered = [candidate for _, candidate in sorted(samples, key=lambda item: natural(item[0]))]
        add_candidates(found, category, root / category, ordered)
    return found


def _rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    try:
        content = files.read(path)
        if len(content.data) > _MOST_BYTES:
            raise FileFault(path, f"is {len(content.data)} bytes long, no table of samples")
        reader = csv.DictReader(io.StringIO(content.data.decode("utf-8-sig")))
        rows = [(reader.line_num, row) for row in reader]
        if not set(_COLUMNS) <= set(reader.fieldnames or ()):
            raise FileFault(path, f"has no columns {', '.join(_COLUMNS)}")
        for line, row in rows:
            if any(row[column] is None for column in _COLUMNS):
                raise FileFault(path, f"line {line} has too few columns")
    except FileFault as fault:
        raise DataError(f"{fault}; expected DATA_DIR/{_LAYOUT}; the dataset is at {SOURCE.home}") from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{path}: is no readable table ({error}); fetch it again") from None
    return [(line, {column: row[column].strip() for column in _COLUMNS}) for line, row in rows]


def _inside(root: Path, text: str) -> Path | None:
    """A path of the table, if it stays below the dataset's folder."""
    try:
        return below(root, text)
    except UnsafeNameError:
        return None


DATASET = DatasetSpec(name="visa", find=find_visa, modalities=("rgb",), source=SOURCE, v1_windows=(1, 8, 9), rank=40)
