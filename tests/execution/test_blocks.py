"""Pairs in blocks of samples and samples finished together, as accelerators take them: the definition's numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from schedule_cases import COUNT, by_definition, make_masks, scene, spoilt
from test_schedules import REFERENCES, score

from musc_jax.crossmodal import EnhanceAndAverage
from musc_jax.execution import dense
from musc_jax.execution.programs import Programs
from musc_jax.execution.schedule import Machine, Products, map_some
from musc_jax.execution.scoring import products_of
from musc_jax.mutual import AverageInterval
from musc_jax.pair_blocks import block_minima, samples_of_block, scores_among, scores_of_all
from musc_jax.resolved import Device, Scoring

INTERVAL = 0.4
# Of 16 image and 20 point tokens: blocks of 2 and of 3 of 9 samples, with one to fill up and with none, and one of all.
CASES = [
    ("dense", 40, 4),
    ("dense", 60, 9),
    ("dense", 1000, 2),
    ("sharded", 40, 4),
    ("panels", 40, 2),
    ("blocks", 60, 3),
]


@pytest.fixture(scope="module")
def programs():
    return Programs()


@pytest.mark.parametrize(("name", "tokens_at_once", "samples_at_once"), CASES)
def test_a_schedule_in_blocks_gives_the_definition(name, tokens_at_once, samples_at_once, programs, tmp_path):
    """With masks, and samples that count as one."""
    (stages, patch), references = scene(), REFERENCES["groups"]
    query, valid = make_masks()
    products = Products(tokens_at_once=tokens_at_once, samples_at_once=samples_at_once)
    got = score(
        name, spoilt(stages, query, valid), EnhanceAndAverage(AverageInterval(INTERVAL), "released"), references,
        programs, tmp_path, extra=(patch,), query_mask=query, reference_mask=valid, products=products,
    )  # fmt: skip
    want = by_definition(stages, references, patch=patch, interval=INTERVAL, query=query, reference=valid)
    for one, other in zip(got, want, strict=True):
        # Float32 swaps no ranks here, see test_schedules.
        np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("name", ["dense", "sharded"])
def test_drawn_references_in_blocks(name, programs, tmp_path):
    stages, _ = scene()
    references, products = REFERENCES["drawn"], Products(tokens_at_once=40, samples_at_once=4)
    (got,) = score(name, stages[1:], AverageInterval(INTERVAL), references, programs, tmp_path, products=products)
    np.testing.assert_allclose(got, by_definition(stages[1:], references, interval=INTERVAL)[0], atol=1e-5)


@pytest.mark.parametrize("half", ["bfloat16", "float16"])
def test_half_precision_in_blocks_is_that_of_pairs(half, programs):
    """Rounded alike, so nothing but the order of float32 sums is left."""
    stages, _ = scene()
    references, finish = REFERENCES["all"], AverageInterval(INTERVAL)
    by_pairs, in_blocks = (
        score("dense", stages[:1], finish, references, programs, products=Products("fast", half, tokens_at_once=t))[0]
        for t in (0, 40)
    )
    np.testing.assert_allclose(in_blocks, by_pairs, atol=1e-5)
    assert np.abs(np.asarray(by_pairs) - by_definition(stages[:1], references, interval=INTERVAL)[0]).max() > 1e-5


class Watched(Programs):
    """Counts the products of a dense stage by their shape."""

    def __init__(self):
        super().__init__()
        self.products = []

    def run(self, stage, function, *args, **options):
        if function is dense._fill_blocks:
            self.products += [(options["size"], int(i), int(j)) for i, j in zip(args[3], args[4], strict=True)]
        return super().run(stage, function, *args, **options)


def test_each_pair_of_blocks_meets_once(monkeypatch):
    """However many calls they are spread over; the last call repeats its last pair."""
    monkeypatch.setattr(dense, "_WORK_AT_ONCE", 7 * 32**2 * 8)
    (features, _), _ = scene()
    programs, seen = Watched(), []
    dense.score_stage(
        [jnp.asarray(features)], AverageInterval(INTERVAL), REFERENCES["all"], Machine(programs),
        products=Products(tokens_at_once=32), progress=lambda *call: seen.append(call),
    )  # fmt: skip
    blocks = -(-COUNT // 2)
    assert {(size, i, j) for size, i, j in programs.products} == {
        (2, i, j) for j in range(blocks) for i in range(j + 1)
    }
    assert seen == [(1, 2), (2, 2)]
    assert len(programs.products) == 16


def test_many_by_many_is_what_the_statement_says(rng):
    a, b = (rng.normal(size=(count, 5, 3)).astype(np.float32) for count in (7, 4))
    masks = [rng.random(x.shape[:2]) < 0.7 for x in (a, b)]
    statement = jax.jit(block_minima.statement)
    want, own = statement(a, b, *masks), statement(a, a, masks[0], masks[0])[0]
    for size in (3, 9):
        for got, other in zip(jax.jit(lambda *x, s=size: scores_of_all(*x, size=s))(a, b, *masks), want, strict=True):
            # Squared distances up to 30, by an expanded form.
            np.testing.assert_allclose(got, other, atol=2e-5)
        got = jax.jit(lambda *x, s=size: scores_among(*x, size=s))(a, masks[0])
        np.testing.assert_allclose(got, own, atol=2e-5)


def test_parts_that_are_mapped_together_are_about_equal():
    seen = []

    def function(sample):
        x, nothing = sample
        assert nothing is None
        seen.append(x.shape)
        return x.sum(), x

    x = np.arange(22, dtype=np.float32).reshape(11, 2)
    for at_once in (1, 3, 4, 11, 50):
        total, same = jax.jit(lambda x, n=at_once: map_some(function, (x, None), n))(x)
        np.testing.assert_array_equal(total, x.sum(1))
        np.testing.assert_array_equal(same, x)
    assert set(seen) == {(2,)}
    # Eleven in parts of at most four are three of four, one row repeated, and not two of four and three left over.
    text = str(jax.make_jaxpr(lambda x: map_some(function, (x, None), 4))(x))
    assert "f32[3,4]" in text


def test_what_a_device_takes():
    assert [samples_of_block(tokens, 6272) for tokens in (784, 1024, 1369, 10_000)] == [8, 6, 4, 1]
    assert samples_of_block(784, 0) == 1
    products = Products(samples_at_once=32)
    # A dozen copies of the scores that are finished together stay below 2 GB.
    assert [products.finished_together(1808, others) for others in (149, 999, 9_999, 99_999)] == [32, 18, 1, 1]
    usual = {"interval": 0.3, "references": None, "seed": 0, "variant": "released", "enhancement": True, "trust": True}
    usual["recurring"] = "off"
    how = {"precision": "fast", "half_type": "float16", "tokens_at_once": 6272, "samples_at_once": 32}
    fields = {field for field in Scoring.__dataclass_fields__ if field not in (*usual, *how, "implementation")}
    scoring = Scoring(**usual, **how, implementation="auto", **dict.fromkeys(fields))
    assert products_of(scoring) == Products("fast", "float16", "auto", 6272, 32)
    assert Device.of(jax.devices()[0]).tokens_at_once == 0
