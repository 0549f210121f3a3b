"""The datasets, a module each; this is the table of them.

A module is found because it is there. It holds all that is known about its dataset (`Source`: licence, counts, layout)
and a function that turns a `Request` into the `Candidate`s of each category, and names both in `DATASET`. Nothing else
has to be changed for another dataset; tables in docs/ are written anew by docs/generate.py. Modules whose names
begin with an underscore are parts of others.
"""

import importlib
import pkgutil
from collections.abc import Iterable, Mapping

from musc_jax.data.spec import DatasetSpec, Source


def find_datasets(folders: Iterable[str]) -> dict[str, DatasetSpec]:
    """Import the modules of this package that lie in some folders, and list their datasets.

    Args:
        folders: out of this package's `__path__`.

    Returns:
        By name, in the order of tables and messages.

    Raises:
        ValueError: a module has no dataset of its own name.
    """
    found = []
    for module in pkgutil.iter_modules(folders):
        if module.name.startswith("_"):
            continue
        spec = getattr(importlib.import_module(f"{__name__}.{module.name}"), "DATASET", None)
        if not isinstance(spec, DatasetSpec) or spec.name != module.name:
            raise ValueError(
                f"{__name__}.{module.name}: expected DATASET, a DatasetSpec with the name {module.name!r}, received "
                f"{spec!r}; a module that is part of another one begins with _"
            )
        found.append(spec)
    return {spec.name: spec for spec in sorted(found, key=lambda spec: (spec.rank, spec.name))}


DATASETS = find_datasets(__path__)
"""A dataset's name to all that is known about it."""


def published_datasets() -> Mapping[str, Source]:
    """The datasets that were published, by name in the table's order."""
    return {name: spec.source for name, spec in DATASETS.items() if spec.source is not None}
