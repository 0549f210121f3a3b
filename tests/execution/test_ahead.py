"""Programs that are compiled before they are needed: the same ones, found by the run, with a count for who waits."""

import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scenes import GROUPS, make_backbones, make_samples

from musc_jax import Config, resolved
from musc_jax.execution import ahead
from musc_jax.execution.extraction import extract
from musc_jax.execution.programs import Programs
from musc_jax.execution.scoring import score_patches

COUNT = 3
# Shapes stand in for arrays.
pytestmark = pytest.mark.usefixtures("unchecked")


class Watched(Programs):
    """Keeps what is compiled in `run`, where it was not compiled ahead."""

    def __init__(self):
        super().__init__()
        self.late = []

    def _arrived(self, key):
        found = super()._arrived(key)
        if found is None:
            self.late.append(key)
        return found


@pytest.mark.parametrize("blocks", [0, 40])
def test_a_run_finds_all_its_programs_compiled(monkeypatch, blocks):
    """Of features and of scoring, pair by pair or in blocks; the numbers are those of a run that compiles itself."""
    monkeypatch.setitem(resolved._TOKENS_AT_ONCE, "cpu", blocks)
    config, programs = Config(image_size=32, grouping=GROUPS, **make_backbones()).resolved(), Watched()
    ahead.go_through(config, programs, count=COUNT)
    known = programs.count
    samples = make_samples(COUNT)
    scores = score_patches(extract(samples, config, programs)[0], config, programs)
    assert not programs.late
    assert programs.count == known
    programs.cancel()
    if not blocks:
        want = score_patches(extract(samples, config, Programs())[0], config, Programs())
        np.testing.assert_array_equal(scores.image, want.image)
        np.testing.assert_array_equal(scores.points, want.points)


def test_who_waits_is_told_how_many_are_compiled(monkeypatch):
    """A program is held back until somebody has been told that it is waited for."""
    monkeypatch.setattr("musc_jax.execution.programs._TELL_SECONDS", 0.001)
    programs, told, compile_ = Programs(), threading.Event(), jax.stages.Lowered.compile

    def held(self, *args, **options):
        assert told.wait(60)
        return compile_(self, *args, **options)

    def waiting(done, known):
        seen.append((done, known))
        told.set()

    seen = []
    programs.waiting = waiting
    monkeypatch.setattr(jax.stages.Lowered, "compile", held)
    shape = jax.ShapeDtypeStruct((2,), np.float32)
    assert programs.prepare(jnp.cos, shape) == shape
    programs.prepare(jnp.sin, shape)
    np.testing.assert_allclose(programs.run("test", jnp.cos, np.zeros(2, np.float32)), 1)
    assert seen[0] == (0, 2)
    assert programs.compile_seconds > 0
    assert programs.count == 2
    programs.cancel()
    with pytest.raises(RuntimeError, match="cancelled"):
        programs.prepare(jnp.tan, shape)
    np.testing.assert_allclose(programs.run("test", jnp.tan, np.zeros(2, np.float32)), 0)


def test_what_cannot_be_compiled_ahead_is_told_of_by_the_run():
    def refused(x):
        raise ValueError("no such program")

    programs, broken, seen = Programs(), Programs(), []
    config = Config(modality="rgb", image_size=32, **make_backbones()).resolved()
    broken.prepare = lambda function, *args, **options: seen.append(function) or refused(args)
    ahead.compile_ahead(config, broken).join()  # says nothing
    assert seen
    with pytest.raises(ValueError, match="no such program"):
        programs.run("test", refused, np.zeros(2, np.float32))
