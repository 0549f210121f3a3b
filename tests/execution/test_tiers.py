"""Features on the device, in its host's memory or on disk: by made-up sizes of both; the same numbers everywhere."""

import numpy as np
import pytest
from scenes import GROUPS, make_backbones, make_samples

from musc_jax import Config, pipeline
from musc_jax.execution import memory
from musc_jax.execution.feature_store import HostStore
from musc_jax.execution.memory import BudgetError, Tokens, plan_memory
from musc_jax.execution.scoring import plan_for

GB = 10**9
MODALITIES = [Tokens(784, 768, 3), Tokens(1024, 384, 3)]


def where(count, device, host):
    plan = plan_memory(count, MODALITIES, size=224, budget=device, host=host)
    assert plan.bytes <= plan.budget
    return (plan.stored and ("disk" if plan.on_disk else "host")) or "device", plan


def test_features_go_where_there_is_room():
    """2,000 samples: 24 GB of features, 87 GB of scores at their peak, 2 GB of pictures and maps."""
    assert where(200, 16 * GB, 64 * GB)[0] == "device"
    assert where(2000, 140 * GB, 64 * GB)[0] == "device"
    for device, host, expected in ((16, 64, "host"), (16, 24, "disk"), (80, 64, "host")):
        found, plan = where(2000, device * GB, host * GB)
        assert found == expected
        assert (plan.disk_bytes > 0) == plan.on_disk
        # On the host or on disk, the device scores as much at a time.
        other = where(2000, device * GB, (88 - host) * GB)[1]
        assert (plan.panel, plan.chunk, plan.whole_stages, plan.bytes) == (
            other.panel, other.chunk, other.whole_stages, other.bytes,
        )  # fmt: skip
    assert "features in the host's memory, scoring" in where(2000, 16 * GB, 64 * GB)[1].describe()


def test_pictures_and_maps_are_the_hosts():
    """They are not charged to a device that does not hold them; where the host has no room for them, that is said."""
    alone = plan_memory(2000, MODALITIES, size=224, budget=200 * GB)
    beside = plan_memory(2000, MODALITIES, size=224, budget=200 * GB, host=64 * GB)
    assert alone.bytes - beside.bytes == 2000 * 224 * 224 * 16
    with pytest.raises(
        BudgetError, match=r"pictures and maps of 2000 samples .* take 1.61 GB beside the device, 850.0 MB"
    ):
        plan_memory(2000, MODALITIES, size=224, budget=200 * GB, host=GB)


@pytest.mark.parametrize(("budget", "whole_stages"), [(50_000, False), (60_000, True)])
def test_a_run_with_features_on_the_host(monkeypatch, budget, whole_stages):
    """A device that is too small for them, by panels and a stage at a time: the numbers of one that is not."""
    monkeypatch.setattr(memory, "_PROGRAMS", 0)
    config = Config(modality="points", image_size=32, grouping=GROUPS, **make_backbones())
    samples = make_samples(5)
    want = pipeline.score(samples, config)
    made = []

    class Seen(HostStore):
        def __init__(self):
            super().__init__()
            made.append(self)

    monkeypatch.setattr(pipeline, "HostStore", Seen)
    monkeypatch.setattr(pipeline, "usable_beside_device", lambda: 10**8)
    plan = plan_for(config.resolved(), 5, budget, host=10**8)
    assert (plan.on_host, plan.on_disk, plan.whole_stages) == (True, False, whole_stages)
    got = pipeline.score(samples, config, memory_bytes=budget)
    assert {name.split("_")[0] for store in made for name in store._writers} == {"points", "cloud"}
    np.testing.assert_allclose(got.anomaly_maps, want.anomaly_maps, atol=1e-5 * want.anomaly_maps.max())
    np.testing.assert_allclose(got.pred_scores, want.pred_scores, atol=1e-4)


def test_what_is_held_is_read_as_what_is_stored(rng):
    store = HostStore()
    writer = store.writer("one", with_mean=True)
    rows = rng.normal(size=(5, 3, 2)).astype(np.float32)
    writer.append(rows[:3])
    writer.append(rows[3:])
    held = writer.finish()
    rows_before = rows.copy()
    rows[:] = 0  # what was appended may be used again
    np.testing.assert_array_equal(held.load(), rows_before)
    np.testing.assert_allclose(held.mean, rows_before.mean((0, 1)), rtol=1e-6)
    some = held[np.array([4, 1, 2])]
    assert (some.shape, len(some), some.nbytes) == ((3, 3, 2), 3, 72)
    np.testing.assert_array_equal(some.rows(np.array([2, 0])), rows_before[[2, 4]])
    np.testing.assert_array_equal(some[1], rows_before[1])
    with pytest.raises(ValueError, match="one is there already"):
        store.writer("one")
