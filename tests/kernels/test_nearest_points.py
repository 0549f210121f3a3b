"""Nearest neighbours and farthest point sampling against plain statements."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiled import m
from scipy.spatial import cKDTree

import musc_jax


def surface(rng, kind, side=64):
    """A point map's worth of points, the invalid ones NaN."""
    y, x = np.mgrid[:side, :side] / side * 2 - 1
    z = {
        "wave": 0.3 * np.sin(5 * x) + 0.2 * np.cos(4 * y),
        "flat": 0 * x,
        "step": np.where(x > 0, 0.5, 0.0),
        "noise": 0.3 * np.sin(5 * x) + 0.01 * rng.normal(size=x.shape),
        "outliers": np.where(rng.random(x.shape) < 0.001, 50.0, 0.1 * x * y),
    }[kind]
    points = np.stack([x, y, z], -1).reshape(-1, 3).astype(np.float32)
    valid = (np.hypot(x, y) < 0.95).ravel() & (rng.random(side * side) > 0.2)
    points[~valid] = np.nan
    return points, valid


@pytest.mark.parametrize("kind", ["wave", "flat", "step", "noise", "outliers"])
@pytest.mark.parametrize("k", [1, 12, 64])
def test_neighbors_agree_with_a_tree(rng, kind, k):
    points, valid = surface(rng, kind, side=128 if k == 12 else 96)
    queries = points[np.flatnonzero(valid)[::97][:40]]
    got = m.nearest_neighbors(queries, points, k, valid=valid)
    want = cKDTree(points[valid].astype(np.float64)).query(queries, k)[0].reshape(-1, k)
    np.testing.assert_allclose(got.distances, want, rtol=2e-6, atol=1e-7)
    assert valid[got.indices].all()
    assert all(len(set(row)) == k for row in np.asarray(got.indices))


def test_equal_distances_go_to_the_lower_index(rng):
    # Coordinates on an integer grid: squared distances are exact, and most of them come several times.
    points = rng.integers(0, 12, (6000, 3)).astype(np.float32)
    queries = points[:50]
    squared = ((queries[:, None] - points[None]) ** 2).sum(-1)
    want = np.argsort(squared, axis=1, kind="stable")[:, :20]
    np.testing.assert_array_equal(m.nearest_neighbors(queries, points, 20).indices, want)


def test_uncertified_queries_are_repeated():
    # Two far clusters of equal points: the nearest boxes of a query never bound its neighbours from outside.
    points = np.repeat(np.array([[0, 0, 0], [1, 0, 0]], np.float32), 4000, axis=0)
    got = m.nearest_neighbors(points[[0, 4000]], points, 30)
    np.testing.assert_array_equal(got.indices, [np.arange(30), np.arange(4000, 4030)])


@pytest.mark.parametrize("size", [5, 40, 3000])
def test_too_few_points_repeat_the_nearest(rng, size):
    points = rng.normal(size=(size, 3)).astype(np.float32)
    valid = np.zeros(size, bool)
    valid[[1, 3, 4]] = True
    got = m.nearest_neighbors(points[[3]], points, 8, valid=valid)
    want = np.argsort(np.linalg.norm(points[[1, 3, 4]] - points[3], axis=1))
    np.testing.assert_array_equal(got.indices[0], [*np.array([1, 3, 4])[want], *[3] * 5])
    assert np.all(np.asarray(got.distances)[0, 3:] == 0)


def test_padding_and_vmap_change_nothing(rng):
    clouds = [surface(np.random.default_rng(i), kind, side=64) for i, kind in enumerate(("wave", "step"))]
    points, valid = (np.stack(x) for x in zip(*clouds))
    queries = np.stack([p[np.flatnonzero(v)[:20]] for p, v in clouds])
    many = jax.vmap(lambda q, p, v: m.nearest_neighbors(q, p, 16, valid=v))(queries, points, valid)
    for i in range(2):
        one = m.nearest_neighbors(queries[i], points[i], 16, valid=valid[i])
        np.testing.assert_array_equal(many.indices[i], one.indices)
        kept = m.nearest_neighbors(queries[i], points[i][valid[i]], 16)
        np.testing.assert_array_equal(np.flatnonzero(valid[i])[kept.indices], one.indices)


def test_distances_have_gradients_even_at_the_query(rng):
    points = rng.normal(size=(30, 3)).astype(np.float32)
    gradient = jax.grad(lambda p: m.nearest_neighbors(p[:4], p, 3).distances.sum())(points)
    assert np.isfinite(gradient).all()
    assert np.abs(gradient).max() > 0


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (lambda p: musc_jax.nearest_neighbors(p, p, 0), "k: expected .* at least 1"),
        (lambda p: musc_jax.nearest_neighbors(p[:, :2], p, 1), "queries: expected shape"),
        (lambda p: musc_jax.nearest_neighbors(p, p[:0], 1), "empty cloud"),
        (lambda p: musc_jax.nearest_neighbors(p, p, 1, valid=np.zeros(len(p), bool)), "empty cloud"),
        (lambda p: musc_jax.nearest_neighbors(p, p, 1, valid=np.ones(3, bool)), "valid: expected shape"),
        (lambda p: musc_jax.farthest_point_sampling(p, 0), "num: expected .* at least 1"),
        (lambda p: musc_jax.farthest_point_sampling(p[:0], 1), "empty cloud"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_bad_arguments_are_named(rng, bad, message):
    with pytest.raises(ValueError, match=message):
        bad(rng.normal(size=(9, 3)).astype(np.float32))


def naive_sampling(points, num, candidates, start):
    points, chosen = points.astype(np.float64), [start]
    nearest = np.where(candidates, np.inf, -1)
    for _ in range(num - 1):
        distance = ((points - points[chosen[-1]]) ** 2).sum(-1)
        nearest = np.where(candidates, np.minimum(nearest, distance), -1)
        chosen.append(int(np.argmax(nearest)))
    return chosen


@pytest.mark.parametrize("size", [1, 7, 256, 257, 1500])
def test_sampling_agrees_with_the_textbook(rng, size):
    points = rng.normal(size=(size, 3)).astype(np.float32)
    candidates = rng.random(size) > 0.3
    candidates[-1] = True
    num = min(size, 40)
    num = min(num, int(candidates.sum()))
    got = m.farthest_point_sampling(points, num, candidates=candidates, start=0)
    np.testing.assert_array_equal(got, naive_sampling(points, num, candidates, 0))


def test_sampling_golden(golden):
    z = golden("fps")
    for name, options in (("index", {"candidates": z["candidate"]}), ("index_all", {})):
        for call in (lambda f: f, jax.jit):
            got = call(lambda p, o=options: m.farthest_point_sampling(p, 64, **o))(z["points"])
            np.testing.assert_array_equal(got, z[name])


def test_sampling_repeats_the_lowest_candidate_when_they_run_out(rng):
    points = rng.normal(size=(20, 3)).astype(np.float32)
    candidates = np.zeros(20, bool)
    candidates[[4, 9, 15]] = True
    got = np.asarray(m.farthest_point_sampling(points, 7, candidates=candidates, start=9))
    assert sorted(got[:3]) == [4, 9, 15]
    assert list(got[3:]) == [4] * 4
    alone = m.farthest_point_sampling(points, 3, candidates=np.zeros(20, bool), start=5)
    assert list(np.asarray(alone)) == [5, 5, 5]


def test_sampling_ignores_garbage_and_batches(rng):
    clouds = rng.normal(size=(3, 300, 3)).astype(np.float32)
    candidates = rng.random((3, 300)) > 0.5
    candidates[:, 0] = True
    plain = [m.farthest_point_sampling(p, 20, candidates=c) for p, c in zip(clouds, candidates)]
    dirty = np.where(candidates[..., None], clouds, np.nan)
    many = jax.vmap(lambda p, c: m.farthest_point_sampling(p, 20, candidates=c))(dirty, candidates)
    np.testing.assert_array_equal(many, jnp.stack(plain))
