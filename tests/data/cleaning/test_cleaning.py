"""Back-projection, plane and cluster rules against plain float64 statements of them."""

import numpy as np
import pytest
from eyecandies_tree import pose_from_above, scene
from sklearn.cluster import DBSCAN

from musc_jax.data.cleaning import eyecandies as candy_cleaning


def rigid(rng):
    q, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    pose = np.eye(4)
    pose[:3, :3] = q * np.linalg.det(q)
    pose[:3, 3] = rng.normal(size=3)
    return pose


def code(depth):
    low, high = float(depth.min()), float(depth.max())
    return np.round((depth - low) / (high - low) * 65535).astype(np.uint16), (low, high)


def plain_clean(depth, depth_range, pose, image, keep_plane):
    """Pixel by pixel, as the rule is written."""
    height, width = depth.shape
    low, high = depth_range
    camera = np.array([[711.11, 0, width / 2, 0], [0, 711.11, height / 2, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    inverse = np.linalg.inv(camera @ pose)
    points = np.zeros((height, width, 3))
    for v in range(height):
        for u in range(width):
            d = depth[v, u] / 65535 * (high - low) + low
            points[v, u] = (inverse @ np.array([u, v, 1, 1 / d]) * d)[:3]
    y = points[..., 1]
    scaled = (y - y.min()) / (y.max() - y.min())
    removed = scaled > scaled.max() if keep_plane else scaled >= scaled.max() - 0.01
    points[removed] = 0
    flat, valid = points.reshape(-1, 3), (points != 0).all(-1).ravel()
    labels = np.full(len(flat), -1)
    labels[valid] = DBSCAN(eps=0.03, min_samples=30).fit(flat[valid]).labels_
    if labels.max() < 0:
        return points
    best, best_value = None, -1
    for label in range(labels.max() + 1):
        value = image.reshape(-1, 3)[labels == label].max()
        if value > best_value:
            best, best_value = label, value
    flat[labels != best] = 0
    return points


@pytest.mark.parametrize("keep_plane", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_cleaning_equals_the_plain_statement(seed, keep_plane):
    rng = np.random.default_rng(seed)
    image, depth = scene(seed)
    coded, depth_range = code(depth)
    pose = pose_from_above()
    tilt = np.eye(4)
    angle = rng.uniform(-0.02, 0.02)
    tilt[:3, :3] = [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
    pose = pose @ tilt
    cleaned = candy_cleaning.clean_scan(coded, depth_range, pose, image, keep_plane=keep_plane)
    expected = plain_clean(coded, depth_range, pose, image, keep_plane)
    assert cleaned.clustered
    assert cleaned.points.dtype == np.float32
    np.testing.assert_array_equal(cleaned.points != 0, expected.astype(np.float32) != 0)
    np.testing.assert_allclose(cleaned.points, expected, atol=1e-6)


def test_plane_and_the_darker_box_are_removed():
    image, depth = scene(0)
    coded, depth_range = code(depth)
    cleaned = candy_cleaning.clean_scan(coded, depth_range, pose_from_above(), image)
    kept = (cleaned.points != 0).all(-1)
    expected = np.zeros_like(kept)
    expected[8:30, 8:30] = True
    np.testing.assert_array_equal(kept, expected)


def test_back_projection_inverts_projection(rng):
    pose, depth = rigid(rng), rng.uniform(0.5, 2, (6, 8))
    points = candy_cleaning.back_project(depth, pose)
    assert points.dtype == np.float64
    camera = points.reshape(-1, 3) @ pose[:3, :3].T + pose[:3, 3]
    v, u = np.mgrid[:6, :8]
    np.testing.assert_allclose(camera[:, 2], depth.ravel(), rtol=1e-12)
    np.testing.assert_allclose(camera[:, 0] / camera[:, 2] * 711.11 + 4, u.ravel(), atol=1e-9)
    np.testing.assert_allclose(camera[:, 1] / camera[:, 2] * 711.11 + 3, v.ravel(), atol=1e-9)


def test_a_depth_of_zero_is_no_point():
    image, depth = scene(1)
    coded, (_, high) = code(depth)
    coded = np.where(coded < 20000, 0, coded).astype(np.uint16)
    assert (coded == 0).any()
    cleaned = candy_cleaning.clean_scan(coded, (0.0, high), pose_from_above(), image, keep_plane=True)
    assert np.isfinite(cleaned.points).all()
    assert not cleaned.points[coded == 0].any()


def blob(rng, center, count=60, spread=0.005):
    return np.array(center, float) + rng.normal(0, spread, (count, 3))


def test_one_cluster_without_noise_stays_whole(rng):
    points = blob(rng, (1, 1, 1))
    assert candy_cleaning.brightest_cluster(points, np.full(60, 7, np.uint8)).all()


def test_without_noise_the_first_cluster_can_win(rng):
    points = np.concatenate([blob(rng, (1, 1, 1)), blob(rng, (2, 2, 2))])
    brightness = np.repeat(np.array([200, 100], np.uint8), 60)
    np.testing.assert_array_equal(candy_cleaning.brightest_cluster(points, brightness), brightness == 200)


def test_of_equally_bright_clusters_the_first_stays(rng):
    points = np.concatenate([blob(rng, (2, 2, 2)), blob(rng, (1, 1, 1)), blob(rng, (3, 3, 3))])
    chosen = candy_cleaning.brightest_cluster(points, np.full(180, 255, np.uint8))
    np.testing.assert_array_equal(np.flatnonzero(chosen), np.arange(60))


def test_one_bright_pixel_decides_and_bright_noise_does_not(rng):
    points = np.concatenate([[[9.0, 9, 9]], blob(rng, (1, 1, 1)), blob(rng, (2, 2, 2))])
    brightness = np.full(121, 100, np.uint8)
    brightness[0] = 255
    brightness[100] = 101
    chosen = candy_cleaning.brightest_cluster(points, brightness)
    np.testing.assert_array_equal(np.flatnonzero(chosen), np.arange(61, 121))


def test_a_black_cluster_is_still_a_cluster(rng):
    assert candy_cleaning.brightest_cluster(blob(rng, (1, 1, 1)), np.zeros(60, np.uint8)).all()


@pytest.mark.parametrize("count", [0, 1, 29])
def test_too_few_points_make_no_cluster(rng, count):
    assert candy_cleaning.brightest_cluster(blob(rng, (1, 1, 1), count), np.zeros(count, np.uint8)) is None


def test_without_cluster_every_point_stays():
    depth = np.full((8, 8), 1.5)
    depth[2:5, 2:5] = 1.4
    coded, depth_range = code(depth)
    cleaned = candy_cleaning.clean_scan(coded, depth_range, pose_from_above(), np.zeros((8, 8, 3), np.uint8))
    assert not cleaned.clustered
    np.testing.assert_array_equal((cleaned.points != 0).all(-1), depth == 1.4)


def test_clusters_equal_sklearns(rng):
    points = np.concatenate([blob(rng, rng.normal(size=3) * 0.1, 80, 0.02) for _ in range(8)])
    labels, core = candy_cleaning.cluster(points)
    expected = DBSCAN(eps=0.03, min_samples=30).fit(points)
    np.testing.assert_array_equal(np.flatnonzero(core), expected.core_sample_indices_)
    np.testing.assert_array_equal(labels == -1, expected.labels_ == -1)
    pairs = set(zip(labels[core].tolist(), expected.labels_[core].tolist(), strict=True))
    assert len(pairs) == len(set(labels[core].tolist())) == len(set(expected.labels_[core].tolist()))


def test_a_scene_without_extent_keeps_its_points():
    y = np.full((3, 3), 0.5)
    assert candy_cleaning.above_plane(y, np.ones((3, 3), bool)).all()
