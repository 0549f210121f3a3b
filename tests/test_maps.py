"""Maps against golden vectors, Pillow, and plain float64 statements."""

import jax
import numpy as np
import pytest
from compiled import m
from PIL import Image, ImageFilter

import musc_jax


def naive_interpolation(points, centers, values):
    out = np.zeros(len(points))
    for i, p in enumerate(points.astype(np.float64)):
        distance = ((centers.astype(np.float64) - p) ** 2).sum(1)
        near = np.argsort(distance, kind="stable")[:3]
        weight = 1 / (distance[near] + 1e-8)
        out[i] = (weight * values[near]).sum() / weight.sum()
    return out


def test_golden(golden):
    z = golden("maps")

    def close(got, want, tolerance=2e-5):
        np.testing.assert_allclose(got, want, rtol=0, atol=tolerance * np.abs(want).max())

    close(m.upsample_grid(z["grid"], 56), z["upsampled"])
    close(m.interpolate_points(z["points"], z["centers"], z["values"]), z["interpolated"], 1e-4)
    close(m.gaussian_blur(z["image"]), z["blurred"])
    close(m.gaussian_blur(z["image"], sigma=2.0), z["blurred_sigma_2"])
    close(m.point_map(z["points"], z["pixel"], z["centers"], z["values"], size=56), z["point_map"], 1e-4)


@pytest.mark.parametrize("sigma", [0.5, 2.0, 4.0, 7.3])
def test_blur_is_pillows(rng, sigma):
    image = rng.integers(0, 256, (33, 47)).astype(np.uint8)
    want = np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(sigma)), np.float64)
    got = np.asarray(m.gaussian_blur(image.astype(np.float32), sigma=sigma))
    # Pillow rounds to whole numbers after each of its six passes; half a grey level each time.
    assert np.abs(got - want).max() <= 3
    assert np.abs((got - want).mean()) < 0.1


def test_blur_keeps_constants_and_the_sum(rng):
    np.testing.assert_allclose(m.gaussian_blur(np.full((9, 9), 3.0, np.float32)), 3.0, rtol=1e-6)
    image = np.zeros((64, 64), np.float32)
    image[32, 32] = 1
    assert float(m.gaussian_blur(image).sum()) == pytest.approx(1, abs=1e-6)
    np.testing.assert_array_equal(m.gaussian_blur(image, sigma=0.0), image)


def test_upsampling_by_hand():
    got = m.upsample_grid(np.array([[0.0, 1.0], [2.0, 3.0]], np.float32), 3)
    np.testing.assert_allclose(got, [[0, 0.5, 1], [1, 1.5, 2], [2, 2.5, 3]])
    np.testing.assert_allclose(m.upsample_grid(np.full((1, 1), 4.0, np.float32), 5), 4.0)


@pytest.mark.parametrize(("count", "groups"), [(50, 1), (50, 2), (300, 40), (3000, 200)])
def test_interpolation_agrees_with_loops(rng, count, groups):
    points = rng.normal(size=(count, 3)).astype(np.float32)
    centers = points[rng.choice(count, groups, replace=False)]
    values = rng.uniform(size=groups).astype(np.float32)
    got = jax.jit(m.interpolate_points)(points, centers, values)
    np.testing.assert_allclose(got, naive_interpolation(points, centers, values), atol=1e-4)


def test_interpolation_repeats_uncertified_blocks(rng):
    # All centres at one place: no box bounds anything, every block is looked at in full.
    points = rng.normal(size=(400, 3)).astype(np.float32)
    centers = np.repeat(points[:1], 120, axis=0)
    values = rng.uniform(size=120).astype(np.float32)
    got = m.interpolate_points(points, centers, values)
    np.testing.assert_allclose(got, naive_interpolation(points, centers, values), atol=1e-5)


def test_padding_and_vmap_change_nothing(rng):
    points = rng.normal(size=(2, 200, 3)).astype(np.float32)
    centers, values = points[:, :30], rng.uniform(size=(2, 30)).astype(np.float32)
    dirty = np.concatenate([points, np.full((2, 31, 3), np.nan, np.float32)], axis=1)
    valid = np.broadcast_to(np.arange(231) < 200, (2, 231))
    pixels = np.broadcast_to(np.concatenate([np.arange(200), np.full(31, 5)]), (2, 231))
    plain = [m.point_map(points[i], np.arange(200), centers[i], values[i], size=20) for i in range(2)]
    call = jax.vmap(lambda p, x, c, v, ok: m.point_map(p, x, c, v, size=20, valid=ok))
    np.testing.assert_allclose(call(dirty, pixels, centers, values, valid), np.stack(plain), atol=1e-6)


def test_gradients_are_right_and_finite(rng):
    points, values = rng.normal(size=(60, 3)), rng.uniform(size=12)
    with jax.enable_x64(True):
        weights = rng.normal(size=60)

        def loss(v, c):
            return (m.interpolate_points(points, c, v) * weights).sum()

        centers, step = points[:12] + 0.05, rng.normal(size=(12, 3))
        by_value, by_center = jax.grad(loss, argnums=(0, 1))(values, centers)
        numeric = (loss(values, centers + 1e-6 * step) - loss(values, centers - 1e-6 * step)) / 2e-6
        assert (by_center * step).sum() == pytest.approx(float(numeric), rel=1e-5)
        assert by_value @ values == pytest.approx(float(loss(values, centers)), rel=1e-9)
        at_center = jax.grad(lambda c: m.interpolate_points(points, c, values).sum())(points[:12])
    assert np.isfinite(at_center).all()


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p: musc_jax.upsample_grid(p, 0), "size"),
        (lambda p: musc_jax.gaussian_blur(p, sigma=-1.0), "sigma"),
        (lambda p: musc_jax.interpolate_points(p, p[:0], p[:0, 0]), "at least one group"),
        (lambda p: musc_jax.interpolate_points(p[:0], p, p[:, 0]), "empty cloud"),
        (lambda p: musc_jax.point_map(p, np.arange(3), p, p[:, 0], size=9), "pixels: expected shape"),
    ],
)
def test_bad_arguments_are_named(rng, call, message):
    with pytest.raises(ValueError, match=message):
        call(rng.normal(size=(9, 3)).astype(np.float32))
