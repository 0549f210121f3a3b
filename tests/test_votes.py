"""Votes against their statement in float64, and against whole samples' pair scores."""

import jax
import numpy as np
import pytest

from musc_jax import pair_scores
from musc_jax.votes import token_votes

QUERIES, REFERENCES, TOKENS, CHANNELS = 3, 4, 7, 5


def stated(tokens, references, valid=None):
    """(distances, nearest) by loops."""
    distances, nearest = np.zeros((2, len(tokens), len(references)))
    for q, token in enumerate(tokens.astype(np.float64)):
        for t, reference in enumerate(references.astype(np.float64)):
            found = np.array([np.sqrt(np.sum((token - other) ** 2)) for other in reference])
            found[~valid[t] if valid is not None else []] = np.inf
            distances[q, t], nearest[q, t] = found.min(), found.argmin()
    return distances, nearest


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    # Far from the origin, where expanded products would cancel.
    return 50 + rng.normal(size=(QUERIES, CHANNELS)), 50 + rng.normal(size=(REFERENCES, TOKENS, CHANNELS))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("masked", [False, True])
def test_the_statement(data, dtype, masked):
    tokens, references = (x.astype(dtype) for x in data)
    valid = np.random.default_rng(1).random((REFERENCES, TOKENS)) > 0.4 if masked else None
    if masked:
        references = np.where(valid[..., None], references, np.nan)  # may hold anything
    distances, nearest = stated(tokens, references, valid)
    with jax.enable_x64(dtype is np.float64):
        found = token_votes(tokens, references, valid=valid)
        assert found.distances.dtype == dtype
        # Differences of rounded values are exact to some ulps of the result.
        np.testing.assert_allclose(found.distances, distances, rtol=2e-6 if dtype is np.float32 else 1e-14)
        np.testing.assert_array_equal(found.nearest, nearest)


def test_the_same_as_pair_scores(data):
    tokens, references = (x.astype(np.float32) for x in data)
    found = jax.jit(token_votes)(tokens, references)
    # Those are by products about the mean token.
    np.testing.assert_allclose(found.distances, pair_scores(tokens, references), atol=2e-5)


def test_ties_and_nobody():
    tokens = np.zeros((1, 2), np.float32)
    references = np.ones((2, 3, 2), np.float32)
    found = token_votes(tokens, references, valid=np.array([[True] * 3, [False] * 3]))
    assert found.nearest[0, 0] == 0
    assert np.isinf(found.distances[0, 1])


@pytest.mark.parametrize(
    ("shapes", "text"),
    [(((2,), (1, 2, 2)), "tokens"), (((2, 3), (1, 2, 2)), "references"), (((2, 2), (2, 2)), "references")],
)
def test_wrong_shapes(shapes, text):
    with pytest.raises((ValueError, TypeError), match=text):
        token_votes(*(np.zeros(shape, np.float32) for shape in shapes))
