"""What a category's programs are compiled for before its samples are read, and what is shown meanwhile."""

from fractions import Fraction
from types import SimpleNamespace

import pytest
from scenes import GROUPS, make_backbones

from launch import evaluation
from launch.flags import Division
from musc_jax import Config
from musc_jax.execution.programs import Programs


class Reached(Exception):
    """Ends the run before it reads a sample."""


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("division", "count"), [((1, None, Fraction(1), (0,)), 7), ((2, None, Fraction(1), (0,)), None)]
)
def test_programs_are_asked_for_before_a_sample_is_read(monkeypatch, tmp_path, division, count):
    def compile_ahead(config, programs, *, count, plan):
        asked.append((config.size, count, plan.whole_stages))
        programs.waiting(3, 9)
        raise Reached

    asked, shown = [], []
    monkeypatch.setattr(evaluation, "compile_ahead", compile_ahead)
    monkeypatch.setattr(evaluation.pipeline, "usual_mesh", lambda: None)
    dataset = SimpleNamespace(copies_count_once=False, accounts={}, names=lambda _: [str(i) for i in range(7)])
    dataset.samples = lambda *_, **__: pytest.fail("a sample was read")
    config = Config(modality="rgb", image_size=32, grouping=GROUPS, **make_backbones()).resolved()
    with pytest.raises(Reached):
        evaluation.run_category(
            config, dataset, "bolt", Division(*division), budget=10**9, cache_dir=tmp_path, skip_bad=False,
            programs=Programs(), bar=lambda *call: shown.append(call),
        )  # fmt: skip
    assert asked == [(32, count, True)]
    assert shown == [("compiling (first run)", 3, 9)]
