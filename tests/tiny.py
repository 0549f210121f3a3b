"""A category of a few pixels and two narrow backbones, scored by the library and by the statement.

The scene is one whose every decision - a pick, a neighbour, a rank, a maximum - float32 takes as float64 does; see
`golden/make_tiny_run.py`, which looks for such a scene.
"""

import dataclasses
import functools
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from statement import margins
from statement.whole import Options, Outcome, run

import musc_jax
import weights
from musc_jax import Config, pipeline
from musc_jax.config import GroupingConfig
from musc_jax.data import Sample
from musc_jax.execution.programs import Programs
from musc_jax.models import Backbone, VisionTransformer, VitConfig

SEED = 27
COUNT = 5
GROUPS = GroupingConfig(num_groups=16, group_size=12, k_iter=5, curvature_threshold=0.01)


def make_samples(size, seed):
    """Rings, smooth on the left and rough on the right, with a point in the middle; the last one with a bump."""
    rng, made = np.random.default_rng(seed), []
    y, x = np.mgrid[:size, :size] / size - 0.5
    for i in range(COUNT):
        bump = ((x - 0.2) ** 2 + (y + 0.15) ** 2 < 0.02) & (i == COUNT - 1)
        color = np.stack([160 + 60 * np.sin(9 * x), 110 + 50 * np.cos(7 * y), 70 + 40 * x], -1)
        image = np.where(bump[..., None], [50, 60, 200], color) + rng.integers(0, 120, (size, size, 3))
        # Off the grid, where many distances would be equal.
        across, down = rng.uniform(-0.2, 0.2, (2, size, size)) / size
        rough = (0.002 + 0.01 * (x + 0.5)) * rng.normal(size=x.shape)
        depth = 1.5 + 0.3 * (x**2 + y**2) - 0.12 * bump + rough
        from_middle = (x - 0.0625) ** 2 + y**2
        ring = (from_middle > 0.02) & (from_middle < 0.14)
        points = np.where(ring[..., None], np.stack([x + across, y + down, depth], -1), 0)
        # So far from all others that it is a centre, unless the released sampler leaves it out.
        points[np.unravel_index(from_middle.argmin(), ring.shape)] = points[ring].mean(0)
        points = points.astype(np.float32)
        made.append(Sample(f"{i}", image.astype(np.uint8), points, bump, int(bump.any()), Path(f"{i}.png")))
    return made


@functools.cache
def image_backbone(seed=1):
    """Four blocks of 32 channels, with biases and scales that are all at work."""
    rng = np.random.default_rng(seed)

    def values(*shape, scale=1.0, about=0.0):
        return (about + scale * rng.normal(size=shape)).astype(np.float32)

    def dense(inputs, outputs):
        return {"kernel": values(inputs, outputs, scale=inputs**-0.5), "bias": values(outputs, scale=0.2)}

    def norm():
        return {"scale": values(32, scale=0.2, about=1), "bias": values(32, scale=0.2)}

    params = {"patch_embedding": dense(192, 32), "norm": norm()}
    params |= {"class_token": values(32), "position_embedding": values(17, 32, scale=0.3)}
    for i in range(4):
        params[f"blocks_{i}"] = {
            "norm1": norm(),
            "qkv": dense(32, 96),
            "proj": dense(32, 32),
            "norm2": norm(),
            "fc1": dense(32, 48),
            "fc2": dense(48, 32),
        }
    return Backbone(
        module=VisionTransformer(VitConfig(width=32, depth=4, heads=2, mlp_width=48, patch_size=8, native_grid=4)),
        variables={"params": params},
        name="dino_vits8",
        source="tests",
        digest=f"{seed}",
        random=True,
        blocks=(0, 1, 3),
        v1_blocks=(0, 1, 2, 3),
        image_size=32,
        mean=(0.5, 0.4, 0.3),
        std=(0.2, 0.25, 0.3),
    )


@functools.cache
def point_backbone(scale=1.0):
    """Three blocks of 24 channels; with another scale another one.

    The first kernel is enlarged: beside the statistics of its checkpoint, groups as small as these would be all alike.
    """
    backbone = weights.load(Path(__file__).parent / "golden" / "point_mae_tiny.pth", "point_mae", heads=3)
    variables = jax.tree.map(lambda x: np.asarray(x) * np.float32(scale), backbone.variables)
    variables["params"]["encoder"]["conv1"]["kernel"] *= np.float32(40)
    return dataclasses.replace(backbone, variables=variables, digest=f"{scale}")


class Watched(Programs):
    """Programs that keep what re-scoring compares, and by stage which implementations its programs are made of."""

    def __init__(self):
        super().__init__()
        self.salient, self.implementations = None, {}

    def run(self, stage, function, *args, **options):
        if function is musc_jax.rescore:
            self.salient = np.asarray(args[1])
        found = {getattr(value, "implementation", None) for value in options.values()} | {options.get("implementation")}
        self.implementations.setdefault(stage, set()).update(found - {None})
        return super().run(stage, function, *args, **options)


# One for all configs: most of their programs are the same.
PROGRAMS = Watched()


def make_config(**changes):
    """A config of the tiny run; dots lead to the fields of a concern."""
    usual = {"grouping": GROUPS, "image_backbone": image_backbone(), "point_backbone": point_backbone()}
    plain = {name: value for name, value in changes.items() if "." not in name}
    config = Config(**(usual | plain))
    for name, value in changes.items():
        concern, dot, field = name.partition(".")
        if dot:
            inner = dataclasses.replace(getattr(config, concern), **{field: value})
            config = dataclasses.replace(config, **{concern: inner})
    return config


@functools.cache
def samples(size, seed=SEED):
    return make_samples(size, seed)


class Scored(NamedTuple):
    """What the library says, and by stage which implementations its programs are made of."""

    outcome: Outcome
    implementations: dict


@functools.cache
def score(changes, **options):
    """What the library says; `changes` are items of `make_config`, `options` those of `pipeline.score`."""
    config = make_config(**dict(changes))
    PROGRAMS.salient, PROGRAMS.implementations = None, {}
    results = pipeline.score(samples(config.resolved().size), config, programs=PROGRAMS, **options)
    patches = (None if scores is None else np.asarray(scores) for scores in results.patch_scores)
    outcome = Outcome(results.anomaly_maps, results.pred_scores, results.max_scores, *patches, PROGRAMS.salient)
    return Scored(outcome, PROGRAMS.implementations)


class Stated(NamedTuple):
    """What the statement says, and the least gap of its decisions by kind."""

    outcome: Outcome
    gaps: dict


@functools.cache
def state(changes, seed=SEED):
    """What the statement says; `changes` are items of its `Options`, and backbones."""
    options = {"image_backbone": image_backbone(), "point_backbone": point_backbone()} | dict(changes)
    image, points = options.pop("image_backbone"), options.pop("point_backbone")
    options = Options(**options)
    with margins.measured() as gaps:
        outcome = run(samples(options.size, seed), image, points, options)
    return Stated(outcome, gaps)


def assert_same(got, want, tolerance=1e-5):
    """Every array that is wanted, to a share of its peak.

    float32 loses some 1e-7 a step of what is compared, and the square root of a small distance loses more: measured are
    1e-6. Where ranks are compared as well it is no more, as long as no decision is close.
    """
    highest = want["max_scores"]
    for name, values in want.items():
        if values is None:
            assert got[name] is None, name
            continue
        share = tolerance
        if name == "pred_scores" and want.get("salient") is not None:
            # These are the maxima stretched to 0 to 1, and so are their errors.
            share *= highest.max() / (highest.max() - highest.min())
        assert got[name].shape == values.shape, name
        np.testing.assert_allclose(got[name], values, rtol=0, atol=share * np.abs(values).max(), err_msg=name)


def thinned(outcome):
    """The arrays as the golden file has them, with every third pixel each way: maps are smooth."""
    arrays = {name: values for name, values in outcome._asdict().items() if values is not None}
    return arrays | {"anomaly_maps": outcome.anomaly_maps[:, 1::3, 1::3]}
