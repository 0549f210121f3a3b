"""Defects that recur: jumps and links against plain float64, and what filtering them gives back."""

import itertools
import re

import jax
import numpy as np
import pytest
from test_similarity import by_hand

import musc_jax
from musc_jax.execution.memory import BudgetError
from musc_jax.metrics import pixel_metrics
from musc_jax.recurring import (
    FEWEST_REFERENCES,
    LEAST_RATIO,
    LEAST_SHARE,
    MOST_OF_A_SAMPLE,
    STEEPNESS,
    Marks,
    communities,
    find_jumps,
    find_links,
)

COUNT, TOKENS, CHANNELS, STAGES = 30, 36, 12, 2
_found = jax.jit(find_jumps)


def parts(rng, share=0.0, *, same=True, tokens=4, whole=False):
    """(stages, defective tokens): samples of one product, some of them with a defect, each its own or all the same."""
    who = rng.permutation(COUNT)[: round(share * COUNT)]
    mask = np.zeros((COUNT, TOKENS), bool)
    stages = []
    at = [np.arange(TOKENS) if whole else rng.permutation(TOKENS)[:tokens] for _ in who]
    for i, places in zip(who, at, strict=True):
        mask[i, places] = True
    for _ in range(STAGES):
        base = rng.normal(size=(TOKENS, CHANNELS))
        z = base[None] + 0.25 * rng.normal(size=(COUNT, TOKENS, CHANNELS))
        kinds = base + 1.2 * rng.normal(size=(TOKENS, CHANNELS)) if whole else rng.normal(size=(tokens, CHANNELS))
        for i, places in zip(who, at, strict=True):
            own = kinds if same else rng.normal(size=(tokens, CHANNELS))
            z[i, places] = own + 0.1 * rng.normal(size=own.shape)
        stages.append(z.astype(np.float32))
    return stages, mask


def naive_jumps(scores):
    """(radius, count) of each column, step by step."""
    count, tokens = scores.shape
    steps = count // 2
    lowest = np.sort(np.asarray(scores, np.float64), axis=0)[: steps + 1]
    lowest = np.maximum(lowest, 0.01 * np.median(lowest))
    growth = np.array([[np.log(lowest[c] / lowest[c - 1]) for c in range(1, steps + 1)] for _ in (0,)])[0]
    weighed = np.array([(c + 1) * growth[c] for c in range(steps)])
    unit = np.median(weighed) / np.log(2)
    radius, number = np.zeros(tokens), np.zeros(tokens)
    for m, c in itertools.product(range(tokens), range(steps)):
        steep = weighed[c, m] / unit
        usable = c + 1 >= max(2, LEAST_SHARE * count) and steep > STEEPNESS and growth[c, m] > np.log(LEAST_RATIO)
        best = weighed[int(number[m]) - 1, m] / unit if number[m] else 0
        if usable and steep > best:
            radius[m], number[m] = np.sqrt(lowest[c, m] * lowest[c + 1, m]), c + 1
    return radius, number


def distances(tokens, others):
    return np.linalg.norm(np.asarray(tokens, np.float64)[:, None] - np.asarray(others, np.float64)[None], axis=-1)


def naive_flags(stage):
    """Of one stage: (token of a sample, samples that have it) wherever half of those before the jump agree."""
    jumps = []
    for i, own in enumerate(stage):
        by = np.stack([distances(own, z).min(1) for j, z in enumerate(stage) if j != i])
        jumps.append(naive_jumps(by))
    marked = {(i, m): jumps[i][0][m] for i in range(len(stage)) for m in np.flatnonzero(jumps[i][0])}
    links = {}
    for (i, m), radius in marked.items():
        near = {j for j, n in marked if j != i and np.linalg.norm(stage[i, m] - stage[j, n]) <= radius}
        if 2 * len(near) >= jumps[i][1][m]:
            links[i, m] = near
    for i in range(len(stage)):
        own = [key for key in links if key[0] == i]
        if len(own) > MOST_OF_A_SAMPLE * stage.shape[1]:
            for key in own:
                del links[key]
    return links


def score(stages, recurring, **options):
    return musc_jax.score_features(
        stages, aggregated=True, size=24, recurring=recurring, ablate=["rescoring"], **options
    )


def precision(scores, mask):
    side = round(TOKENS**0.5)
    return pixel_metrics(mask.reshape(-1, side, side), np.asarray(scores.patch_scores.image).reshape(-1, side, side))[
        "AP"
    ]


def test_a_jump_is_where_scores_jump(rng):
    scores = np.sort(1 + 0.2 * rng.random((20, 9)), axis=0)
    scores[:3, 4] = 0.1
    scores = rng.permuted(scores, axis=0).astype(np.float32)
    radius, count = _found(scores)
    want = naive_jumps(scores)
    np.testing.assert_allclose(radius, want[0], rtol=1e-5)
    np.testing.assert_array_equal(count, want[1])
    assert count[4] == 3
    assert 0.1 < radius[4] < 1
    assert not np.delete(np.asarray(count), 4).any()


def test_no_jump_in_what_grows_smoothly_is_equal_or_is_little(rng):
    """Neighbours in a cloud of tokens, copies, and fewer samples than say anything."""
    smooth = distances(rng.normal(size=(50, 6)), rng.normal(size=(40, 6))).T.astype(np.float32)
    assert np.count_nonzero(_found(smooth)[1]) <= 1
    assert not _found(np.zeros((20, 5), np.float32))[1].any()
    few = np.ones((FEWEST_REFERENCES - 1, 3), np.float32)
    few[0] = 0.01
    assert not _found(few)[1].any()
    # Of samples without a token that counts, distances are infinite.
    far = np.concatenate([smooth[:30], np.full((20, 50), np.inf, np.float32)])
    assert np.isfinite(_found(far)[0]).all()


def test_tokens_that_are_not_scored_have_no_say(rng):
    scores = np.sort(1 + 0.2 * rng.random((20, 9)), axis=0).astype(np.float32)
    scores[:3, 4] = 0.1
    valid = np.ones(12, bool)
    valid[9:] = False
    spoilt = np.concatenate([scores, np.full((20, 3), np.nan, np.float32)], axis=1)
    for got, want in zip(_found(spoilt, valid), _found(scores), strict=True):
        np.testing.assert_allclose(got[:9], want, rtol=1e-6)


def test_filtering_equals_the_statement(rng):
    """Every step in loops over float64: jumps, links, communities, and scores without what recurs."""
    stages, _ = parts(rng, 0.2)
    got = score(stages, "filter")
    links = [naive_flags(stage) for stage in stages]
    pairs = np.array([(i, j) for own in links for (i, _), near in own.items() for j in near])
    groups = communities(pairs, COUNT)
    names = [sample.name for sample in got.samples]
    assert [set(group) for group in got.recurring] == [{names[i] for i in group} for group in groups]
    want = []
    for stage, own in zip(stages, links, strict=True):
        member = {int(i): at for at, group in enumerate(groups) for i in group}
        counts = np.ones((COUNT, TOKENS), bool)
        for (i, m), near in own.items():
            inside = [j for j in near if i in member and member.get(j) == member[i]]
            if inside and 2 * len(inside) >= len(near):
                counts[i, m] = False
        scores = []
        for i in range(COUNT):
            by = np.stack([distances(stage[i], stage[j][counts[j]]).min(1) for j in range(COUNT) if j != i])
            scores.append(np.sort(by, axis=0)[: int(0.3 * (COUNT - 1))].mean(0))
        want.append(np.stack(scores))
    np.testing.assert_allclose(got.patch_scores.image, np.mean(want, axis=0), atol=1e-5)


@pytest.mark.parametrize("share", [0.1, 0.2, 0.4])
def test_most_of_what_recurrence_costs_comes_back(share):
    """At 40 % the interval average sees nothing but the defect's own kind."""
    own, same = (parts(np.random.default_rng(1), share, same=same) for same in (False, True))
    best, worst = (precision(score(stages, "off"), mask) for stages, mask in (own, same))
    got = score(same[0], "filter")
    lost = best - worst
    assert lost > 0.1 or share == 0.1
    assert precision(got, same[1]) - worst >= 0.8 * lost
    names = {got.samples[i].name for i in np.flatnonzero(same[1].any(axis=1))}
    assert [set(group) for group in got.recurring] == [names]


@pytest.mark.parametrize("share", [0.0, 0.2])
def test_where_nothing_recurs_nothing_changes(share):
    stages, mask = parts(np.random.default_rng(2), share, same=False)
    plain, found = score(stages, "off"), score(stages, "filter")
    assert found.recurring == ()
    np.testing.assert_array_equal(found.patch_scores.image, plain.patch_scores.image)
    del mask


def test_a_report_changes_no_score(rng):
    stages, _ = parts(rng, 0.2)
    plain, found = score(stages, "off"), score(stages, "report")
    np.testing.assert_array_equal(found.anomaly_maps, plain.anomaly_maps)
    np.testing.assert_array_equal(found.pred_scores, plain.pred_scores)
    assert len(found.recurring) == 1
    assert plain.recurring == ()


def test_another_kind_of_part_is_no_defect_a_detail_of_it_may_be(rng):
    """The limit: what a fifth of the samples have looks like a defect where it is small, whatever it is."""
    stages, _ = parts(rng, 0.2, whole=True)
    assert score(stages, "filter").recurring == ()
    stages, mask = parts(rng, 0.2, tokens=6)
    found = score(stages, "filter")
    assert (
        np.asarray(found.patch_scores.image)[mask].min()
        > np.asarray(score(stages, "off").patch_scores.image)[mask].max()
    )


def test_the_order_of_samples_does_not_matter(rng):
    stages, _ = parts(rng, 0.2)
    order = rng.permutation(COUNT)
    names = [f"s{i}" for i in range(COUNT)]
    want = score(stages, "filter", names=names)
    got = score([stage[order] for stage in stages], "filter", names=[names[i] for i in order])
    np.testing.assert_allclose(got.patch_scores.image, np.asarray(want.patch_scores.image)[order], atol=1e-5)
    assert set(map(frozenset, got.recurring)) == set(map(frozenset, want.recurring))


def test_features_on_disk_recur_alike(rng, tmp_path):
    stages, _ = parts(rng, 0.2)
    want, seen = score(stages, "filter"), []
    with pytest.raises(BudgetError) as refused:
        score(stages, "filter", memory_bytes=1)
    least = float(re.search(r"--memory_gb to ([\d.]+)", str(refused.value))[1])
    got = score(
        stages,
        "filter",
        memory_bytes=int(least * 1e9),
        scratch_dir=tmp_path,
        progress=lambda *_: seen.append(any(tmp_path.iterdir())),
    )
    assert any(seen)
    assert got.recurring == want.recurring != ()
    np.testing.assert_allclose(got.patch_scores.image, want.patch_scores.image, atol=1e-5)


def test_it_goes_with_similar_references(rng):
    stages, mask = parts(rng, 0.2)
    off, found = (score(stages, how, nearest_images=20) for how in ("off", "filter"))
    assert precision(found, mask) > precision(off, mask)


@pytest.mark.parametrize("count", range(2, 9))
def test_few_samples_are_scored_as_without(rng, count):
    stages = [stage[:count] for stage in parts(rng)[0]]
    found = score(stages, "filter")
    want = np.mean([by_hand(z, [[j for j in range(count) if j != i] for i in range(count)]) for z in stages], axis=0)
    np.testing.assert_allclose(found.patch_scores.image, want, atol=1e-5)


def test_a_jump_that_nobody_confirms_is_none(rng):
    marks = Marks(np.array([0, 1, 2]), np.array([5, 5, 5]), np.eye(3), np.array([0.1, 2.0, 2.0]), np.array([2, 2, 4]))
    links = find_links(marks, 16)
    np.testing.assert_array_equal(links.kept, [False, True, True])
    assert set(zip(links.mark.tolist(), links.other.tolist(), strict=True)) == {(1, 0), (1, 2), (2, 0), (2, 1)}
    nothing = Marks(*(np.zeros(0, np.int64) for _ in range(2)), np.zeros((0, 3)), np.zeros(0), np.zeros(0, np.int64))
    assert not len(find_links(nothing, 16).kept)


def test_communities_are_linked_both_ways_and_more_than_once():
    twice = [(0, 3), (3, 0), (3, 5), (5, 3), (7, 8), (8, 7)] * 2
    pairs = np.array([*twice, (3, 5), (1, 2), (2, 1), (1, 0), (1, 0)])
    assert [group.tolist() for group in communities(pairs, 9)] == [[0, 3, 5], [7, 8]]
    # More than half of all are no community.
    assert [group.tolist() for group in communities(pairs[pairs.max(1) < 6], 5 + 1)] == [[0, 3, 5]]
    shared = np.array([(i, j) for i in range(4) for j in range(4) if i != j] * 2)
    assert communities(shared, 7) == []
    assert len(communities(shared, 8)) == 1
    assert communities(np.zeros((0, 2), np.int64), 4) == []
