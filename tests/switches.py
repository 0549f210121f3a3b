"""Every switch of a run: how it is set in the config, and what it is called in the statement.

A new field of `Config` or a new ablation needs a row in `SWITCHES`.
"""

from typing import Any, NamedTuple

import tiny

Changes = dict[str, Any]

# What a row departs from: of the config, of the statement.
BASES: dict[str, tuple[Changes, Changes]] = {
    "rgb": ({"modality": "rgb"}, {"points": False}),
    "points": ({"modality": "points", "image_size": 32}, {"images": False}),
    "both": ({}, {}),
    "apart": ({"ablate": ("cae",)}, {"enhancement": False}),
    "paper points": (
        {"modality": "points", "image_size": 32, "variant": "paper"},
        {"images": False, "variant": "paper", "point_norm": "checkpoint"},
    ),
    "paper": ({"variant": "paper"}, {"variant": "paper", "point_norm": "checkpoint"}),
    # All groups are pooled, so that tokens differ in length and a sample need not be most similar to itself.
    "smooth": (
        {"modality": "points", "image_size": 32, "grouping.curvature_threshold": 1.0},
        {"images": False, "curvature_threshold": 1.0},
    ),
    "v1": (
        {"modality": "rgb", "variant": "v1", "rescoring.windows": (1, 2, 3)},
        {"points": False, "variant": "v1", "image_blocks": (0, 1, 2, 3), "windows": (1, 2, 3)},
    ),
    "few": ({"modality": "rgb", "scoring.references": 2}, {"points": False, "references": 2}),
    "few of both": (
        {"variant": "paper", "scoring.references": 2},
        {"variant": "paper", "point_norm": "checkpoint", "references": 2},
    ),
}

# The runs in the golden file: a base, and what is changed, of the config and of the statement.
CASES: dict[str, tuple[str, Changes, Changes]] = {
    "rgb": ("rgb", {}, {}),
    "rgb_paper": ("rgb", {"variant": "paper"}, {"variant": "paper"}),
    "rgb_v1": ("v1", {}, {}),
    **{
        f"{base.replace(' ', '_')}_{norm}": (base, {"point_norm": norm}, {"point_norm": norm})
        for base in ("points", "paper points", "both", "paper")
        for norm in ("cloud", "checkpoint")
    },
}


class Row(NamedTuple):
    """One switch."""

    base: str
    config: Changes
    statement: Changes
    moved: float = 1e-2
    """By how much of the peak maps or sample scores become others, at the least."""
    tolerance: float = 1e-5

    @property
    def name(self):
        shown = ",".join(f"{k}={getattr(v, 'digest', v)}" for k, v in self.config.items())
        return f"{self.base}: {shown}".replace(" ", "")


def _ablate(base, name, statement):
    return Row(base, {"ablate": (name,)}, statement)


_MAXIMA = {"rescoring": False}
_OF_ALL = {"windows": (tiny.COUNT,)}
_OTHER_IMAGE = {"image_backbone": tiny.image_backbone(2)}
_OTHER_POINTS = {"point_backbone": tiny.point_backbone(1.1)}

SWITCHES = [
    Row("both", {"modality": "rgb"}, {"points": False}),
    Row("both", {"modality": "points", "image_size": 32}, {"images": False}),
    # Images
    Row("rgb", {"variant": "paper"}, {"variant": "paper"}),
    Row("rgb", {"image_size": 24}, {"size": 24}),
    Row("rgb", {"blocks": (0, 2, 3)}, {"image_blocks": (0, 2, 3)}),
    Row("rgb", {"aggregation.degrees": (1, 3)}, {"degrees": (1, 3)}),
    Row("rgb", {"scoring.interval": 0.5}, {"interval": 0.5}),
    # A value that float32 rounds the other way is 1 / 256 off.
    Row("rgb", {"scoring.precision": "fast"}, {"precision": "fast"}, moved=3e-4, tolerance=5e-5),
    # A CPU computes "full"; that the field arrives shows in the row above.
    Row("rgb", {"scoring.precision": "accurate"}, {}, moved=0),
    Row("rgb", {"scoring.references": 2}, {"references": 2}),
    Row("few", {"scoring.seed": 1}, {"seed": 1}),
    Row("rgb", {"scoring.nearest_images": 2}, {"nearest_images": 2}),
    # Five samples are too few to say that anything recurs; tests/test_recurring.py has more.
    Row("rgb", {"scoring.recurring": "filter"}, {}, moved=0),
    Row("rgb", {"rescoring.windows": (2, 3)}, {"windows": (2, 3)}),
    Row("rgb", _OTHER_IMAGE, _OTHER_IMAGE),
    _ablate("rgb", "swpooling", {"weighting": False}),
    _ablate("rgb", "ia", {"interval": 1.0}),
    _ablate("rgb", "rescoring", _MAXIMA),
    _ablate("rgb", "window", _OF_ALL),
    # Points
    Row("points", {"variant": "paper"}, {"variant": "paper", "point_norm": "checkpoint"}),
    Row("smooth", {"variant": "paper"}, {"variant": "paper", "point_norm": "checkpoint"}),
    Row("points", {"point_norm": "checkpoint"}, {"point_norm": "checkpoint"}),
    Row("paper points", {"point_norm": "cloud"}, {"point_norm": "cloud"}),
    Row("points", {"blocks": (0, 2)}, {"point_blocks": (0, 2)}),
    Row("points", {"grouping.num_groups": 12}, {"num_groups": 12}),
    Row("points", {"grouping.group_size": 10}, {"group_size": 10}),
    Row("points", {"grouping.k_iter": 4}, {"k_iter": 4}),
    Row("points", {"grouping.curvature_threshold": 0.015}, {"curvature_threshold": 0.015}),
    Row("points", {"aggregation.degrees": (1, 2, 4)}, {"degrees": (1, 2, 4)}),
    Row("paper points", {"rescoring.windows": (1, 2)}, {"windows": (1, 2)}),
    Row("points", _OTHER_POINTS, _OTHER_POINTS),
    _ablate("points", "ipg", {"expansion": False}),
    _ablate("paper points", "ipg", {"expansion": False}),
    _ablate("points", "swpooling", {"weighting": False}),
    # Both
    Row("both", {"variant": "paper"}, {"variant": "paper", "point_norm": "checkpoint"}),
    Row("both", {"point_norm": "checkpoint"}, {"point_norm": "checkpoint"}),
    Row("paper", {"point_norm": "cloud"}, {"point_norm": "cloud"}),
    Row("both", {"scoring.references": 2}, {"references": 2}),
    Row("both", {"scoring.references": 1}, {"references": 1}),
    Row("points", {"scoring.nearest_images": 2}, {"nearest_images": 2}),
    Row("paper", {"scoring.nearest_images": 2}, {"nearest_images": 2}),
    # The same numbers, slower; `test_switches` looks at the programs.
    Row("both", {"implementation": "plain"}, {}, moved=0),
    Row("paper", {"blocks": (0, 2, 3)}, {"image_blocks": (0, 2, 3)}),
    Row("paper", {"scoring.interval": 0.5}, {"interval": 0.5}),
    Row("apart", {"scoring.precision": "fast"}, {"precision": "fast"}, moved=3e-4, tolerance=5e-5),
    Row("few of both", {"scoring.seed": 1}, {"seed": 1}),
    _ablate("both", "cae", {"enhancement": False}),
    _ablate("paper", "cae", {"enhancement": False}),
    _ablate("both", "trust", {"trust": False}),
    _ablate("paper", "trust", {"trust": False}),
    _ablate("paper", "ia", {"interval": 1.0}),
    _ablate("paper", "rescoring", _MAXIMA),
    _ablate("paper", "window", _OF_ALL),
    # Version 1
    Row("rgb", {"variant": "v1"}, {"variant": "v1", "image_blocks": (0, 1, 2, 3)}),
    Row("v1", {"blocks": (1, 3)}, {"image_blocks": (1, 3)}),
    Row("v1", {"aggregation.degrees": (3,)}, {"degrees": (3,)}),
    Row("v1", {"scoring.interval": 0.5}, {"interval": 0.5}),
    Row("v1", {"rescoring.windows": (1, 4)}, {"windows": (1, 4)}),
    _ablate("v1", "ia", {"interval": 1.0}),
    _ablate("v1", "rescoring", _MAXIMA),
    _ablate("v1", "window", _OF_ALL),
]


def items(changes):
    """As `tiny` takes them."""
    return tuple(sorted(changes.items()))


def changed(base, config, statement):
    """The items of both when something is changed in a base."""
    return items(BASES[base][0] | config), items(BASES[base][1] | statement)
