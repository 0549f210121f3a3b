"""Published datasets recognised by how their folders are called, so that a wrong name of a dataset can be put right."""

from pathlib import Path

from musc_jax.data.datasets import DATASETS
from musc_jax.data.sample import DataError
from musc_jax.data.trees import subfolders


def likely_datasets(root: Path) -> tuple[str, ...]:
    """Names of the datasets whose signs a tree has (`Source.signs`), in their order; none where it is nobody's.

    VisA, for one, is often prepared as MVTec AD is laid out. Nothing is looked into.
    """
    try:
        places = [root, *subfolders(root)]
        signs = {name: spec.source.signs for name, spec in DATASETS.items() if spec.source is not None}
        return tuple(
            name
            for name, own in signs.items()
            if own and any(all(any(place.glob(sign)) for sign in own) for place in places)
        )
    except (DataError, OSError):
        return ()


def other_dataset(name: str, root: Path) -> str:
    """What to say of a tree that is another dataset's than was meant; "" where it is not."""
    likely = likely_datasets(root)
    if not likely or name in likely:
        return ""
    return f"{root}: is laid out as {likely[0]}; pass --dataset={likely[0]} if that is meant"
