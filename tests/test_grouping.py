"""Curvature and iterative point grouping against golden vectors and plain float64 statements."""

import jax
import numpy as np
import pytest
from compiled import m

import musc_jax


def naive_curvature(neighbors, center):
    relative = neighbors.astype(np.float64) - center
    relative /= max(np.linalg.norm(relative, axis=1).max(), 1e-12)
    values = np.linalg.eigvalsh(np.cov(relative.T))
    return values[0] / (values.sum() + 1e-12)


def naive_group(points, center, group_size, k_iter, threshold, variant):
    """One group by SPEC's words, with loops."""
    points = points.astype(np.float64)
    order = np.argsort(((points - points[center]) ** 2).sum(-1), kind="stable")
    if naive_curvature(points[order[1:group_size]], points[center]) < threshold:
        return order[:group_size]
    group = list(order[:k_iter])
    while len(group) < group_size:
        take = min(k_iter, group_size - len(group))
        pool = order[: 2 * group_size] if variant == "released" else order
        rest = np.array([i for i in pool if i not in set(group)])
        pairs = np.linalg.norm(points[group][:, None] - points[rest][None], axis=-1)
        if variant == "released":
            group += list(rest[np.argsort(pairs.reshape(-1), kind="stable")[:take] % len(rest)])
        else:
            group += list(rest[np.argsort(pairs.min(0), kind="stable")[:take]])
    return np.array(group)


@pytest.fixture
def cloud(rng):
    """Two sheets that meet at an edge, so that some groups are expanded and some are not."""
    u, v = rng.uniform(-1, 1, (2, 900))
    flat = np.stack([u, v, 0.02 * rng.normal(size=900)], -1)
    wall = np.stack([0.2 + 0 * u, v, 1.2 * np.abs(u)], -1)
    return np.concatenate([flat, wall]).astype(np.float32)


def test_golden(golden):
    z = golden("ipg")
    options = {"group_size": 32, "k_iter": 12, "curvature_threshold": float(z["threshold"])}
    for variant in ("released", "paper"):
        got = m.iterative_point_grouping(z["points"], z["centers"], variant=variant, **options)
        np.testing.assert_array_equal(np.sort(got.indices, -1), np.sort(z[variant], -1))
        np.testing.assert_allclose(got.curvature, z["curvature"], rtol=0, atol=1e-4 * z["curvature"].max())


@pytest.mark.parametrize("variant", ["released", "paper"])
@pytest.mark.parametrize("k_iter", [7, 20, 24])
def test_groups_agree_with_loops(cloud, variant, k_iter):
    centers = np.arange(0, len(cloud), 60)
    got = jax.jit(
        lambda p, c: m.iterative_point_grouping(
            p, c, group_size=24, k_iter=k_iter, curvature_threshold=0.01, variant=variant
        )
    )(cloud, centers)
    want = np.stack([naive_group(cloud, c, 24, k_iter, 0.01, variant) for c in centers])
    np.testing.assert_array_equal(np.sort(got.indices, -1), np.sort(want, -1))


def test_paper_rule_looks_beyond_the_pool(rng):
    # A dense clump around the centre fills the pool, but the group's rim reaches out along a line towards points that
    # are no part of it: only the whole cloud gives the printed rule's answer.
    line = np.stack([np.linspace(0, 1, 300) ** 0.5, np.zeros(300), np.zeros(300)], -1)
    clump = 0.3 * rng.normal(size=(300, 3))
    cloud = np.concatenate([[[0, 0, 0]], [*line, [0.01, 0, 0]], clump]).astype(np.float32)
    got = m.iterative_point_grouping(cloud, np.array([0]), group_size=40, k_iter=5, variant="paper")
    want = naive_group(cloud, 0, 40, 5, 0.01, "paper")
    np.testing.assert_array_equal(np.sort(got.indices[0]), np.sort(want))
    pool = np.argsort(((cloud - cloud[0]) ** 2).sum(-1))[:80]
    assert set(want) - set(pool), "the test must reach beyond the pool"


@pytest.mark.parametrize("variant", ["released", "paper"])
def test_padding_and_vmap_change_nothing(cloud, variant):
    padded = np.concatenate([cloud, np.full((57, 3), np.nan, np.float32)])
    valid = np.arange(len(padded)) < len(cloud)
    centers = np.arange(0, len(cloud), 90)

    def group(points, valid):
        return m.iterative_point_grouping(points, centers, group_size=24, k_iter=16, valid=valid, variant=variant)

    plain = m.iterative_point_grouping(cloud, centers, group_size=24, k_iter=16, variant=variant)
    many = jax.vmap(group)(np.stack([padded, padded]), np.stack([valid, valid]))
    for i in range(2):
        np.testing.assert_array_equal(many.indices[i], plain.indices)
        np.testing.assert_allclose(many.curvature[i], plain.curvature, atol=1e-6)


@pytest.mark.parametrize("variant", ["released", "paper"])
@pytest.mark.parametrize("size", [1, 2, 5, 30])
def test_small_clouds_fill_up_by_repeating(rng, variant, size):
    points = rng.normal(size=(size, 3)).astype(np.float32)
    got = m.iterative_point_grouping(points, np.arange(size), group_size=24, k_iter=16, variant=variant)
    assert got.indices.shape == (size, 24)
    assert ((np.asarray(got.indices) >= 0) & (np.asarray(got.indices) < size)).all()
    assert np.isfinite(got.curvature).all()
    for i in range(size):
        assert i in np.asarray(got.indices[i])


def test_ablation_keeps_the_nearest(cloud):
    centers = np.arange(0, len(cloud), 60)
    got = m.iterative_point_grouping(cloud, centers, group_size=24, k_iter=16, expansion=False)
    want = m.nearest_neighbors(cloud[centers], cloud, 24)
    np.testing.assert_array_equal(got.indices, want.indices)


def test_curvature_by_hand_and_by_numpy(rng):
    flat = np.array([[1, 0, 0], [0, 1, 0], [-1, 0, 0], [0, -1, 0]], np.float32)
    assert m.curvature(flat, np.zeros(3, np.float32)) == pytest.approx(0, abs=1e-7)
    corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], np.float32)
    assert m.curvature(corners, np.zeros(3, np.float32)) == pytest.approx(1 / 3, abs=1e-6)
    assert m.curvature(np.ones((5, 3), np.float32), np.ones(3, np.float32)) == 0
    clouds = rng.normal(size=(4, 30, 3)).astype(np.float32)
    want = [naive_curvature(c, np.zeros(3)) for c in clouds]
    np.testing.assert_allclose(m.curvature(clouds, np.zeros((4, 3), np.float32)), want, atol=1e-6)
    gradient = jax.grad(lambda c: m.curvature(c, np.zeros((4, 3), np.float32)).sum())(clouds)
    assert np.isfinite(gradient).all()


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"group_size": 2}, "group_size"),
        ({"k_iter": 0}, "k_iter"),
        ({"variant": "v3"}, "variant"),
        ({"valid": np.zeros(9, bool)}, "empty cloud"),
    ],
)
def test_bad_options_are_named(rng, options, message):
    points = rng.normal(size=(9, 3)).astype(np.float32)
    with pytest.raises(ValueError, match=message):
        musc_jax.iterative_point_grouping(points, np.array([0]), **options)


def test_known_centers_are_valid_points(rng):
    points, valid = rng.normal(size=(9, 3)).astype(np.float32), np.arange(9) > 2
    with pytest.raises(ValueError, match="centers: expected valid points, received 2, which is not"):
        musc_jax.iterative_point_grouping(points, np.array([5, 2]), group_size=4, valid=valid)
