"""The Point-MAE encoder against golden vectors and a plain float64 statement."""

from pathlib import Path

import jax
import numpy as np
import pytest
from compiled import tokens_of

import weights
from musc_jax.kernels.group_encoding import _GROUPS_ON_CPU as CHUNK
from musc_jax.models.group_encoder import GroupEncoder

CHECKPOINT = Path(__file__).parents[1] / "golden" / "point_mae_tiny.pth"


@pytest.fixture
def tiny(golden):
    from pathlib import Path

    z = golden("point_transformer")
    return z, weights.load(
        Path(__file__).parents[1] / "golden" / "point_mae_tiny.pth", "point_mae", heads=int(z["heads"])
    )


@pytest.mark.parametrize("norm", ["checkpoint", "cloud"])
def test_golden_after_every_block(tiny, norm):
    z, net = tiny
    apply = jax.jit(net.module.apply, static_argnames=("blocks", "point_norm"))
    out = apply(net.variables, z["groups"], z["centers"], blocks=(0, 1, 2), point_norm=norm)
    for i in range(3):
        want = z[f"{norm}_{i}"]
        assert np.abs(out[i] - want).max() < 1e-4 * np.abs(want).max(), f"block {i}"


def naive_encoder(groups, p, cloud):
    """The mini-PointNet as written down, all at once, float64."""

    def conv(x, name):
        return x @ p[name + ".weight"][..., 0].T + p[name + ".bias"]

    def norm(x, name):
        flat = x.reshape(-1, x.shape[-1])
        mean, var = (flat.mean(0), flat.var(0)) if cloud else (p[name + ".running_mean"], p[name + ".running_var"])
        return np.maximum((x - mean) / np.sqrt(var + 1e-5) * p[name + ".weight"] + p[name + ".bias"], 0)

    x = conv(norm(conv(groups, "encoder.first_conv.0"), "encoder.first_conv.1"), "encoder.first_conv.3")
    x = np.concatenate([np.broadcast_to(x.max(1, keepdims=True), x.shape), x], -1)
    return conv(norm(conv(x, "encoder.second_conv.0"), "encoder.second_conv.1"), "encoder.second_conv.3").max(1)


@pytest.mark.parametrize("count", [1, CHUNK - 1, CHUNK, CHUNK + 1, 6 * CHUNK + 2])
@pytest.mark.parametrize("norm", ["checkpoint", "cloud"])
def test_any_number_of_groups(tiny, rng, count, norm):
    """Groups go through in chunks: the last one is filled up, and must not leak into the cloud's statistics."""
    z, net = tiny
    groups = (rng.normal(size=(count, 9, 3)) + np.array([0.3, -2.0, 5.0])).astype(np.float32)
    p = {k.removeprefix("param:"): v.astype(np.float64) for k, v in z.items() if k.startswith("param:")}
    encoder = GroupEncoder(net.module.config)
    variables = {kind: values["encoder"] for kind, values in net.variables.items()}
    got = jax.jit(encoder.apply, static_argnums=2)(variables, groups, norm)
    want = naive_encoder(groups.astype(np.float64), p, norm == "cloud")
    np.testing.assert_allclose(got, want, atol=2e-5 * np.abs(want).max())


def test_order_of_points_does_not_matter(tiny, rng):
    z, net = tiny
    plain = tokens_of(net, z["groups"], z["centers"], blocks=(2,))[0]
    order = rng.permutation(z["groups"].shape[1])
    mixed = tokens_of(net, z["groups"][:, order], z["centers"], blocks=(2,))[0]
    np.testing.assert_allclose(mixed, plain, atol=1e-5)


def test_vmap_is_a_loop(tiny):
    z, net = tiny
    groups, centers = np.stack([z["groups"], z["groups"][::-1]]), np.stack([z["centers"], z["centers"][::-1]])
    one = lambda g, c: tokens_of(net, g, c, blocks=(1,))[0]  # noqa: E731
    many = jax.vmap(one)(groups, centers)
    for i in range(2):
        np.testing.assert_allclose(many[i], one(groups[i], centers[i]), atol=1e-5)


@pytest.mark.usefixtures("unchecked")
def test_bad_arguments_are_named(tiny):
    z, net = tiny
    with pytest.raises(ValueError, match="point_norm"):
        net.module.apply(net.variables, z["groups"], z["centers"], blocks=(0,), point_norm="batch")
    with pytest.raises(ValueError, match="expected shapes"):
        net.module.apply(net.variables, z["groups"], z["centers"][:3], blocks=(0,))
    with pytest.raises(ValueError, match="from 0 to 2"):
        net.module.apply(net.variables, z["groups"], z["centers"], blocks=(3,))
