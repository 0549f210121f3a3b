"""The published datasets: where they are, under which licence, and how many test samples they have.

Figures and addresses are as their sources print them. None of the archives was opened when this table was written, so
whoever uses it compares and reports, and takes nothing for granted.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Archive:
    """A file that can be fetched without a form.

    Attributes:
        name: its file name.
        url: its address.
        sha256: None where no source tells it.
        top: the folder that it unpacks to; None where it has none or no source tells it.
    """

    name: str
    url: str
    sha256: str | None = None
    top: str | None = None


@dataclass(frozen=True)
class Expected:
    """A category's test samples.

    Attributes:
        good: how many are good.
        defective: how many are not.
        size: width and height of its pictures; None where they vary or the sources are not sure.
    """

    good: int
    defective: int
    size: tuple[int, int] | None = None


@dataclass(frozen=True)
class Source:
    """A published dataset.

    Attributes:
        title: its name in print.
        home: its authors' page.
        licence: what its authors say.
        remark: where others say something else, or nothing is certain; "" otherwise.
        categories: by name, in the order of the paper.
        archives: what can be fetched directly.
        recipe: how to get it by hand, a step a line; for those with archives, what to do when their address fails.
        wrappers: folders that archives and copies put around the categories; its reader looks into the same ones.
    """

    title: str
    home: str
    licence: str
    remark: str
    categories: Mapping[str, Expected]
    archives: tuple[Archive, ...] = ()
    recipe: tuple[str, ...] = ()
    wrappers: tuple[str, ...] = ()


_BY_NC_SA = "CC BY-NC-SA 4.0 (no commercial use), https://creativecommons.org/licenses/by-nc-sa/4.0"


def _square(rows: Mapping[str, tuple[int, int, int]]) -> dict[str, Expected]:
    return {name: Expected(good, defective, (side, side)) for name, (good, defective, side) in rows.items()}


_CANDIES = {
    "CandyCane": "1OI0Jh5tUj98j3ihFXCXf7EW2qSpeaTSY",
    "ChocolateCookie": "1PEvIXZOcxuDMBo4iuCsUVDN63jisg0QN",
    "ChocolatePraline": "1dRlDAS31QJSwROgA6yFcXo85mL0EBh25",
    "Confetto": "10GNPUIQTUheT-qd6EzO76fsUgAwsHfaq",
    "GummyBear": "1OCAKXPmpNrD9s3oUcQ--mhRZTt4HGJ-W",
    "HazelnutTruffle": "1PsKc4hXxsuIjqwyHh7ciPAeS-IxsPikm",
    "LicoriceSandwich": "1dtU_l9gD1zoCN7fIYRksd_9KeyZklaHC",
    "Lollipop": "1DbL91Zjm2I9-AfJewU3M354pW4vnuaNz",
    "Marshmallow": "1pebIU3AegEFilqqoROaVzOZqkSgX-JTo",
    "PeppermintCandy": "1tF_1fPJYaUVaf1AwjlEi-fsGWzgCx6UF",
}

_MVTEC3D = Source(
    title="MVTec 3D-AD",
    home="https://www.mvtec.com/company/research/datasets/mvtec-3d-ad",
    licence=_BY_NC_SA,
    remark="",
    categories={
        "bagel": Expected(22, 88, (800, 800)),
        "cable_gland": Expected(21, 87, (400, 400)),
        "carrot": Expected(27, 132, (800, 800)),
        "cookie": Expected(28, 103, (500, 500)),
        "dowel": Expected(26, 104, (400, 400)),
        "foam": Expected(20, 80, (900, 900)),
        "peach": Expected(26, 106, (600, 600)),
        "potato": Expected(22, 92, (800, 800)),
        "rope": Expected(32, 69, (900, 400)),
        "tire": Expected(25, 87, (600, 800)),
    },
    archives=(
        Archive(
            "mvtec_3d_anomaly_detection.tar.xz",
            "https://www.mydrive.ch/shares/150646/25de33f1276dd418cd856f2f48a84cdb/download/428824485-1643299897/"
            "mvtec_3d_anomaly_detection.tar.xz",
        ),
    ),
    recipe=("the address changes now and then: open the home page, fill in its form, and download the archive",),
    wrappers=("mvtec_3d_anomaly_detection", "mvtec_3d", "mvtec3d"),
)

_EYECANDIES = Source(
    title="Eyecandies",
    home="https://eyecan-ai.github.io/eyecandies",
    licence="its authors state none for the data, as far as we could find; ask them",
    remark="the program that made it is under GPL-3.0",
    categories={name: Expected(25, 25, (512, 512)) for name in _CANDIES},
    recipe=(
        "download each category's archive from its page in a browser (they are tar archives, whatever their names end "
        "in) and call each by its category, as in CandyCane.tar:",
        *(f"  {name}: https://drive.google.com/file/d/{key}/view" for name, key in _CANDIES.items()),
    ),
    wrappers=("Eyecandies",),
)

_MVTEC_AD = Source(
    title="MVTec AD",
    home="https://www.mvtec.com/company/research/datasets/mvtec-ad",
    licence=_BY_NC_SA,
    remark="",
    categories=_square(
        {
            "bottle": (20, 63, 900),
            "cable": (58, 92, 1024),
            "capsule": (23, 109, 1000),
            "carpet": (28, 89, 1024),
            "grid": (21, 57, 1024),
            "hazelnut": (40, 70, 1024),
            "leather": (32, 92, 1024),
            "metal_nut": (22, 93, 700),
            "pill": (26, 141, 800),
            "screw": (41, 119, 1024),
            "tile": (33, 84, 840),
            "toothbrush": (12, 30, 1024),
            "transistor": (60, 40, 1024),
            "wood": (19, 60, 1024),
            "zipper": (32, 119, 1024),
        }
    ),
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
)

_VISA = Source(
    title="VisA",
    home="https://github.com/amazon-science/spot-diff",
    licence="CC BY 4.0 (its README and LICENSE-DATASET), https://creativecommons.org/licenses/by/4.0",
    remark="anomalib's documentation says CC BY-NC-SA 4.0, which contradicts the authors",
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
    archives=(
        Archive(
            "VisA_20220922.tar",
            "https://amazon-visual-anomaly.s3.us-west-2.amazonaws.com/VisA_20220922.tar",
            "2eb8690c803ab37de0324772964100169ec8ba1fa3f7e94291c9ca673f40f362",
        ),
    ),
    recipe=("open the home page and download the archive that it names",),
    wrappers=("VisA", "VisA_20220922"),
)

_MPDD = Source(
    title="MPDD",
    home="https://github.com/stepanje/MPDD",
    licence=_BY_NC_SA,
    remark="",
    # Its pictures are said to be 1024 x 1024, by nobody who measured them.
    categories={
        "bracket_black": Expected(32, 47),
        "bracket_brown": Expected(26, 51),
        "bracket_white": Expected(30, 30),
        "connector": Expected(30, 14),
        "metal_plate": Expected(26, 71),
        "tubes": Expected(32, 69),
    },
    recipe=(
        "open its authors' share in a browser and download all of it: https://vutbr-my.sharepoint.com/:f:/g/personal/"
        "xjezek16_vutbr_cz/EhHS_ufVigxDo3MC6Lweau0BVMuoCmhMZj6ddamiQ7-FnA?e=oHKCxI",
        "or find a copy that somebody else keeps (Hugging Face, dataset meksamiao/mpdd: MPDD.zip, 1825041283 bytes, "
        "not its authors')",
    ),
    wrappers=("MPDD", "mpdd"),
)

_BTAD = Source(
    title="BTAD",
    home="https://avires.dimi.uniud.it/papers/btad",
    licence="CC BY-SA 4.0 (its README), https://creativecommons.org/licenses/by-sa/4.0",
    remark="anomalib's documentation says CC BY-NC-SA 4.0, which contradicts the README",
    categories={
        "01": Expected(21, 49, (1600, 1600)),
        "02": Expected(30, 200, (600, 600)),
        "03": Expected(400, 41, (800, 600)),
    },
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
)

CATALOGUE: Mapping[str, Source] = MappingProxyType(
    {
        "mvtec3d": _MVTEC3D,
        "eyecandies": _EYECANDIES,
        "mvtec_ad": _MVTEC_AD,
        "visa": _VISA,
        "mpdd": _MPDD,
        "btad": _BTAD,
    }
)
"""A dataset's name (as in `musc_jax.data.DATASETS`) to what is known about it."""
