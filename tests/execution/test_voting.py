"""Votes on places of scored samples: from memory, from disk and over devices, by the references that scored them."""

import json
from dataclasses import replace
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from musc_jax.data import Sample
from musc_jax.execution.devices import make_mesh, to_global
from musc_jax.execution.extraction import Features, Spread
from musc_jax.execution.feature_store import FeatureStore
from musc_jax.execution.image_extraction import ImageFeatures
from musc_jax.execution.point_extraction import PointFeatures
from musc_jax.execution.programs import Programs
from musc_jax.execution.voting import Inquiry, Question, Vote, answer, inquire
from musc_jax.references import draw_references

# More references than are read at once, and no multiple of them.
COUNT, SIDE, GROUPS, SIZE, K = 12, 3, 5, 24, 4


@pytest.fixture(scope="module")
def tokens():
    rng = np.random.default_rng(0)
    image = [rng.normal(size=(COUNT, SIDE**2, width)).astype(np.float32) for width in (4, 6)]
    points = [rng.normal(size=(COUNT, GROUPS, width)).astype(np.float32) for width in (4, 6)]
    return image, points, rng.permuted(np.tile(np.arange(SIZE**2), (COUNT, 1)), axis=1)[:, :GROUPS].astype(np.int32)


@pytest.fixture(scope="module")
def samples():
    black = np.zeros((SIZE, SIZE, 3), np.uint8)
    return [Sample(f"s{i}", black, None, None, None, Path(f"{i}.png")) for i in range(COUNT)]


@pytest.fixture(scope="module")
def programs():
    return Programs()


def config(references=None):
    resolved = tiny.make_config().resolved()
    return replace(resolved, size=SIZE, scoring=replace(resolved.scoring, references=references, seed=3))


def clouds(stages, pixels):
    nothing = jnp.zeros((COUNT, 0, 3))
    return PointFeatures(stages, nothing, nothing[..., 0] > 0, nothing, jnp.asarray(pixels), jnp.zeros((COUNT, GROUPS)))


def on_disk(stages, folder):
    store, kept = FeatureStore(folder), []
    for i, stage in enumerate(stages):
        writer = store.writer(str(i), with_mean=True)
        writer.append(stage)
        kept.append(writer.finish())
    return kept


def features(tokens, where, folder):
    image, points, pixels = tokens
    if where == "devices":
        mesh = make_mesh()
        own = [to_global(jnp.asarray(stage), COUNT, mesh) for stage in image]
        return Features(ImageFeatures(own, None), None, Spread(mesh, COUNT, range(COUNT), np.arange(COUNT)))
    if where == "disk":
        (folder / "image").mkdir()
        (folder / "points").mkdir()
        image, points = on_disk(image, folder / "image"), on_disk(points, folder / "points")
    else:
        image, points = map(jnp.asarray, image), map(jnp.asarray, points)
    return Features(ImageFeatures(list(image), None), clouds(list(points), pixels))


def stated(stages, sample, token):
    """(distances (N,), nearest (N,)) of one token to all samples, by NumPy in float64."""
    apart = [
        np.linalg.norm(stage.astype(np.float64) - stage[sample, token].astype(np.float64), axis=2) for stage in stages
    ]
    return np.mean([found.min(axis=1) for found in apart], axis=0), apart[-1].argmin(axis=1)


@pytest.mark.parametrize("where", ["memory", "disk", "devices"])
@pytest.mark.parametrize("references", [None, 6])
def test_votes(tokens, samples, programs, tmp_path, where, references):
    questions = [Question("s7", (23, 12)), Question("nobody", (0, 0)), Question("s0", (3, 4))]
    found = answer(features(tokens, where, tmp_path), samples, config(references), programs, questions, k=K)
    kinds = ["image"] if where == "devices" else ["image", "points"]
    assert [(vote.question, vote.modality) for vote in found] == [
        (question, kind) for question in (questions[0], questions[2]) for kind in kinds
    ]
    drawn = draw_references(COUNT, references, seed=3)
    image, points, pixels = tokens
    centers = np.stack(np.divmod(pixels, SIZE), -1)
    for vote in found:
        sample = int(vote.question.sample[1:])
        if vote.modality == "image":
            # The last row and the middle column; the first row and, of 24 pixels over 3 patches, the first column.
            token = {7: 2 * SIDE + 1, 0: 0}[sample]
            middles = [[((m // SIDE + 0.5) * 8, (m % SIDE + 0.5) * 8) for m in range(SIDE**2)]] * COUNT
        else:
            token = int(np.square(centers[sample] - vote.question.pixel).sum(-1).argmin())
            middles = centers + 0.5
        distances, nearest = stated(image if vote.modality == "image" else points, sample, token)
        who = sorted(drawn.samples[drawn.columns[sample]], key=lambda i: distances[i])
        assert vote.place == tuple(middles[sample][token])
        assert vote.num_references == len(who) == (references or COUNT - 1)
        assert vote.averaged == max(1, int(0.3 * len(who)))
        for voters, expected in ((vote.lowest, who[:K]), (vote.highest, who[::-1][:K])):
            assert [voter.sample for voter in voters] == [f"s{i}" for i in expected]
            np.testing.assert_allclose([voter.distance for voter in voters], distances[expected], rtol=1e-6)
            assert [voter.place for voter in voters] == [tuple(middles[i][nearest[i]]) for i in expected]


def test_an_inquiry_is_about_all_samples_in_one_part(tokens, samples, programs, tmp_path):
    seen = []

    def questions(names, scores, maps):
        seen.append((list(names), scores, maps))
        return [Question("s1", (0, 0))]

    given = features(tokens, "memory", tmp_path), samples, np.arange(COUNT), np.zeros((COUNT, SIZE, SIZE))
    found = inquire(Inquiry(questions, K), *given, config(), programs)
    assert [vote.question.sample for vote in found] == ["s1", "s1"]
    assert seen[0][0] == [sample.name for sample in samples]
    assert inquire(None, *given, config(), programs) == ()
    assert inquire(Inquiry(questions, K), *given[:2], np.arange(3), given[3], config(), programs) == ()


def test_votes_become_json_and_come_back(tokens, samples, programs, tmp_path):
    found = answer(features(tokens, "memory", tmp_path), samples, config(), programs, [Question("s2", (9, 9))], k=K)
    assert tuple(map(Vote.of, json.loads(json.dumps(found)))) == found


def test_what_is_outside_of_a_region_of_interest_matches_nothing(tokens, samples, programs):
    roi = np.broadcast_to(np.arange(SIZE) >= SIZE // SIDE, (SIZE, SIZE))
    own, counts = [replace(sample, roi=roi) for sample in samples], np.arange(SIDE**2) % SIDE > 0
    found = Features(ImageFeatures(list(map(jnp.asarray, tokens[0])), None), None)
    (vote,) = answer(found, own, config(), programs, [Question("s0", (SIZE // 2, SIZE // 2))], k=COUNT)
    assert min(voter.place[1] for voter in vote.lowest) > SIZE // SIDE
    token = SIDE**2 // 2
    apart = [np.linalg.norm(stage[1:, counts] - stage[0, token], axis=-1).min(1) for stage in tokens[0]]
    np.testing.assert_allclose([voter.distance for voter in vote.lowest], np.sort(np.mean(apart, axis=0)), rtol=1e-5)


def test_samples_that_do_not_vouch_are_no_matches(tokens, samples, programs):
    own = [replace(sample, vouches=i not in (3, 7)) for i, sample in enumerate(samples)]
    found = Features(ImageFeatures(list(map(jnp.asarray, tokens[0])), None), None)
    (vote,) = answer(found, own, config(), programs, [Question("s0", (SIZE // 2, SIZE // 2))], k=COUNT)
    assert {voter.sample for voter in vote.lowest} == {f"s{i}" for i in range(1, COUNT) if i not in (3, 7)}
