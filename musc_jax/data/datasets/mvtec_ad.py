"""MVTec AD, and the reader of its layout, which other datasets have taken over.

    DIR/<category>/test/<good or a defect>/<stem>.png
    DIR/<category>/ground_truth/<defect>/<stem>_mask.png

or one folder deeper. Folders of defects are listed, not known beforehand; `good` has no masks. A mask's grey values are
taken as they are (0 and 255), unless they can only be numbers of classes.
"""

from functools import partial
from pathlib import Path

from musc_jax.data.dataset import Candidate
from musc_jax.data.image_sample import Picture
from musc_jax.data.sample import DataError
from musc_jax.data.spec import CC_BY_NC_SA, MVTEC, Archive, DatasetSpec, Expected, Source
from musc_jax.data.trees import (
    Found,
    Request,
    add_candidates,
    find_categories,
    is_folder,
    pictures,
    root_of,
    subfolders,
)

_LAYOUT = "<category>/test/<good or a defect>/000.png"

SOURCE = Source(
    title="MVTec AD",
    home="https://www.mvtec.com/company/research/datasets/mvtec-ad",
    licence=CC_BY_NC_SA,
    categories={
        "bottle": Expected(20, 63, (900, 900)),
        "cable": Expected(58, 92, (1024, 1024)),
        "capsule": Expected(23, 109, (1000, 1000)),
        "carpet": Expected(28, 89, (1024, 1024)),
        "grid": Expected(21, 57, (1024, 1024)),
        "hazelnut": Expected(40, 70, (1024, 1024)),
        "leather": Expected(32, 92, (1024, 1024)),
        "metal_nut": Expected(22, 93, (700, 700)),
        "pill": Expected(26, 141, (800, 800)),
        "screw": Expected(41, 119, (1024, 1024)),
        "tile": Expected(33, 84, (840, 840)),
        "toothbrush": Expected(12, 30, (1024, 1024)),
        "transistor": Expected(60, 40, (1024, 1024)),
        "wood": Expected(19, 60, (1024, 1024)),
        "zipper": Expected(32, 119, (1024, 1024)),
    },
    layout=MVTEC,
    example="`bottle/test/good/000.png`, `bottle/ground_truth/broken_large/000_mask.png`, ...",
    archives=(
        Archive(
            "mvtec_anomaly_detection.tar.xz",
            "https://www.mydrive.ch/shares/150996/b52ecdcbf521176e9db9c731f2304b27/download/420938113-1629960298/"
            "mvtec_anomaly_detection.tar.xz",
            "cf4313b13603bec67abb49ca959488f7eedce2a9f7795ec54446c649ac98cd3d",
        ),
    ),
    recipe=("the address changes now and then: open the home page, fill in its form, and download the archive",),
    wrappers=("mvtec_anomaly_detection", "mvtec_ad", "MVTecAD", "mvtec"),
    signs=("*/test/good/*.*",),
)


def find_mvtec_layout(request: Request, *, name: str, source: Source) -> Found:
    """Find every sample of a dataset in this layout, without looking into any file.

    Args:
        request: as for every reader.
        name: the dataset's, for messages.
        source: where it lies below wrappers, and its home for messages.
    """
    root, found = root_of(name, request.data_dir, layout=_LAYOUT, home=source.home), Found()
    folders = find_categories(
        root,
        request.categories,
        found,
        wrappers=source.wrappers,
        is_category=lambda folder: is_folder(folder / "test"),
        layout=_LAYOUT,
        home=source.home,
    )
    for category, folder in folders.items():
        _find_samples(found, category, folder)
    return found


def _find_samples(found: Found, category: str, folder: Path) -> None:
    samples: list[Candidate] = []

    def report(line: str) -> None:
        found.fault(category, line)

    try:
        kinds = subfolders(folder / "test")
    except DataError as error:
        report(str(error))
        return
    for kind in kinds:
        images = pictures(kind, report)
        if kind.name == "good":
            for stem, image in images.items():
                picture = Picture(f"good_{stem}", image, 0)
                samples.append(Candidate.of(picture))
            continue
        masks = pictures(folder / "ground_truth" / kind.name, report)
        left = dict(masks)
        for stem, image in images.items():
            named = next((n for n in (f"{stem}_mask", stem) if n in masks), None)
            if named is not None:
                left.pop(named, None)
            expected = folder / "ground_truth" / kind.name / f"{stem}_mask.png"
            picture = Picture(
                f"{kind.name}_{stem}", image, 1, masks[named] if named is not None else None, str(expected)
            )
            samples.append(Candidate.of(picture))
        found.warnings.extend(f"{path}: is a mask without an image; not used" for path in left.values())
    add_candidates(found, category, folder, samples)


DATASET = DatasetSpec(
    name="mvtec_ad",
    find=partial(find_mvtec_layout, name="mvtec_ad", source=SOURCE),
    modalities=("rgb",),
    source=SOURCE,
    rank=30,
)
