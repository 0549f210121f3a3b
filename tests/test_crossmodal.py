"""Cross-modal enhancement against golden vectors and plain float64 statements."""

import jax
import numpy as np
import pytest
from compiled import m

import musc_jax


def naive_match(source, target):
    flat = np.argsort(np.argsort(target.reshape(-1), kind="stable"), kind="stable")
    return np.sort(source.reshape(-1))[flat].reshape(target.shape)


def naive_align(two, three, patch):
    to_2d = np.zeros_like(two)
    for p in range(len(two)):
        if (patch == p).any():
            to_2d[p] = three[patch == p].mean(0)
    return to_2d, two[patch]


def naive_released(own, other, rows):
    std = (lambda d: d.std(1, ddof=1)) if own.shape[1] > 1 else lambda d: np.zeros(len(d))
    trust = 1 - naive_match(std(own), std(other))
    matched = other.copy()
    matched[rows] = naive_match(own[rows], other[rows])
    matched = np.maximum(matched, own) * trust[:, None]
    return (own + naive_match(own, matched)) / 2


def naive_paper(own, other, rows):
    out = np.zeros_like(own)
    for i in range(len(own)):
        x, trust = np.zeros_like(own[i]), 1.0
        if rows[i]:
            span = np.ptp(other[i])
            x = (other[i] - other[i].min()) / (span or 1) * np.ptp(own[i]) + own[i].min()
            trust = 1 - x.std()
        out[i] = own[i] + trust * np.maximum(x, own[i])
    return out


def scores(rng, references=6):
    two, three = rng.uniform(0.1, 1, (25, references)), rng.uniform(0.1, 1, (40, references))
    return two, three, rng.integers(0, 12, 40)


def test_golden(golden):
    z = golden("cross_modal")
    args = z["scores_2d"], z["scores_3d"], z["patch_of_group"]
    for k, tag in enumerate(("2d", "3d")):
        np.testing.assert_allclose(m.align_modalities(*args)[k], z[f"aligned_{tag}"], atol=2e-5)
        for variant in ("released", "paper"):
            want = z[f"{variant}_{tag}"]
            got = jax.jit(lambda *a, v=variant: m.cross_modal_enhancement(*a, variant=v))(*args)[k]
            np.testing.assert_allclose(got, want, rtol=0, atol=1e-4 * want.max())


@pytest.mark.parametrize("variant", ["released", "paper"])
@pytest.mark.parametrize(("count", "prefix"), [(9, ""), (2, "2_"), (3, "3_")])
def test_multimodal_golden(golden_values, request, variant, count, prefix):
    if count == 9:
        request.getfixturevalue("optimized")  # those of few samples only in the full run
    z = golden_values("multimodal")
    got = m.multimodal_scores(
        *(z[name][:count] for name in ("features_2d", "features_3d", "patch_of_group")), variant=variant
    )
    for k, tag in enumerate(("2d", "3d")):
        want = z[f"{variant}_{prefix}{tag}"]
        # 2e-3: a rounding swaps ranks, and the swapped values differ by as much
        np.testing.assert_allclose(got[k], want, rtol=0, atol=2e-3 * want.max())


@pytest.mark.parametrize("references", [1, 2, 7])
@pytest.mark.parametrize("variant", ["released", "paper"])
def test_agrees_with_loops(rng, references, variant):
    two, three, patch = scores(rng, references)
    naive = naive_released if variant == "released" else naive_paper
    to_2d, to_3d = naive_align(two, three, patch)
    want = naive(two, to_2d, (to_2d != 0).any(1)), naive(three, to_3d, np.ones(40, bool))
    with jax.enable_x64(True):
        got = m.cross_modal_enhancement(two, three, patch, variant=variant)
    for k in range(2):
        np.testing.assert_allclose(got[k], want[k], atol=1e-12)


def test_trust_off_is_trust_one(rng):
    two, three, patch = (x.astype(np.float32) if x.dtype == float else x for x in scores(rng, 1))
    # With one reference every standard deviation is 0, so the trust is 1 anyway.
    for variant in ("released", "paper"):
        plain = m.cross_modal_enhancement(two, three, patch, variant=variant)
        off = m.cross_modal_enhancement(two, three, patch, variant=variant, trust=False)
        np.testing.assert_allclose(plain[0], off[0], atol=1e-6)


def test_without_enhancement_the_modalities_stay_apart(rng):
    two, three = rng.normal(size=(4, 9, 5)).astype(np.float32), rng.normal(size=(4, 6, 3)).astype(np.float32)
    got = m.multimodal_scores(two, three, rng.integers(0, 9, (4, 6)), enhancement=False)
    np.testing.assert_allclose(got[0], m.mutual_scores(two), atol=1e-6)
    np.testing.assert_allclose(got[1], m.mutual_scores(three), atol=1e-6)


def test_a_copied_sample_is_no_missing_row(rng):
    """Exact copies give rows of zeros in the point scores; groups still take part."""
    two, three, patch = scores(rng, 3)
    three[:] = 0
    got = m.cross_modal_enhancement(*(x.astype(np.float32) for x in (two, three)), patch)
    assert all(np.isfinite(x).all() for x in got)
    np.testing.assert_array_equal(got[1], 0)


@pytest.mark.parametrize("variant", ["released", "paper"])
def test_gradients_are_finite_even_at_equal_vectors(rng, variant):
    patch = rng.integers(0, 9, (3, 6))
    three = rng.normal(size=(3, 6, 3)).astype(np.float32)
    for two in (rng.normal(size=(3, 9, 5)), np.ones((3, 9, 5))):

        def loss(z):
            a, b = m.multimodal_scores(z, three, patch, variant=variant)
            return a.sum() + b.sum()

        assert np.isfinite(jax.grad(loss)(two.astype(np.float32))).all()


def test_vmap_is_a_loop(rng):
    batch = [scores(np.random.default_rng(i), 4) for i in range(3)]
    two, three, patch = (np.stack(x) for x in zip(*batch))
    two, three = two.astype(np.float32), three.astype(np.float32)
    many = jax.vmap(m.cross_modal_enhancement)(two, three, patch)
    for i in range(3):
        one = m.cross_modal_enhancement(two[i], three[i], patch[i])
        np.testing.assert_allclose(many[0][i], one[0], atol=1e-6)
        np.testing.assert_allclose(many[1][i], one[1], atol=1e-6)


def test_rank_match_ranks_ties_by_position(rng):
    source, target = rng.normal(size=50).astype(np.float32), rng.integers(0, 5, 50).astype(np.float32)
    np.testing.assert_array_equal(m.rank_match(source, target), naive_match(source, target))
    grid = m.rank_match(source.reshape(5, 10), target.reshape(5, 10))
    np.testing.assert_array_equal(grid, naive_match(source, target).reshape(5, 10))


def test_patch_index_by_hand():
    pixels = np.array([0, 7, 8, 224 * 8, 224 * 224 - 1])
    np.testing.assert_array_equal(m.patch_index(pixels, size=224, grid=28), [0, 0, 1, 28, 783])


@pytest.mark.usefixtures("unchecked")
def test_bad_arguments_are_named(rng):
    two, three, patch = (x.astype(np.float32) if x.dtype == float else x for x in scores(rng))
    with pytest.raises(ValueError, match="multiple of the grid"):
        musc_jax.patch_index(patch, size=224, grid=27)
    with pytest.raises(ValueError, match="equal sizes"):
        musc_jax.rank_match(two, three)
    with pytest.raises(ValueError, match="scores_3d: expected shape"):
        musc_jax.align_modalities(two, three[:, :2], patch)
    with pytest.raises(ValueError, match="variant"):
        musc_jax.cross_modal_enhancement(two, three, patch, variant="v1")
