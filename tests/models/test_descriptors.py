"""Geometric descriptors against a plain float64 statement, and what they promise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import musc_jax
from musc_jax.models import descriptors_backbone
from musc_jax.models.descriptors import DescriptorConfig, Descriptors, eigen_shape

MODULE = Descriptors(DescriptorConfig())
BLOCKS = (0, 1, 2)
BINS = (0.0, 0.05, 0.1, 0.2, 0.4, 0.8)


def surfaces(count=60, size=40, seed=0):
    """Groups on wavy surfaces, in the order of their distance from a centre that is one of them."""
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(-0.1, 0.1, (2, count, size))
    x[:, 0] = y[:, 0] = 0
    bend = rng.uniform(0.5, 4, (count, 1))
    z = bend * (x**2 - 0.3 * y**2) + 0.01 * np.sin(40 * x + bend) - 0.01 * np.sin(bend)
    points = np.stack([x, y, z], -1)
    order = (points**2).sum(-1).argsort(-1)
    return np.take_along_axis(points, order[..., None], 1).astype(np.float32)


@pytest.fixture(scope="module")
def describe():
    """The module as users run it."""
    compiled = jax.jit(lambda groups: MODULE.apply({}, groups, groups[:, 0], blocks=BLOCKS))
    return lambda groups: [np.asarray(stage) for stage in compiled(np.asarray(groups, np.float32))]


# ---- The statement, one group at a time


def state_moments(points, weight):
    share = weight / weight.sum()
    mean = share @ points
    return mean, (points - mean).T @ np.diag(share) @ (points - mean)


def state_histogram(sines, weight):
    found = np.zeros(len(BINS))
    for sine, w in zip(sines, weight / weight.sum(), strict=True):
        # To the two bins that it lies between, by its distance from them.
        found += w * np.array([np.interp(sine, BINS, np.eye(len(BINS))[i]) for i in range(len(BINS))])
    return found


def state(group, radius):
    """One token."""
    points = group.astype(np.float64)
    points /= np.linalg.norm(points, axis=1).max()
    distance = np.linalg.norm(points, axis=1)
    mean, covariance = state_moments(points, np.exp(-((distance / radius) ** 4)))
    (third, second, first), vectors = np.linalg.eigh(covariance)
    normal = vectors[:, 0]
    total = first + second + third
    height = (points - mean) @ normal
    columns = [1, (first - second) / first, (second - third) / first, third / first]
    columns += [3 * third / total, 3 * np.sqrt(third / total), 4 * abs(mean @ normal) / radius]
    for inner, outer in ((0, 0.35), (0.35, 0.7), (0.7, 1.05)):
        rising, falling = (1 / (1 + np.exp(-30 * x)) for x in (distance / radius - inner, outer - distance / radius))
        share = rising * falling / (rising * falling).sum()
        at = share @ height
        columns += [4 * abs(at) / radius, 4 * np.sqrt(share @ (height - at) ** 2) / radius]
    chosen = points[np.linspace(0, len(points) - 1, 12).astype(int)]
    normals = []
    for anchor in chosen:
        near = np.exp(-((points - anchor) ** 2).sum(1) / 0.35**2)
        normals.append(np.linalg.eigh(state_moments(points - anchor, near)[1])[1][:, 0])
    normals, far = np.array(normals), np.linalg.norm(chosen, axis=1)
    weight = np.exp(-((far / radius) ** 4))
    out = far > 1e-6
    ways = chosen[out] / far[out, None]
    return np.concatenate([
        columns,
        state_histogram(np.sqrt(np.maximum(1 - (normals @ normal) ** 2, 0)), weight),
        state_histogram(abs(ways @ normal), weight[out]),
        state_histogram(abs((ways * normals[out]).sum(1)), weight[out]),
    ])  # fmt: skip


def test_the_statement(describe):
    """float32 has eigenvectors to 1e-6 or so, and the narrowest bins rise by 20 in 1."""
    groups = surfaces()
    for radius, got in zip(DescriptorConfig().radii, describe(groups), strict=True):
        want = np.stack([state(group, radius) for group in groups])
        assert got.shape == (len(groups), DescriptorConfig().width) == want.shape
        np.testing.assert_allclose(got, want, atol=1e-4)
        assert want.std(0)[1:13].min() > 1e-4, "a descriptor that is the same for all says nothing"


# ---- What is promised


def turned(points, seed=3):
    turn = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))[0]
    return points.astype(np.float64) @ turn


def test_a_turned_or_mirrored_or_larger_cloud_has_the_same_descriptors(describe):
    groups = surfaces(seed=1)
    want = describe(groups)
    for other in (turned(groups), groups * np.array([1, -1, 1]), groups * 7.0):
        for got, stage in zip(describe(other), want, strict=True):
            np.testing.assert_allclose(got, stage, atol=1e-4)


def test_groups_do_not_meet_each_other(describe):
    groups = surfaces()
    changed = groups.copy()
    changed[4:] = groups[:-4] * 2 + 0.3
    for got, want in zip(describe(changed), describe(groups), strict=True):
        np.testing.assert_array_equal(got[:4], want[:4])


def flawed():
    """Groups that have no plane, no line, or no points: flat, a line, one point, round, a repeated centre."""
    rng = np.random.default_rng(5)
    groups = np.zeros((5, 40, 3), np.float32)
    groups[0, :, :2] = rng.normal(size=(40, 2))
    groups[1, :, 1] = rng.normal(size=40)
    groups[3] = np.concatenate([sign * np.eye(3) for sign in (1, -1)] * 7)[:40]
    groups[4, ::2] = rng.normal(size=(20, 3))
    groups[:, 0] = 0
    return groups


def test_nothing_is_infinite_where_a_group_has_no_shape(describe):
    """Values and gradients, mapped over clouds."""
    clouds = np.stack([np.concatenate([flawed(), surfaces(55)]), surfaces()])

    def total(clouds):
        stages = jax.vmap(lambda groups: MODULE.apply({}, groups, groups[:, 0], blocks=BLOCKS))(clouds)
        return sum((stage**2).sum() for stage in stages), stages

    (_, stages), gradient = jax.jit(jax.value_and_grad(total, has_aux=True))(clouds)
    assert np.isfinite(gradient).all()
    assert np.abs(gradient[1]).max() > 0
    for stage, alone in zip(stages, describe(clouds[1]), strict=True):
        assert np.isfinite(stage).all()
        np.testing.assert_allclose(stage[1], alone, atol=1e-4)


def test_eigenvalues_and_their_gradients():
    """Those of single eigenvalues as `eigh` has them; each of two equal ones has that of their mean."""
    rng = np.random.default_rng(2)
    made = rng.normal(size=(6, 5, 3))
    single = np.einsum("gki,gkj->gij", made, made).astype(np.float32)
    flat = np.diag(np.array([1, 1, 0], np.float32))
    weight = np.array([1.0, 2.0, 5.0], np.float32)

    def combined(covariance):
        return (eigen_shape(covariance).values * weight[None]).sum()

    got, gradient = jax.jit(lambda c: (eigen_shape(c), jax.grad(combined)(c)))(single)
    values, vectors = np.linalg.eigh(single.astype(np.float64))
    np.testing.assert_allclose(got.values, values[:, ::-1], atol=1e-5 * values.max())
    np.testing.assert_allclose(np.abs((got.normal * vectors[..., 0]).sum(-1)), 1, atol=1e-5)
    want = np.einsum("gik,k,gjk->gij", vectors[..., ::-1], weight, vectors[..., ::-1])
    np.testing.assert_allclose(gradient, want, atol=1e-3)
    of_flat = jax.jit(jax.grad(lambda c: eigen_shape(c[None]).values[0, 0]))(flat)
    np.testing.assert_allclose(of_flat, flat / 2, atol=1e-6)
    np.testing.assert_allclose(eigen_shape(jnp.asarray(flat[None])).values[0], [1, 1, 0], atol=1e-5)


def test_what_is_no_point_changes_nothing(rng):
    """A whole cloud to its tokens; what is masked may hold anything."""
    x, y = rng.uniform(-0.6, 0.6, (2, 300))
    points = np.stack([x, y, 0.3 * x**2 + 0.01 * rng.normal(size=300)], -1).astype(np.float32)
    backbone = descriptors_backbone()

    def tokens(points, valid):
        return musc_jax.point_tokens(points, backbone, valid=valid, num_groups=20, group_size=16, k_iter=8)

    compiled = jax.jit(tokens)
    valid = np.arange(300) < 250
    want, got = (compiled(np.where(valid[:, None], points, np.float32(what)), valid) for what in (0.0, np.nan))
    for mine, stage in zip(got.stages, want.stages, strict=True):
        assert np.isfinite(stage).all()
        np.testing.assert_array_equal(mine, stage)
    for mine, stage in zip(compiled(turned(points).astype(np.float32), valid).stages, want.stages, strict=True):
        np.testing.assert_allclose(mine, stage, atol=1e-4)


@pytest.mark.parametrize(
    ("shapes", "blocks", "named"),
    [
        (((4, 9, 2), (4, 3)), (0,), "groups, centers"),
        (((4, 9, 3), (5, 3)), (0,), "groups, centers"),
        (((4, 9, 3), (4, 3)), (), "blocks"),
        (((4, 9, 3), (4, 3)), (1, 0), "blocks"),
        (((4, 9, 3), (4, 3)), (3,), "blocks"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_what_is_refused(shapes, blocks, named):
    with pytest.raises(ValueError, match=f"^{named}: expected .*, received"):
        MODULE.apply({}, *(np.zeros(shape, np.float32) for shape in shapes), blocks=blocks)


def test_other_radii_are_another_backbone():
    usual, other = descriptors_backbone(), descriptors_backbone(DescriptorConfig((0.5, 1.0)))
    assert usual.digest == descriptors_backbone().digest != other.digest
    assert (usual.blocks, other.blocks, usual.random) == ((0, 1, 2), (0, 1), False)


def test_it_is_no_image_backbone():
    with pytest.raises(musc_jax.config.ConfigError, match=r"^image_backbone: descriptors is the other modality's"):
        musc_jax.Config(image_backbone=descriptors_backbone())
