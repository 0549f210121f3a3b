"""RsCon against golden vectors and a plain float64 statement."""

import jax
import numpy as np
import pytest
from compiled import m

import musc_jax


def naive(scores, features, windows, variant="released"):
    scores, features = scores.astype(np.float64), features.astype(np.float64)
    span = np.ptp(scores)
    scaled = (scores - scores.min()) / (span or 1)
    similarity, out = features @ features.T, []
    for k in windows:
        new = scaled.copy()
        for i in range(len(scores)):
            if k == 1 and variant == "paper":
                continue
            kept = np.argsort(-similarity[i], kind="stable")[:k]
            norm = similarity[i, kept].sum()
            if norm > 0:
                new[i] = (similarity[i, kept] * scaled[kept]).sum() / norm
        out.append(new)
    return np.mean(out, axis=0)


def test_golden(golden):
    z = golden("rescore")
    for name, options in (("windows_1_7", {}), ("windows_1_2_3", {"windows": (1, 2, 3)})):
        got = jax.jit(lambda s, f, o=options: m.rescore(s, f, **o))(z["scores"], z["features"])
        np.testing.assert_allclose(got, z[name], rtol=0, atol=1e-4)


@pytest.mark.parametrize("count", range(2, 9))
@pytest.mark.parametrize("variant", ["released", "paper"])
def test_every_number_of_samples(rng, count, variant):
    scores = rng.normal(size=count).astype(np.float32)
    features = rng.uniform(size=(count, 6)).astype(np.float32)
    got = m.rescore(scores, features, variant=variant)
    np.testing.assert_allclose(got, naive(scores, features, (1, 7), variant), atol=1e-5)


def test_one_sample_is_refused():
    with pytest.raises(ValueError, match="N = 1"):
        musc_jax.rescore(np.ones(1, np.float32), np.ones((1, 3), np.float32))


def test_own_similarity_competes_and_may_lose():
    scores = np.array([0.0, 1.0, 0.5], np.float32)
    features = np.array([[1, 0], [5, 0], [0, 1]], np.float32)  # the first is more like the second than like itself
    np.testing.assert_allclose(m.rescore(scores, features, windows=(1,)), [1.0, 1.0, 0.5])
    np.testing.assert_allclose(m.rescore(scores, features, windows=(1,), variant="paper"), scores)


def test_degenerate_inputs_stay_defined(rng):
    features = rng.normal(size=(5, 3)).astype(np.float32)
    equal = np.asarray(m.rescore(np.full(5, 0.7, np.float32), features))
    assert np.isfinite(equal).all()
    assert np.ptp(equal) == 0
    scores = np.array([0, 0.25, 1], np.float32)
    np.testing.assert_allclose(m.rescore(scores, np.zeros((3, 4), np.float32)), scores)
    opposed = np.array([[1.0], [-1.0], [-2.0]], np.float32)  # window 3: the first row sums to 1 - 1 - 2 < 0
    assert m.rescore(scores, opposed, windows=(3,))[0] == scores[0]


def test_permutation_and_gradient(rng):
    scores, features = rng.normal(size=9).astype(np.float32), rng.normal(size=(9, 6)).astype(np.float32)
    order = rng.permutation(9)
    plain = np.asarray(m.rescore(scores, features))
    np.testing.assert_allclose(m.rescore(scores[order], features[order]), plain[order], atol=1e-6)
    for s in (scores, np.ones(9, np.float32)):
        gradients = jax.grad(lambda a, b: m.rescore(a, b).sum(), argnums=(0, 1))(s, features)
        assert all(np.isfinite(g).all() for g in gradients)


@pytest.mark.usefixtures("unchecked")
def test_bad_arguments_are_named(rng):
    scores, features = np.ones(4, np.float32), np.ones((4, 2), np.float32)
    with pytest.raises(ValueError, match="windows"):
        musc_jax.rescore(scores, features, windows=(0,))
    with pytest.raises(ValueError, match="features: expected shape"):
        musc_jax.rescore(scores, features[:3])
    with pytest.raises(ValueError, match="variant"):
        musc_jax.rescore(scores, features, variant="v1")
