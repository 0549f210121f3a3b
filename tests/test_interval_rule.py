"""The number of averaged scores, in Python's float64."""

import pytest

from musc_jax.mutual import interval_count


@pytest.mark.parametrize(
    ("scores", "interval", "count"),
    [(1, 0.3, 1), (3, 0.3, 1), (4, 0.3, 1), (7, 0.3, 2), (10, 0.3, 3), (100, 0.29, 28), (149, 0.3, 44), (9, 1.0, 9)],
)
def test_count(scores, interval, count):
    assert interval_count(scores, interval) == count
