"""Samples that do not vouch: they are scored by the others, and score nobody."""

import dataclasses

import numpy as np
import pytest
from scenes import make_samples

from musc_jax import Config, pipeline
from musc_jax.config import ScoringConfig
from musc_jax.data.sample import SampleTokens
from musc_jax.decisions import decide_by_verdicts
from musc_jax.execution.extraction import extract
from musc_jax.execution.memory import Plan
from musc_jax.execution.programs import Programs
from musc_jax.execution.scoring import plan_for
from musc_jax.models import GivenTokens
from musc_jax.references import draw_references

COUNT, SILENT = 9, (1, 4, 8)


@pytest.fixture(scope="module")
def samples():
    """Tokens of one kind; samples 1, 4 and 6 share a defect in one token."""
    rng = np.random.default_rng(0)
    tokens = (rng.normal(size=(16, 8)) + 0.3 * rng.normal(size=(COUNT, 16, 8))).astype(np.float32)
    for i in (1, 4, 6):
        tokens[i, 5] = 4 + 0.01 * rng.normal(size=8)
    own = make_samples(2)[0]
    return [
        dataclasses.replace(own, name=f"{i}", points=None, tokens=SampleTokens(image=(tokens[i],)))
        for i in range(COUNT)
    ]


def config(**scoring):
    given = GivenTokens(16, (8,), aggregated=True)
    return Config(modality="rgb", image_size=32, image_backbone=given, scoring=ScoringConfig(**scoring))


def silenced(samples):
    return [dataclasses.replace(sample, vouches=i not in SILENT) for i, sample in enumerate(samples)]


def stated(samples, scorers, interval):
    """Interval averages over the samples that score each."""
    tokens = [np.asarray(sample.tokens.image[0], np.float64) for sample in samples]
    out = []
    for i, own in enumerate(scorers):
        by = np.stack([np.linalg.norm(tokens[i][:, None] - tokens[j][None], axis=-1).min(1) for j in own])
        out.append(np.sort(by, axis=0)[: max(1, int(len(own) * interval))].mean(0))
    return np.stack(out)


@pytest.mark.parametrize("references", [None, 3])
@pytest.mark.parametrize("memory", ["all at once", "few at a time"])
def test_they_are_scored_by_the_others(samples, references, memory):
    own = config(interval=0.5, references=references)
    drawn = draw_references(COUNT, references, vouch=[i not in SILENT for i in range(COUNT)])
    count = references or COUNT - len(SILENT) - 1
    scorers = [drawn.samples[columns].tolist() for columns in drawn.columns]
    for i, one in enumerate(scorers):
        assert len(set(one)) == count
        assert i not in one
        assert not set(one) & set(SILENT)
    if references is None:
        others = set(range(COUNT)) - set(SILENT)
        assert all(set(one) == others - {i} for i, one in enumerate(scorers) if i not in SILENT)
    resolved, programs = own.resolved(), Programs()
    features, seen = extract(silenced(samples), resolved, programs)
    plan = Plan(False, False, 4, 3, 0, 0, 0) if memory == "few at a time" else None
    got = pipeline.score_extracted(features, seen, resolved, programs, plan=plan).patch_scores.image
    # Squared distances of a few hundredths, between tokens whose squared norms are 130, lose 1e-5 in float32.
    np.testing.assert_allclose(got, stated(samples, scorers, 0.5), atol=2e-4)


def test_a_defect_that_recurs_shows_once_the_known_ones_are_silent(samples):
    own = config(interval=0.3)
    before, after = (pipeline.score(batch, own).max_scores for batch in (samples, silenced(samples)))
    assert before[6] < 2 * np.median(before)
    assert after[6] > 4 * np.median(after)


@pytest.mark.parametrize("nearest", [2, 7])
def test_the_most_similar_are_those_that_vouch(samples, nearest):
    """From as many on as there are others that vouch, all of these."""
    own = config(interval=0.5, nearest_images=nearest)
    got = pipeline.score(silenced(samples), own).patch_scores.image
    may = np.array([i not in SILENT for i in range(COUNT)])
    if nearest == 7:
        drawn = draw_references(COUNT, vouch=may)
        scorers = [drawn.samples[columns].tolist() for columns in drawn.columns]
    else:
        means = np.stack([sample.tokens.image[0] for sample in samples]).astype(np.float64).mean(1)
        apart = ((means[:, None] - means[None]) ** 2).sum(-1)
        np.fill_diagonal(apart, np.inf)
        scorers = [np.argsort(row)[:nearest].tolist() for row in np.where(may, apart, np.inf)]
    np.testing.assert_allclose(got, stated(samples, scorers, 0.5), atol=2e-4)


def test_groups_vouch_by_the_members_that_may():
    groups, may = [0, 0, 1, 1, 2, 3], [False, True, False, False, True, True]
    found = draw_references(6, groups=groups, vouch=may)
    assert found.samples.tolist() == [1, 4, 5]
    assert found.num_units == 3
    by = [found.units[columns].tolist() for columns in found.columns]
    assert by[0] == by[1] == [1, 2]
    assert len(by[2]) == 2
    assert draw_references(6, 2, seed=3, groups=groups).columns.tolist() == (
        draw_references(6, 2, seed=3, groups=groups, vouch=[True] * 6).columns.tolist()
    )


@pytest.mark.parametrize(
    ("may", "problem"),
    [
        ([True, False, False], "1 of 3 samples may score others"),
        ([True] * 2, "expected 3 times"),
        (np.ones(3, int), "of int64"),
    ],
)
def test_too_few_are_refused(may, problem):
    with pytest.raises(ValueError, match=problem):
        draw_references(3, vouch=may)


def test_a_plan_counts_those_that_vouch():
    resolved = config().resolved()
    assert plan_for(resolved, 9, 10**9, vouching=4) == plan_for(config(references=3).resolved(), 9, 10**9)
    assert plan_for(resolved, 9, 10**9, vouching=9) == plan_for(resolved, 9, 10**9)
    nearest = config(nearest_images=3).resolved()
    assert plan_for(nearest, 9, 10**9, vouching=5) == plan_for(nearest, 9, 10**9)
    assert plan_for(nearest, 9, 10**9, vouching=4) == plan_for(resolved, 9, 10**9, vouching=4)


def test_verdicts_decide():
    scores = np.array([0.1, 0.2, 0.3, 0.5, 0.7, 0.9])
    found = decide_by_verdicts(scores, [0, None, 0, None, 1, 1])
    assert (found.rule, found.threshold, found.num_defective) == ("verdicts", 0.5, 2)
    # Without the good one at 0.3 the middle of 0.1 and 0.7 decides.
    assert (found.lowest, found.highest) == (2, 3)
    for said in ([0, None, 0, None, None, None], [None] * 6, [1] * 5):
        with pytest.raises(ValueError, match=r"^(verdicts|labels): expected"):
            decide_by_verdicts(scores, said)
