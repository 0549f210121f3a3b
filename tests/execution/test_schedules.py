"""Every schedule against the definition: all and few references, groups, masks, one and two modalities."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from schedule_cases import COUNT, GROUPS, by_definition, make_lists, make_masks, scene, spoilt

from musc_jax.crossmodal import EnhanceAndAverage
from musc_jax.execution import dense, sharded, streamed
from musc_jax.execution.devices import make_mesh, to_global
from musc_jax.execution.feature_store import FeatureStore
from musc_jax.execution.memory import Plan
from musc_jax.execution.programs import Programs
from musc_jax.execution.ring_of_lists import meetings
from musc_jax.execution.schedule import Machine, Products
from musc_jax.mutual import AverageInterval, score_samples
from musc_jax.recurring import AndJumps
from musc_jax.references import draw_references, listed_references

INTERVAL = 0.4
REFERENCES = {
    "all": draw_references(COUNT),
    "drawn": draw_references(COUNT, 3, seed=2),
    "groups": draw_references(COUNT, groups=GROUPS),
    "drawn groups": draw_references(COUNT, 3, seed=2, groups=GROUPS),
    # From half of all on, the ring of devices meets everybody.
    "lists": listed_references(make_lists(3)),
    "long lists": listed_references(make_lists(5)),
}
PLANS = {
    "panels": Plan(True, False, 4, 5, 0, 0, 0),
    "one by one": Plan(True, False, 1, 1, 0, 0, 0),
    "blocks": Plan(True, False, 4, 4, 0, 0, 0, keep_scores=True),
}


@pytest.fixture(scope="module")
def programs():
    return Programs()


def score(name, stages, finish, references, programs, tmp_path=None, **options):
    """By the schedule of that name; `statement` is the library's own definition."""
    if name == "statement":
        return jax.jit(lambda *z: score_samples(z, finish, references, implementation="plain", **options))(*stages)
    if name == "dense":
        return dense.score_stage([jnp.asarray(z) for z in stages], finish, references, Machine(programs), **options)
    if name == "sharded":
        mesh = make_mesh()
        placed = [to_global(z, COUNT, mesh) for z in stages]
        return sharded.score_stage(placed, finish, references, Machine(programs, mesh=mesh), **options)
    store, kept = FeatureStore(tmp_path), []
    for i, z in enumerate(stages):
        writer = store.writer(str(i), with_mean=True)
        writer.append(z)
        kept.append(writer.finish())
    return streamed.score_stage(kept, finish, references, Machine(programs, PLANS[name]), **options)


NAMES = ["statement", "dense", "sharded", *PLANS]
# References and masks are independent of each other: half of their products do.
CASES = [
    (name, references, masked)
    for name in NAMES
    for references, masked in (
        ("all", False),
        ("groups", True),
        ("drawn", True),
        ("drawn groups", False),
        ("lists", True),
        ("long lists", False),
    )
    # Panels of one sample differ from panels of four in nothing but their size, and blocks need all samples.
    if (name != "one by one" or references in ("drawn groups", "lists"))
    and (name != "blocks" or references in ("all", "groups"))
]


@pytest.mark.parametrize(("name", "references", "masked"), CASES)
def test_a_schedule_gives_the_definition(name, references, masked, programs, tmp_path):
    (stages, patch), drawn = scene(), REFERENCES[references]
    query, valid = make_masks() if masked else (None, None)
    given = spoilt(stages, query, valid) if masked else stages
    masks = {"query_mask": query, "reference_mask": valid} if masked else {}
    one = {key: value[1:] for key, value in masks.items()}
    (got,) = score(name, given[1:], AverageInterval(INTERVAL), drawn, programs, tmp_path, **one)
    (want,) = by_definition(stages[1:], drawn, interval=INTERVAL, **{k.split("_")[0]: v for k, v in one.items()})
    np.testing.assert_allclose(got, want, atol=1e-5)
    for variant in ("released", "paper") if masked else ("released",):
        finish = EnhanceAndAverage(AverageInterval(INTERVAL), variant)
        (tmp_path / variant).mkdir()
        both = score(name, given, finish, drawn, programs, tmp_path / variant, extra=(patch,), **masks)
        options = {k.split("_")[0]: v for k, v in masks.items()}
        wanted = by_definition(stages, drawn, patch=patch, interval=INTERVAL, variant=variant, **options)
        for got, want in zip(both, wanted, strict=True):
            # Float32 swaps no ranks here: values next to each other in rank differ by more than its rounding.
            np.testing.assert_allclose(got, want, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_jumps_come_out_of_every_schedule(name, programs, tmp_path):
    """Behind the patch scores, (radius, count) of each modality; tokens that are not scored have none."""
    (stages, patch), masks = scene(), make_masks()
    for z in stages:
        z[[1, 4, 6], :3] = 4 + 0.01 * z[[1, 4, 6], :3]
    finish, references = AndJumps(EnhanceAndAverage(AverageInterval(INTERVAL), "released")), REFERENCES["all"]
    query = {"query_mask": masks[0]}
    *_, radius_2d, radius_3d, count_2d, count_3d = score(
        name, stages, finish, references, programs, tmp_path, extra=(patch,), **query
    )
    for z, q, radius, count in zip(stages, masks[0], (radius_2d, radius_3d), (count_2d, count_3d), strict=True):
        wanted = q & np.isin(np.arange(z.shape[1]), range(3))[None] & np.isin(np.arange(COUNT), [1, 4, 6])[:, None]
        np.testing.assert_array_equal(np.asarray(count)[wanted], 2)
        assert ((np.asarray(radius)[wanted] > 0.03) & (np.asarray(radius)[wanted] < 4)).all()
        assert wanted.sum() >= 5
        assert not np.asarray(radius)[~q].any()


@pytest.mark.parametrize("name", ["dense", "sharded", "panels", "blocks"])
def test_products_reach_every_schedule(name, programs, tmp_path):
    """Half precision changes the numbers, each type in its way; the plain statement does not."""
    stages, _ = scene()
    references, finish = REFERENCES["all"], AverageInterval(INTERVAL)
    want = by_definition(stages[:1], references, interval=INTERVAL)[0]
    apart = {}
    for half in ("bfloat16", "float16"):
        (tmp_path / half).mkdir()
        products = Products("fast", half)
        (got,) = score(name, stages[:1], finish, references, programs, tmp_path / half, products=products)
        apart[half] = np.abs(np.asarray(got) - want).max()
    # Rounded to 8 and 11 bits, at distances near 1.
    assert 1e-4 < apart["bfloat16"] < 5e-3
    assert 1e-5 < apart["float16"] < 6e-4
    (plain,) = score(
        name, stages[:1], finish, references, programs, tmp_path, products=Products(implementation="plain")
    )
    np.testing.assert_allclose(plain, want, atol=2e-6)


def test_no_other_pairs_meet_than_those_of_lists(monkeypatch, programs, tmp_path):
    """One call for each product: 27 of the 36 pairs at the most, where each of 9 has a list of 3."""
    monkeypatch.setattr(dense, "_WORK_AT_ONCE", 1)
    (stages, _), lists = scene(), REFERENCES["lists"]
    wanted = {tuple(sorted((i, int(j)))) for i, own in enumerate(lists.columns) for j in own}
    seen, read = [], []
    finish, machine = AverageInterval(INTERVAL), Machine(programs)
    score = functools.partial(dense.score_stage, [jnp.asarray(stages[0])], finish, lists, machine)
    score(progress=lambda *call: seen.append(call))
    assert seen[-1] == (len(wanted), len(wanted))
    assert len(wanted) < 27
    writer = FeatureStore(tmp_path).writer("0", with_mean=True)
    writer.append(stages[0])
    stored = writer.finish()
    rows = stored.rows
    monkeypatch.setattr(stored, "rows", lambda index: (read.append(len(index)), rows(index))[1])
    streamed.score_stage([stored], finish, lists, Machine(programs, PLANS["panels"]))
    assert sum(read) == COUNT + COUNT * 3
    for devices in (1, 2, 4):
        found = meetings(lists.columns, devices)
        assert found.numbers.sum() == COUNT * 3
        assert meetings(REFERENCES["long lists"].columns, devices) is None


def test_all_the_others_in_a_list_run_the_programs_of_no_list():
    """Off is off: not a program more, nor another one, in any schedule."""
    (stages, _), compiled = scene(), []
    for references in (draw_references(COUNT), listed_references(make_lists(COUNT - 1))):
        own = Programs()
        for schedule in (dense, sharded, streamed):
            schedule.score_stage([jnp.asarray(stages[0])], AverageInterval(INTERVAL), references, Machine(own))
        compiled.append({program.as_text() for program in own._compiled.values()})
    assert compiled[0] == compiled[1]


@pytest.mark.parametrize("schedule", [dense, sharded, streamed])
def test_a_machine_need_not_say_more_than_its_programs(schedule, programs):
    stages, _ = scene()
    references = REFERENCES["all"]
    (got,) = schedule.score_stage(stages[:1], AverageInterval(INTERVAL), references, Machine(programs))
    np.testing.assert_allclose(got, by_definition(stages[:1], references, interval=INTERVAL)[0], atol=1e-5)


def test_progress_counts_to_its_end(programs, tmp_path):
    stages, _ = scene()
    for name in ("dense", "sharded", "panels", "blocks"):
        seen = []
        (tmp_path / name).mkdir()
        score(
            name, stages[:1], AverageInterval(INTERVAL), REFERENCES["all"], programs, tmp_path / name,
            progress=lambda *call, seen=seen: seen.append(call),
        )  # fmt: skip
        assert seen == sorted(seen), name
        assert seen[-1][0] == seen[-1][1], name


@pytest.mark.parametrize(("calls", "work"), [(1, 1e9), (3, 136 * 75 / 3), (136, 1)])
def test_many_pairs_go_into_calls_of_equal_work(rng, monkeypatch, calls, work):
    """136 pairs of 5 x 5 x 3 multiplications: all at once, with a rest, and one by one."""
    monkeypatch.setattr(dense, "_WORK_AT_ONCE", work)
    features = rng.normal(size=(17, 5, 3)).astype(np.float32)
    references, seen = draw_references(17), []
    (got,) = dense.score_stage(
        [jnp.asarray(features)], AverageInterval(INTERVAL), references, Machine(Programs()),
        progress=lambda *call: seen.append(call),
    )  # fmt: skip
    assert seen == [(i + 1, calls) for i in range(calls)]
    np.testing.assert_allclose(got, by_definition([features], references, interval=INTERVAL)[0], atol=1e-5)
