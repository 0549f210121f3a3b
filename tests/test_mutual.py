"""Mutual scoring against golden vectors, a plain float64 statement, and itself in other forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiled import m
from hypothesis import given, settings
from hypothesis import strategies as st

import musc_jax
from musc_jax.references import draw_references


def naive_pairs(features):
    """(N, R, M) by all distances in float64."""
    z = np.asarray(features, np.float64)
    return np.stack(
        [
            np.stack([np.linalg.norm(z[i][:, None] - z[j][None], axis=-1).min(1) for j in range(len(z)) if j != i])
            for i in range(len(z))
        ]
    )


def naive_mutual(features, interval):
    scores = np.sort(naive_pairs(features), axis=1)
    count = max(1, int(scores.shape[1] * interval))
    return scores[:, :count].mean(1)


def units(rng, *shape):
    z = rng.normal(size=shape)
    return (z / np.linalg.norm(z, axis=-1, keepdims=True)).astype(np.float32)


def test_golden(golden):
    z = golden("mutual")
    f = z["features"]

    def close(got, want):
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-4 * np.abs(want).max())

    close(m.pair_scores(f[0], f[1:]), z["pair_0"])
    for share in (10, 30, 100):
        close(m.mutual_scores(f, interval=share / 100), z[f"interval_{share}"])
    close(m.mutual_scores(f[:3]), z["three"])
    close(m.mutual_scores(f[:2]), z["two"])


@pytest.mark.parametrize("count", range(2, 9))
def test_every_number_of_samples(rng, count):
    features = units(rng, count, 11, 7)
    got = jax.jit(m.mutual_scores)(features)
    np.testing.assert_allclose(got, naive_mutual(features, 0.3), atol=1e-5)


def test_one_sample_is_refused(rng):
    with pytest.raises(ValueError, match="N = 1"):
        musc_jax.mutual_scores(units(rng, 1, 5, 3))
    with pytest.raises(ValueError, match="N = 1"):
        musc_jax.multimodal_scores(units(rng, 1, 5, 3), units(rng, 1, 4, 3), np.zeros((1, 4), int))


def test_accuracy_law(rng):
    """Unit features: 1e-5 at distances of at least 0.1, 2e-6 in the squared distance below."""
    base = units(rng, 1, 60, 64)
    for spread in (1.0, 0.1, 0.01, 0.001):
        features = base + spread * rng.normal(size=(5, 60, 64)).astype(np.float32) / 8
        features /= np.linalg.norm(features, axis=-1, keepdims=True)
        got, want = np.asarray(m.all_pair_scores(features), np.float64), naive_pairs(features)
        far = want >= 0.1
        assert np.abs(got - want)[far].max(initial=0) < 1e-5
        assert np.abs(got**2 - want**2)[~far].max(initial=0) < 2e-6


def test_common_offset_does_not_cost_digits(rng):
    features = units(rng, 4, 30, 16) + np.float32(20)
    np.testing.assert_allclose(m.all_pair_scores(features), naive_pairs(features), atol=2e-5)


def test_both_directions_and_single_queries_agree(rng):
    features = units(rng, 5, 9, 6)
    both = np.asarray(m.all_pair_scores(features))
    for i in range(5):
        others = np.delete(features, i, axis=0)
        np.testing.assert_allclose(m.pair_scores(features[i], others).T, both[i], atol=1e-6)


def test_samples_may_come_in_any_order(rng):
    features, order = units(rng, 6, 9, 6), rng.permutation(6)
    plain = np.asarray(m.mutual_scores(features, interval=0.5))
    np.testing.assert_allclose(m.mutual_scores(features[order], interval=0.5), plain[order], atol=1e-6)


def test_vmap_is_a_loop(rng):
    batch = units(rng, 3, 4, 9, 6)
    many = jax.vmap(m.mutual_scores)(batch)
    np.testing.assert_allclose(many, jnp.stack([m.mutual_scores(f) for f in batch]), atol=1e-6)


def test_float64_and_bfloat16(rng):
    features = units(rng, 4, 9, 6)
    with jax.enable_x64(True):
        exact = m.mutual_scores(features.astype(np.float64))
        assert exact.dtype == jnp.float64
        np.testing.assert_allclose(exact, naive_mutual(features, 0.3), atol=1e-13)
    half = jnp.asarray(features, jnp.bfloat16)
    got = m.mutual_scores(half)
    assert got.dtype == jnp.bfloat16
    want = naive_mutual(half.astype(jnp.float32), 0.3)
    np.testing.assert_allclose(got.astype(jnp.float32), want, rtol=2**-8)  # the rounding of the result alone


def test_gradients_against_central_differences(rng):
    features, weights = units(rng, 4, 7, 5), rng.normal(size=(4, 7))
    with jax.enable_x64(True):
        wide = jnp.asarray(features, jnp.float64)

        def loss(z):
            return (m.mutual_scores(z, interval=0.7) * weights).sum()

        gradient = jax.grad(loss)(wide)
        direction = rng.normal(size=features.shape)
        numeric = (loss(wide + 1e-6 * direction) - loss(wide - 1e-6 * direction)) / 2e-6
        assert (gradient * direction).sum() == pytest.approx(float(numeric), rel=1e-6)
        single = jax.grad(lambda z: (m.pair_scores(z[0], z[1:]) ** 2).sum())(wide)
    assert np.isfinite(single).all()
    float32 = jax.grad(lambda z: (m.mutual_scores(z, interval=0.7) * weights.astype(np.float32)).sum())(features)
    np.testing.assert_allclose(float32, gradient, atol=1e-4)


def test_gradients_at_equal_vectors_are_finite(rng):
    same = np.repeat(units(rng, 1, 7, 5), 4, axis=0)
    assert np.isfinite(jax.grad(lambda z: m.mutual_scores(z).sum())(same)).all()
    constant = np.ones((4, 7, 5), np.float32)
    np.testing.assert_array_equal(m.mutual_scores(constant), 0)
    assert np.isfinite(jax.grad(lambda z: m.mutual_scores(z).sum())(constant)).all()


def test_reverse_pass_does_not_keep_all_products(rng):
    """The gradient of 12 samples must not need 66 products of (M, M) at once."""
    features = jnp.asarray(units(rng, 12, 128, 8))
    compiled = jax.jit(jax.grad(lambda z: m.mutual_scores(z).sum())).lower(features).compile()
    product = 128 * 128 * 4
    assert compiled.memory_analysis().temp_size_in_bytes < 15 * product


def test_interval_by_hand():
    scores = np.array([[5.0, 1.0, 3.0, 2.0], [1.0, 1.0, 1.0, 9.0]], np.float32)
    np.testing.assert_allclose(m.interval_average(scores, interval=0.5), [1.5, 1.0])
    np.testing.assert_allclose(m.interval_average(scores, interval=1.0), [2.75, 3.0])
    np.testing.assert_allclose(m.interval_average(scores, interval=0.01), [1.0, 1.0])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=40),
    st.floats(0.01, 1.0),
)
def test_interval_is_the_mean_of_a_sort(values, interval):
    got = m.interval_average(np.array(values, np.float32), interval=interval)
    count = max(1, int(len(values) * interval))
    want = np.sort(np.array(values, np.float64))[:count].mean()
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5 * np.abs(values).max() + 1e-30)


def test_interval_gradient_is_shared_by_ties():
    gradient = jax.grad(lambda s: m.interval_average(s, interval=0.5))(np.array([1.0, 2.0, 2.0, 3.0], np.float32))
    np.testing.assert_allclose(gradient, [0.5, 0.25, 0.25, 0.0])


def test_a_broken_sample_is_no_perfect_match(rng):
    features = units(rng, 4, 7, 5)
    features[2, 3] = np.nan
    scores = np.asarray(m.mutual_scores(features, interval=0.3))
    assert np.isnan(scores[2]).all()


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda f: musc_jax.mutual_scores(f[:, :0]), "at least one token"),
        (lambda f: musc_jax.mutual_scores(f[:, :0], references=1), "at least one token"),
        (lambda f: musc_jax.mutual_scores(f, interval=0.0), "interval"),
        (lambda f: musc_jax.mutual_scores(f, interval=1.1), "interval"),
        (lambda f: musc_jax.mutual_scores(f[0]), "features: expected shape"),
        (lambda f: musc_jax.pair_scores(f[0], f[:, :, :2]), "references: expected shape"),
        (lambda f: musc_jax.pair_scores(f[0], f[:0]), "at least one sample"),
        (lambda f: musc_jax.interval_average(np.zeros((3, 0), np.float32)), "at least one reference"),
        (lambda f: musc_jax.interval_average(np.zeros(3, np.int32)), "floating point"),
    ],
)
def test_bad_arguments_are_named(rng, call, message):
    with pytest.raises(ValueError, match=message):
        call(units(rng, 3, 4, 5))


@pytest.mark.parametrize("references", [1, 3, 7, 8, 20])
def test_few_references_by_hand(rng, references):
    features = units(rng, 9, 11, 7)
    pairs = naive_pairs(features)
    drawn = draw_references(9, references, seed=5)
    want = []
    for i in range(9):
        others = [j for j in range(9) if j != i]
        rows = pairs[i][[others.index(j) for j in drawn.samples[drawn.columns[i]]]]
        want.append(np.sort(rows, axis=0)[: max(1, int(len(rows) * 0.3))].mean(0))
    np.testing.assert_allclose(m.mutual_scores(features, references=references, seed=5), want, atol=1e-5)


@pytest.mark.parametrize(("precision", "bound"), [("accurate", 1e-6), ("fast", 2e-3)])
@pytest.mark.parametrize("scale", [1e-4, 1.0, 3e5])
def test_precisions(rng, precision, bound, scale):
    """bfloat16 keeps 8 bits of unit vectors that were centred: 0.1 % of the median distance (PERF a.6)."""
    features = scale * units(rng, 6, 40, 64)
    full = np.asarray(m.mutual_scores(features))
    got = np.asarray(m.mutual_scores(features, precision=precision))
    assert np.abs(got - full).max() <= bound * np.median(full)
    assert np.any(got != full) or precision == "accurate"
    references = np.asarray(m.mutual_scores(features, precision=precision, references=5))
    np.testing.assert_allclose(references, got, rtol=1e-6 if precision == "accurate" else 2 * bound)


def test_fast_distances_are_those_of_the_rounded_tokens(rng):
    """Near copies: the distance of the rounded tokens can be off, but never below 0 and never without bound."""
    one = units(rng, 1, 30, 16)
    features = np.concatenate([one, one + 1e-4 * units(rng, 1, 30, 16), one])
    got = np.asarray(m.mutual_scores(features, precision="fast", interval=1.0))
    assert (got >= 0).all()
    assert got.max() < 2 * 16**0.5 * 2**-8


def test_an_unknown_precision_is_refused(rng):
    with pytest.raises(ValueError, match="precision: expected one of full, accurate, fast"):
        musc_jax.mutual_scores(units(rng, 3, 4, 4), precision="half")
