"""Programs: dispatched and not waited for, unless their times are asked for; nothing piles up meanwhile."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scenes import GROUPS, make_backbones, make_samples
from schedule_cases import COUNT, scene

from musc_jax import Config, pipeline
from musc_jax.execution import dense, image_extraction, mapping, point_extraction, streamed
from musc_jax.execution.devices import over_samples
from musc_jax.execution.extraction import extract
from musc_jax.execution.feature_store import FeatureStore, StoredArray
from musc_jax.execution.memory import Plan
from musc_jax.execution.programs import InFlight, Programs
from musc_jax.execution.schedule import Machine
from musc_jax.mutual import AverageInterval
from musc_jax.references import draw_references

# Results that count are no JAX arrays.
pytestmark = pytest.mark.usefixtures("unchecked")


@pytest.fixture
def waits(monkeypatch):
    """What is waited for by `jax.block_until_ready`."""
    seen, wait = [], jax.block_until_ready
    monkeypatch.setattr(jax, "block_until_ready", lambda x: seen.append(x) or wait(x))
    return seen


def test_a_stage_is_dispatched_and_not_waited_for(waits):
    programs, x = Programs(), jnp.zeros(2)
    programs.run("test", jnp.cos, x)
    # What makes the arguments runs no longer when compiling begins, and so does not count as that.
    assert [list(map(id, arrays)) for arrays in waits] == [[id(x)]]
    programs.run("test", jnp.cos, x)
    assert len(waits) == 1
    assert not programs.seconds
    assert programs.compile_seconds > 0


def test_profiling_waits_for_each_stage(waits):
    programs = Programs(profile=True)
    for _ in range(2):
        result = programs.run("test", jnp.cos, jnp.zeros(2))
        assert waits[-1] is result
    assert set(programs.seconds) == {"test"}
    assert len(waits) == 3


def test_work_in_flight_is_settled_in_order():
    settled = []
    in_flight = InFlight(settled.append, most=2)
    for item in range(5):
        in_flight.add(item)
        assert settled == list(range(item - 1))
    in_flight.drain()
    assert settled == [0, 1, 2, 3, 4]


class Watched(Programs):
    """Counts results of some functions that were asked for and not waited for, by looking at the last output."""

    def __init__(self, *functions):
        super().__init__()
        self._functions = functions
        self.dispatched = self.waited = self.most = 0

    def run(self, stage, function, *args, **options):
        result = super().run(stage, function, *args, **options)
        if function not in self._functions:
            return result
        self.dispatched += 1
        self.most = max(self.most, self.dispatched - self.waited)
        return (*result[:-1], Result(result[-1], self)) if isinstance(result, tuple) else Result(result, self)


class Result:
    """An array that tells when it is waited for."""

    def __init__(self, array, programs):
        self._array, self._programs, self._is_counted = array, programs, False

    def _count(self):
        self._programs.waited += not self._is_counted
        self._is_counted = True

    def block_until_ready(self):
        self._array.block_until_ready()
        self._count()

    def copy_to_host_async(self):
        self._array.copy_to_host_async()

    def __array__(self, dtype=None, copy=None):
        self._count()
        return np.asarray(self._array)

    def __bool__(self):
        self._count()
        return bool(self._array)


class Read(StoredArray):
    """Counts the parts that are read and not done with: their product has not been waited for."""

    def attach(self, programs):
        self.programs, self.read, self.most = programs, 0, 0
        return self

    def rows(self, index):
        self.read += 1
        self.most = max(self.most, self.read - self.programs.waited)
        return super().rows(index)


@pytest.mark.parametrize("keep_scores", [False, True])
def test_a_stream_reads_and_multiplies_no_more_than_it_has_room_for(keep_scores, tmp_path):
    """A plan has room for two parts in products and one that is read, beside the samples that are scored."""
    (features, _), _ = scene()
    writer = FeatureStore(tmp_path).writer("features", with_mean=True)
    writer.append(features)
    stored = writer.finish()
    programs = Watched(streamed._score_into, streamed._score_both_into)
    stored = Read(stored._path, stored.shape, stored.dtype, stored.mean).attach(programs)
    plan = Plan(True, False, COUNT if not keep_scores else 1, 1, 0, 0, 0, keep_scores=keep_scores)
    machine = Machine(programs, plan)
    streamed.score_stage([stored], AverageInterval(0.3), draw_references(COUNT), machine)
    products = COUNT * (COUNT + 1) // 2 if keep_scores else COUNT
    assert (programs.dispatched, stored.read) == (products, products + (not keep_scores))
    assert programs.most == 2
    assert stored.most <= 3 + (not keep_scores)


def test_dense_calls_do_not_pile_up(monkeypatch):
    monkeypatch.setattr(dense, "_WORK_AT_ONCE", 1)
    (features, _), _ = scene()
    programs = Watched(dense._fill)
    dense.score_stage([jnp.asarray(features)], AverageInterval(0.3), draw_references(COUNT), Machine(programs))
    assert programs.dispatched == COUNT * (COUNT - 1) // 2
    assert programs.most == 2


@pytest.mark.parametrize(
    ("modality", "function"),
    [("rgb", image_extraction._aggregate_images), ("points", over_samples(point_extraction._aggregate_points))],
)
@pytest.mark.parametrize("on_disk", [False, True])
def test_extracted_samples_do_not_pile_up(modality, function, on_disk, tmp_path):
    """And the backbone has the next one while what the one before became is put away."""
    programs = Watched(function)
    config = Config(modality=modality, image_size=32, grouping=GROUPS, **make_backbones()).resolved()
    store = FeatureStore(tmp_path) if on_disk else None
    features, _ = extract(make_samples(4), config, programs, store=store)
    assert features.num_samples == programs.dispatched == programs.waited == 4
    assert programs.most == 2


def test_maps_do_not_pile_up():
    programs = Watched(over_samples(mapping._image_map))
    config = Config(modality="rgb", image_size=32, image_backbone=make_backbones()["image_backbone"])
    results = pipeline.score(make_samples(4), config, programs=programs)
    assert np.isfinite(results.anomaly_maps).all()
    assert programs.dispatched == programs.waited == 4
    assert programs.most == 2
