"""BTAD (beanTech): three products, each with its own file types.

    DIR/<01, 02, 03>/test/{ok,ko}/<number>.{bmp,png}
    DIR/<01, 02, 03>/ground_truth/ko/<number>.{png,bmp}

or below BTech_Dataset_transformed. Numbers return in `ok` and `ko`, so masks are paired within `ko` only. Masks are not
all 0 and 255, and some of `ko` are nearly empty: every value but 0 is a defect, and the folder decides the label.
"""

from musc_jax.data.dataset import Candidate
from musc_jax.data.image_sample import Picture
from musc_jax.data.spec import MVTEC, Archive, DatasetSpec, Expected, Source
from musc_jax.data.trees import Found, Request, add_candidates, find_categories, is_folder, pictures, root_of

_LAYOUT = "<01, 02 or 03>/test/{ok,ko}/0000.bmp"

SOURCE = Source(
    title="BTAD",
    home="https://avires.dimi.uniud.it/papers/btad",
    licence="CC BY-SA 4.0 (its README), https://creativecommons.org/licenses/by-sa/4.0",
    categories={
        "01": Expected(21, 49, (1600, 1600)),
        "02": Expected(30, 200, (600, 600)),
        "03": Expected(400, 41, (800, 600)),
    },
    layout=MVTEC,
    example="`01/test/ok/0000.bmp`, `01/ground_truth/ko/0000.png`, ...",
    archives=(
        Archive(
            "btad.zip",
            "https://avires.dimi.uniud.it/papers/btad/btad.zip",
            "461c9387e515bfed41ecaae07c50cf6b10def647b36c9e31d239ab2736b10d2a",
            top="BTech_Dataset_transformed",
        ),
    ),
    recipe=("open the home page and download the archive that it names",),
    wrappers=("BTech_Dataset_transformed", "btad"),
    remark="anomalib's documentation says CC BY-NC-SA 4.0, which contradicts the README",
    signs=("*/test/ok", "*/test/ko"),
)


def find_btad(request: Request) -> Found:
    """Find every sample of BTAD, without looking into any file."""
    root, found = root_of("btad", request.data_dir, layout=_LAYOUT, home=SOURCE.home), Found()
    folders = find_categories(
        root,
        request.categories,
        found,
        wrappers=SOURCE.wrappers,
        is_category=lambda folder: is_folder(folder / "test" / "ok") or is_folder(folder / "test" / "ko"),
        layout=_LAYOUT,
        home=SOURCE.home,
    )
    for category, folder in folders.items():

        def report(line: str, category: str = category) -> None:
            found.fault(category, line)

        samples: list[Candidate] = []
        for stem, image in pictures(folder / "test" / "ok", report).items():
            picture = Picture(f"ok_{stem}", image, 0)
            samples.append(Candidate.of(picture))
        masks = pictures(folder / "ground_truth" / "ko", report)
        for stem, image in pictures(folder / "test" / "ko", report).items():
            ending = ".bmp" if category == "03" else ".png"
            expected = folder / "ground_truth" / "ko" / f"{stem}{ending}"
            picture = Picture(f"ko_{stem}", image, 1, masks.pop(stem, None), str(expected), nonzero=True)
            samples.append(Candidate.of(picture))
        found.warnings.extend(f"{path}: is a mask without an image; not used" for path in masks.values())
        add_candidates(found, category, folder, samples)
    return found


DATASET = DatasetSpec(name="btad", find=find_btad, modalities=("rgb",), source=SOURCE, rank=60)
