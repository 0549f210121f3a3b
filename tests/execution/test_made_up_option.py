"""A scoring option that nobody has heard of: config, flag and finish say all that there is to say about it."""

import dataclasses

import numpy as np
import pytest
from scenes import GROUPS, make_backbones, make_samples

from musc_jax import Config
from musc_jax.crossmodal import EnhanceAndAverage
from musc_jax.execution.devices import make_mesh
from musc_jax.execution.extraction import extract
from musc_jax.execution.memory import Plan
from musc_jax.execution.programs import Programs
from musc_jax.execution.scoring import score_patches
from musc_jax.mutual import AverageInterval
from musc_jax.resolved import Scoring


@dataclasses.dataclass(frozen=True)
class AveragePowers(AverageInterval):
    """The interval average of powers of the scores."""

    power: int = 1

    def of_each(self, scores):
        return super().of_each(scores**self.power)


@dataclasses.dataclass(frozen=True)
class Powered(Scoring):
    """What `Config.resolved()` would give, with one field more."""

    power: int = 3

    def finish(self, *, both):
        average = AveragePowers(self.interval, self.implementation, power=self.power)
        return EnhanceAndAverage(average, self.variant, self.enhancement, self.trust) if both else average


STREAMED = Plan(True, False, 2, 3, 0, 0, 0)


@pytest.fixture(scope="module")
def programs():
    return Programs()


@pytest.fixture(scope="module", params=["rgb", "rgb+points"])
def configs(request):
    """What is resolved without the option, and with it."""
    backbones = make_backbones()
    usual = Config(modality=request.param, image_size=32, grouping=GROUPS, **backbones).resolved()
    return usual, dataclasses.replace(usual, scoring=Powered(**dataclasses.asdict(usual.scoring)))


def naive(features, power):
    """Patch scores of images alone, the mean over the stages."""
    stages = []
    for z in (np.asarray(stage, np.float64) for stage in features.image.stages):
        distances = np.linalg.norm(z[:, None, :, None] - z[None, :, None], axis=-1).min(-1) ** power
        others = [np.sort(np.delete(rows, i, axis=0), axis=0) for i, rows in enumerate(distances)]
        stages.append([rows[: max(1, int(len(rows) * 0.3))].mean(0) for rows in others])
    return np.mean(stages, axis=0)


@pytest.mark.parametrize("schedule", ["dense", "streamed", "sharded"])
def test_nothing_else_has_to_know_a_scoring_option(configs, schedule, programs):
    usual, powered = configs
    mesh = make_mesh() if schedule == "sharded" else None
    features, _ = extract(make_samples(4), usual, programs, mesh=mesh)
    plan = STREAMED if schedule == "streamed" else None
    without, given = (score_patches(features, config, programs, plan=plan) for config in configs)
    if usual.points is None:
        np.testing.assert_allclose(given.image, naive(features, 3), atol=1e-5)
        np.testing.assert_allclose(without.image, naive(features, 1), atol=1e-5)
        return
    dense, _ = extract(make_samples(4), usual, programs)
    want = score_patches(dense, powered, programs)
    for got, wanted, other in zip(given, want, without, strict=True):
        # Rank matching swaps neighbours in rank on a rounding.
        np.testing.assert_allclose(got, wanted, atol=2e-3 * float(wanted.max()))
        assert np.abs(got - other).max() > 0.1 * other.max()
