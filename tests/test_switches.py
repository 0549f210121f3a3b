"""Every switch, through `pipeline.score`: the numbers are the statement's with that switch, and others than without."""

import dataclasses
import re

import numpy as np
import pytest
import tiny
from statement import margins
from switches import BASES, SWITCHES, changed, items

from musc_jax import Config
from musc_jax.config import ABLATIONS
from musc_jax.execution.memory import BudgetError


def test_every_field_and_every_ablation_has_a_row():
    fields = set()
    for field in dataclasses.fields(Config):
        inner = dataclasses.fields(field.default) if dataclasses.is_dataclass(field.default) else ()
        fields |= {f"{field.name}.{part.name}" for part in inner} or {field.name}
    assert {name for row in SWITCHES for name in row.config} == fields, (
        "a field needs a row in SWITCHES of tests/switches.py, and the same in NumPy in tests/statement/whole.py"
    )
    assert {name for row in SWITCHES for name in row.config.get("ablate", ())} == set(ABLATIONS)
    assert {row.base for row in SWITCHES} <= set(BASES)


@pytest.mark.parametrize("base", BASES)
def test_bases_are_as_stated(base):
    config, statement = map(items, BASES[base])
    stated = tiny.state(statement)
    assert not margins.too_small(stated.gaps)
    tiny.assert_same(tiny.score(config).outcome._asdict(), stated.outcome._asdict())


def _moved(got, base, name):
    a, b = getattr(got, name), getattr(base, name)
    return np.abs(a - b).max() / np.abs(b).max()


@pytest.mark.parametrize("row", SWITCHES, ids=lambda row: row.name)
def test_a_switch_gives_the_stated_numbers_and_others_than_its_base(row):
    config, statement = changed(row.base, row.config, row.statement)
    stated = tiny.state(statement)
    assert not margins.too_small(stated.gaps), "take another value: float32 could decide otherwise here"
    got = tiny.score(config).outcome
    tiny.assert_same(got._asdict(), stated.outcome._asdict(), row.tolerance)
    base = tiny.score(items(BASES[row.base][0])).outcome
    if got.anomaly_maps.shape == base.anomaly_maps.shape:
        assert max(_moved(got, base, "anomaly_maps"), _moved(got, base, "pred_scores")) >= row.moved


@pytest.mark.parametrize("implementation", ["auto", "plain"])
def test_the_implementation_arrives_at_every_stage(implementation):
    """Numbers do not show it, and so the programs are looked at; re-scoring has one form only."""
    config, _ = changed("both", {"implementation": implementation}, {})
    found = dict(tiny.score(config).implementations)
    assert found.pop("re-scoring") == set()
    assert set(found) == {
        *("image backbone", "image aggregation", "point grouping", "point backbone", "point aggregation"),
        *("mutual scoring", "maps"),
    }
    assert set.union(*found.values()) == {implementation}
    assert all(found.values())


@pytest.mark.parametrize(
    ("base", "config", "statement"),
    [
        ("both", {"ablate": ("trust",), "scoring.interval": 0.5}, {"trust": False, "interval": 0.5}),
        ("few", {"scoring.seed": 1}, {"seed": 1}),
        ("rgb", {"scoring.nearest_images": 2}, {"nearest_images": 2}),
    ],
    ids=["both", "few", "similar"],
)
def test_features_on_disk_give_the_stated_numbers(base, config, statement, tmp_path):
    """With nothing at its default that the other schedule must be told."""
    config, statement = changed(base, config, statement)
    stated = tiny.state(statement)
    assert not margins.too_small(stated.gaps)
    with pytest.raises(BudgetError) as refused:
        tiny.score(config, memory_bytes=1)
    least = float(re.search(r"--memory_gb to ([\d.]+)", str(refused.value))[1])
    seen = []
    got = tiny.score(
        config,
        memory_bytes=int(least * 1e9),
        scratch_dir=tmp_path,
        progress=lambda stage, *_: seen.append((stage, any(tmp_path.iterdir()))),
    )
    assert ("mutual scoring", True) in seen
    tiny.assert_same(got.outcome._asdict(), stated.outcome._asdict())
