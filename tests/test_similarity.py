"""Similar samples as references: against distances in float64, and what does not depend on the samples' order."""

import functools

import jax
import numpy as np
import pytest
from compiled import m
from test_mutual import naive_pairs, units

import musc_jax
from musc_jax.references import draw_references, listed_pairs, listed_references


def lookalikes(rng, count=9, tokens=11, channels=7, kinds=3):
    """Unit tokens of samples of a few kinds; the kinds lie further apart than a kind's samples."""
    kind = rng.permutation(np.arange(count) % kinds)
    return (units(rng, count, tokens, channels) + 2 * units(rng, kinds, 1, channels)[kind]).astype(np.float32), kind


def naive_nearest(stages, count):
    parts = []
    for stage in stages:
        mean = np.asarray(stage, np.float64).mean(1)
        mean -= mean.mean(0)
        parts.append(mean / np.sqrt((mean**2).sum(1).mean()))
    summary = np.concatenate(parts, axis=1)
    apart = ((summary[:, None] - summary[None]) ** 2).sum(-1)
    np.fill_diagonal(apart, np.inf)
    return np.sort(np.argsort(apart, axis=1, kind="stable")[:, :count], axis=1)


@functools.partial(jax.jit, static_argnums=1)
def _nearest(stages, count):
    means = [musc_jax.mean_tokens(stage) for stage in stages]
    return musc_jax.nearest_samples(musc_jax.sample_summaries(means), count)


def nearest(stages, count):
    return np.asarray(_nearest(stages, count))


def by_hand(features, lists, interval=0.3):
    pairs = naive_pairs(features)
    scores = []
    for i, own in enumerate(lists):
        rows = pairs[i][[j - (j > i) for j in own]]
        scores.append(np.sort(rows, axis=0)[: max(1, int(len(rows) * interval))].mean(0))
    return np.stack(scores)


@pytest.mark.parametrize("count", [1, 3, 8, 40])
def test_the_nearest_are_those_of_float64(rng, count):
    stages = [lookalikes(rng)[0], 100 * lookalikes(rng, tokens=5, channels=4)[0]]
    np.testing.assert_array_equal(nearest(stages, count), naive_nearest(stages, min(count, 8)))


def test_like_is_scored_by_like(rng):
    features, kind = lookalikes(rng, count=12)
    assert (kind[nearest([features], 3)] == kind[:, None]).all()


def test_no_stage_outvotes_the_others_by_its_scale(rng):
    stages = [lookalikes(rng)[0], lookalikes(rng)[0]]
    np.testing.assert_array_equal(nearest([stages[0], 1e3 * stages[1]], 3), nearest(stages, 3))


def test_tokens_that_do_not_count_may_hold_anything(rng):
    features, _ = lookalikes(rng)
    valid = rng.random(features.shape[:2]) < 0.6
    valid[0] = False
    want = [own[mask].mean(0) if mask.any() else np.zeros(7) for own, mask in zip(features, valid, strict=True)]
    got = m.mean_tokens(np.where(valid[..., None], features, np.nan), valid=valid)
    np.testing.assert_allclose(got, want, atol=1e-6)


@pytest.mark.parametrize("count", range(2, 9))
def test_every_number_of_samples(rng, count):
    features, _ = lookalikes(rng, count)
    for wanted in (1, 3, 20):
        lists = nearest([features], wanted)
        assert lists.shape == (count, min(wanted, count - 1))
        np.testing.assert_allclose(m.mutual_scores(features, references=lists), by_hand(features, lists), atol=1e-5)
    # All others in a list is the same as no list, to the last bit.
    np.testing.assert_array_equal(m.mutual_scores(features, references=lists), m.mutual_scores(features))


def test_copies_of_one_sample(rng):
    """No spread at all: somebody is the nearest, and nothing is divided by 0."""
    features = np.repeat(units(rng, 1, 5, 4), 4, axis=0)
    lists = nearest([features], 2)
    assert ((lists != np.arange(4)[:, None]) & (lists >= 0)).all()
    np.testing.assert_allclose(m.mutual_scores(features, references=lists), 0, atol=1e-3)


def test_the_order_of_samples_does_not_matter(rng):
    features, _ = lookalikes(rng)
    order = rng.permutation(len(features))
    want = m.mutual_scores(features, references=nearest([features], 3))
    got = m.mutual_scores(features[order], references=nearest([features[order]], 3))
    np.testing.assert_allclose(got, np.asarray(want)[order], atol=1e-6)


def test_the_whole_of_it_is_one_function(rng):
    """Jitted and mapped over batches, lists and all, of one modality and of two."""
    batches = np.stack([lookalikes(rng)[0] for _ in range(2)])
    points = np.stack([lookalikes(rng, tokens=6, channels=5)[0] for _ in range(2)])
    patch = rng.integers(0, 11, (2, 9, 6))

    def lists(*stages):
        return musc_jax.nearest_samples(musc_jax.sample_summaries([musc_jax.mean_tokens(z) for z in stages]), 3)

    one = jax.jit(jax.vmap(lambda z: musc_jax.mutual_scores(z, references=lists(z))))(batches)
    both = jax.jit(jax.vmap(lambda z, p, at: musc_jax.multimodal_scores(z, p, at, references=lists(z, p))))
    got = both(batches, points, patch)
    for i, (z, p) in enumerate(zip(batches, points, strict=True)):
        np.testing.assert_allclose(one[i], by_hand(z, naive_nearest([z], 3)), atol=1e-5)
        want = m.multimodal_scores(z, p, patch[i], references=naive_nearest([z, p], 3).astype(np.int32))
        for a, b in zip(got, want, strict=True):
            np.testing.assert_allclose(a[i], b, atol=1e-5)


def test_pairs_of_lists_meet_once():
    columns = np.array([[1, 2], [0, 2], [1, 3], [0, 2]], np.int32)
    met = listed_pairs(columns)
    pairs = list(zip(met.first.tolist(), met.second.tolist(), strict=True))
    assert pairs == [(0, 1), (0, 2), (0, 3), (1, 2), (2, 3)]
    for i, own in enumerate(columns):
        for r, j in enumerate(own):
            assert pairs[met.rows[i, r]] == (min(i, j), max(i, j))
            assert met.back[i, r] == (i > j)


def test_lists_of_all_others_are_no_lists():
    everyone = listed_references(np.array([[2, 1], [0, 2], [1, 0]]))
    assert everyone.everyone
    assert not everyone.listed
    np.testing.assert_array_equal(everyone.columns, draw_references(3).columns)
    assert not draw_references(9, 3).listed
    assert not draw_references(9, 3, groups=[0, 0, 1, 2, 3, 4, 5, 6, 7]).listed


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("lists", "message"),
    [
        (np.zeros((3, 0), int), "lists of 1 to 2 of 3 samples, received 0"),
        (np.zeros((3, 3), int), "lists of 1 to 2 of 3 samples, received 3"),
        (np.zeros((4, 1), int), r"expected shape \(3, any\)"),
        (np.ones((3, 1)), "expected integers, received float"),
        (np.array([[1], [0], [3]]), "indices from 0 to 2, received 3"),
        (np.array([[1], [1], [0]]), "a sample in its own list"),
        (np.array([[1, 1], [0, 2], [0, 1]]), "or twice"),
    ],
)
def test_bad_lists_are_named(rng, lists, message):
    with pytest.raises(ValueError, match=f"^references: .*{message}"):
        musc_jax.mutual_scores(units(rng, 3, 4, 5), references=lists)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda z: musc_jax.nearest_samples(z[:, 0], 0), "count: expected .*; received 0"),
        (lambda z: musc_jax.nearest_samples(z[:1, 0], 2), "N = 1"),
        (lambda z: musc_jax.nearest_samples(z, 2), "summaries: expected shape"),
        (lambda _: musc_jax.sample_summaries([]), "means: expected those of at least one stage"),
        (lambda z: musc_jax.sample_summaries([z[:, 0], z[:2, 0]]), r"means\[1\]: expected shape"),
        (lambda z: musc_jax.mean_tokens(z, valid=np.ones((3, 5), bool)), "valid: expected shape"),
    ],
)
def test_bad_arguments_are_named(rng, call, message):
    with pytest.raises(ValueError, match=message):
        call(units(rng, 3, 4, 5))
