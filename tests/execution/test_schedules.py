"""Every schedule against the definition: all and few references, groups, masks, one and two modalities."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from schedule_cases import COUNT, GROUPS, by_definition, make_masks, scene, spoilt

from musc_jax.crossmodal import EnhanceAndAverage
from musc_jax.execution import dense, sharded, streamed
from musc_jax.execution.devices import make_mesh, to_global
from musc_jax.execution.feature_store import FeatureStore
from musc_jax.execution.memory import Plan
from musc_jax.execution.programs import Programs
from musc_jax.execution.schedule import Machine, Products
from musc_jax.mutual import AverageInterval, score_samples
from musc_jax.references import draw_references

INTERVAL = 0.4
REFERENCES = {
    "all": draw_references(COUNT),
    "drawn": draw_references(COUNT, 3, seed=2),
    "groups": draw_references(COUNT, groups=GROUPS),
    "drawn groups": draw_references(COUNT, 3, seed=2, groups=GROUPS),
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
    for references, masked in (("all", False), ("groups", True), ("drawn", True), ("drawn groups", False))
    # Panels of one sample differ from panels of four in nothing but their size, and blocks need all samples.
    if (name != "one by one" or references == "drawn groups") and (name != "blocks" or "drawn" not in references)
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
