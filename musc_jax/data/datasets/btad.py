"""BTAD (beanTech): three products, each with its own file types.

    DIR/<01, 02, 03>/test/{ok,ko}/<number>.{bmp,png}
    DIR/<01, 02, 03>/ground_truth/ko/<number>.{png,bmp}

or below BTech_Dataset_transformed. Numbers return in `ok` and `ko`, so masks are paired within `ko` only. Masks are not
all 0 and 255, and some of `ko` are nearly empty: every value but 0 is a defect, and the folder decides the label. Home:
https://avires.dimi.uniud.it/papers/btad.
"""

from musc_jax.data.dataset import Candidate
from musc_jax.data.image_sample import Picture
from musc_jax.data.trees import Found, Request, add_candidates, find_categories, is_folder, pictures, root_of

_LAYOUT = "<01, 02 or 03>/test/{ok,ko}/0000.bmp"
_HOME = "https://avires.dimi.uniud.it/papers/btad"


def find_btad(request: Request) -> Found:
    """Find every sample of BTAD, without looking into any file."""
    root, found = root_of("btad", request.data_dir, layout=_LAYOUT, home=_HOME), Found()
    folders = find_categories(
        root,
        request.categories,
        found,
        wrappers=("BTech_Dataset_transformed", "btad"),
        is_category=lambda folder: is_folder(folder / "test" / "ok") or is_folder(folder / "test" / "ko"),
        layout=_LAYOUT,
        home=_HOME,
    )
    for category, folder in folders.items():

        def report(line: str, category: str = category) -> None:
            found.fault(category, line)

        samples: list[Candidate] = []
        for stem, image in pictures(folder / "test" / "ok", report).items():
            picture = Picture(f"ok_{stem}", image, 0)
            samples.append(Candidate(picture.name, picture.check))
        masks = pictures(folder / "ground_truth" / "ko", report)
        for stem, image in pictures(folder / "test" / "ko", report).items():
            ending = ".bmp" if category == "03" else ".png"
            expected = folder / "ground_truth" / "ko" / f"{stem}{ending}"
            picture = Picture(f"ko_{stem}", image, 1, masks.pop(stem, None), str(expected), nonzero=True)
            samples.append(Candidate(picture.name, picture.check))
        found.warnings.extend(f"{path}: is a mask without an image; not used" for path in masks.values())
        add_candidates(found, category, folder, samples)
    return found
