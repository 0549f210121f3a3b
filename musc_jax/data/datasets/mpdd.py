"""MPDD: metal parts, in MVTec AD's layout and read by its reader.

    DIR/<category>/test/<good or a defect>/<stem>.png
    DIR/<category>/ground_truth/<defect>/<stem>_mask.png

or below MPDD.
"""

from functools import partial

from musc_jax.data.datasets.mvtec_ad import find_mvtec_layout
from musc_jax.data.spec import CC_BY_NC_SA, MVTEC, DatasetSpec, Expected, Source

SOURCE = Source(
    title="MPDD",
    home="https://github.com/stepanje/MPDD",
    licence=CC_BY_NC_SA,
    # Its pictures are said to be 1024 x 1024, by nobody who measured them.
    categories={
        "bracket_black": Expected(32, 47),
        "bracket_brown": Expected(26, 51),
        "bracket_white": Expected(30, 30),
        "connector": Expected(30, 14),
        "metal_plate": Expected(26, 71),
        "tubes": Expected(32, 69),
    },
    layout=MVTEC,
    example="as `mvtec_ad`",
    recipe=(
        "open its authors' share in a browser and download all of it: https://vutbr-my.sharepoint.com/:f:/g/personal/"
        "xjezek16_vutbr_cz/EhHS_ufVigxDo3MC6Lweau0BVMuoCmhMZj6ddamiQ7-FnA?e=oHKCxI",
        "or find a copy that somebody else keeps (Hugging Face, dataset meksamiao/mpdd: MPDD.zip, 1825041283 bytes, "
        "not its authors')",
    ),
    wrappers=("MPDD", "mpdd"),
    signs=("*/test/good/*.*",),
)

DATASET = DatasetSpec(
    name="mpdd",
    find=partial(find_mvtec_layout, name="mpdd", source=SOURCE),
    modalities=("rgb",),
    source=SOURCE,
    rank=50,
)
