"""Whole runs over a few pixels, held against numbers that the statement gave."""

from pathlib import Path

import numpy as np
import pytest
import tiny
from statement import margins
from switches import CASES, changed

FILE = Path(__file__).parent / "golden" / "tiny_run.npz"


@pytest.fixture(scope="module")
def stored():
    """By case, the arrays of `tiny.thinned`."""
    found = {name: {} for name in CASES}
    with np.load(FILE) as archive:
        for key in archive.files:
            name, field = key.split("/")
            found[name][field] = archive[key]
    return found


@pytest.mark.parametrize("name", CASES)
def test_the_library_gives_the_stored_numbers(stored, name):
    config, _ = changed(*CASES[name])
    tiny.assert_same(tiny.thinned(tiny.score(config).outcome), stored[name])


@pytest.mark.parametrize("name", CASES)
def test_the_statement_still_gives_the_stored_numbers(stored, name):
    """So that neither of the two changes alone; `golden/make_tiny_run.py` writes the file anew."""
    stated = tiny.state(changed(*CASES[name])[1])
    assert not margins.too_small(stated.gaps)
    tiny.assert_same(tiny.thinned(stated.outcome), stored[name], tolerance=1e-7)
