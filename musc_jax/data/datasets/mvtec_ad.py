"""MVTec AD, and MPDD, which has its layout.

    DIR/<category>/test/<good or a defect>/<stem>.png
    DIR/<category>/ground_truth/<defect>/<stem>_mask.png

or one folder deeper. Folders of defects are listed, not known beforehand; `good` has no masks. A mask's grey values are
taken as they are (0 and 255), unless they can only be numbers of classes. Homes:
https://www.mvtec.com/company/research/datasets/mvtec-ad and https://github.com/stepanje/MPDD.
"""

from pathlib import Path

from musc_jax.data.dataset import Candidate
from musc_jax.data.image_sample import Picture
from musc_jax.data.sample import DataError
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
_HOMES = {
    "mvtec_ad": "https://www.mvtec.com/company/research/datasets/mvtec-ad",
    "mpdd": "https://github.com/stepanje/MPDD",
}
_WRAPPERS = {"mvtec_ad": ("mvtec_anomaly_detection", "mvtec_ad", "MVTecAD", "mvtec"), "mpdd": ("MPDD", "mpdd")}


def find_mvtec_ad(request: Request, *, name: str = "mvtec_ad") -> Found:
    """Find every sample of MVTec AD or MPDD, without looking into any file."""
    root, found = root_of(name, request.data_dir, layout=_LAYOUT, home=_HOMES[name]), Found()
    folders = find_categories(
        root,
        request.categories,
        found,
        wrappers=_WRAPPERS[name],
        is_category=lambda folder: is_folder(folder / "test"),
        layout=_LAYOUT,
        home=_HOMES[name],
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
                samples.append(Candidate(picture.name, picture.check))
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
            samples.append(Candidate(picture.name, picture.check))
        found.warnings.extend(f"{path}: is a mask without an image; not used" for path in left.values())
    add_candidates(found, category, folder, samples)
