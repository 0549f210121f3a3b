"""Modules that lie among the datasets for the time of a test."""

import importlib
import sys
from contextlib import contextmanager

from musc_jax.data import datasets


@contextmanager
def second_folder(folder):
    """The package of the datasets has this folder, too; what was imported out of it is forgotten afterwards."""
    before = list(datasets.__path__)
    datasets.__path__.append(str(folder))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        datasets.__path__[:] = before
        for path in folder.glob("*.py"):
            if sys.modules.pop(f"{datasets.__name__}.{path.stem}", None):
                delattr(datasets, path.stem)
