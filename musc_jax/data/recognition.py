"""Published datasets recognised by how their folders are called, so that a wrong name of a dataset can be put right."""

from pathlib import Path

from musc_jax.data.sample import DataError
from musc_jax.data.trees import is_folder, pictures, subfolders


def likely_datasets(root: Path) -> tuple[str, ...]:
    """Names of the datasets whose layout a tree has, the likeliest first; none where it is nobody's.

    VisA, for one, is often prepared as MVTec AD is laid out. Nothing is looked into.
    """
    try:
        places = [root, *subfolders(root)]
        if any((place / "split_csv" / "1cls.csv").is_file() for place in places):
            return ("visa",)
        deeper = [inner for place in places[1:] for inner in subfolders(place)]
        for place in [*places[1:], *deeper]:
            if is_folder(place / "test_public" / "data"):
                return ("eyecandies",)
            test = place / "test"
            if is_folder(test / "good" / "rgb"):
                return ("mvtec3d",)
            if is_folder(test / "ok") and is_folder(test / "ko"):
                return ("btad",)
            if is_folder(test / "good") and pictures(test / "good", lambda _: None):
                return ("mvtec_ad", "mpdd")
    except (DataError, OSError):
        pass
    return ()


def other_dataset(name: str, root: Path) -> str:
    """What to say of a tree that is another dataset's than was meant; "" where it is not."""
    likely = likely_datasets(root)
    if not likely or name in likely:
        return ""
    return f"{root}: is laid out as {likely[0]}; pass --dataset={likely[0]} if that is meant"
