"""Every option of the library is checked before the first sample is read, by name, with expected and received."""

import dataclasses
import inspect
import math

import jax
import numpy as np
import pytest
from scenes import GROUPS, make_backbones

from musc_jax import Config, pipeline
from musc_jax.config import AggregationConfig, ConfigError, GroupingConfig, RescoringConfig, ScoringConfig

# Without them, the session's own checks of types would speak first.
pytestmark = pytest.mark.usefixtures("unchecked")

WHOLE = [0, -1, 2.5, 3.0, True, "3", math.nan, [3], np.array([1, 2])]
NUMBER = [-1, math.nan, math.inf, "0.3", None, True, 1j, np.zeros(2)]
CONCERNS = {
    "grouping": GroupingConfig,
    "aggregation": AggregationConfig,
    "scoring": ScoringConfig,
    "rescoring": RescoringConfig,
}
# By class and field: values that are refused.
BAD = {
    (GroupingConfig, "num_groups"): WHOLE,
    (GroupingConfig, "group_size"): [*WHOLE, 2],
    (GroupingConfig, "k_iter"): WHOLE,
    (GroupingConfig, "curvature_threshold"): NUMBER,
    (AggregationConfig, "degrees"): [(), (0,), (1, 2.5), ("1",), "135", 3, None, (True,)],
    (ScoringConfig, "interval"): [*NUMBER, 0, 1.1],
    (ScoringConfig, "precision"): ["half", "", None, 1, ["full"], ("full",)],
    (ScoringConfig, "references"): WHOLE,
    (ScoringConfig, "nearest_images"): WHOLE,
    (ScoringConfig, "recurring"): ["on", "", None, True, ["filter"]],
    (ScoringConfig, "seed"): [-1, 1.5, "0", None, math.nan],
    (RescoringConfig, "windows"): [(), (0,), (1, 2.5), (-1, 7), "17", 7, None],
    (Config, "variant"): ["v2", None, 1, ["paper"]],
    (Config, "modality"): ["images", None, ("rgb",), {}],
    (Config, "image_size"): WHOLE,
    (Config, "blocks"): [(), (3, 3), (7, 3), (-1,), (0.5,), "3", 3, (None,)],
    (Config, "point_norm"): ["batch", 1, ["cloud"]],
    (Config, "ablate"): ["ipg", ("nothing",), (1,), None, 3, (["ipg"],)],
    (Config, "implementation"): ["fast", None, 1],
    (Config, "image_backbone"): ["dino_vitb8", 1],
    (Config, "point_backbone"): ["point_mae", 1],
    **{(Config, name): [None, {}, (1, 3, 5), Config] for name in CONCERNS},
}


def test_every_option_of_a_config_is_in_the_table():
    kinds = (Config, *CONCERNS.values())
    assert set(BAD) == {(kind, field.name) for kind in kinds for field in dataclasses.fields(kind)}, (
        "a field needs a row in BAD, with values that are refused"
    )


@pytest.mark.parametrize(
    ("kind", "name", "value"), [(*option, value) for option, values in BAD.items() for value in values]
)
def test_an_option_of_a_config_is_checked_where_it_is_given(kind, name, value):
    with pytest.raises(ConfigError, match=rf"^{name}: expected .*; received "):
        kind(**{name: value})


def test_what_is_the_same_for_people_is_the_same_config():
    """Lists and NumPy's numbers become plain ones: programs are looked up by them, and run.json holds them."""
    given = Config(
        image_size=np.int64(32),
        blocks=[np.int32(3), 7],
        ablate=["ia"],
        grouping=GroupingConfig(num_groups=np.int16(40), curvature_threshold=np.float64(0.5)),
        aggregation=AggregationConfig(degrees=np.array([1, 3])),
        scoring=ScoringConfig(interval=1, references=np.uint8(4)),
        rescoring=RescoringConfig(windows=range(1, 3)),
    )
    plain = Config(
        image_size=32,
        blocks=(3, 7),
        ablate=("ia",),
        grouping=GroupingConfig(num_groups=40, curvature_threshold=0.5),
        aggregation=AggregationConfig(degrees=(1, 3)),
        scoring=ScoringConfig(interval=1.0, references=4),
        rescoring=RescoringConfig(windows=(1, 2)),
    )
    assert repr(given) == repr(plain)


@pytest.fixture(scope="module")
def backbones():
    return make_backbones()


class Untouched:
    """Two samples that nobody may read."""

    def __len__(self):
        return 2

    def __iter__(self):
        pytest.fail("samples were read before the options were checked")

    __getitem__ = __iter__


ARGUMENTS = {
    "samples": [3, None],
    "config": [None, "released", {"modality": "rgb"}],
    "subsets": WHOLE,
    "batch_size": [*WHOLE, 1],
    "seed": [-1, 1.5, "0", None],
    "skip_bad": [1, None, "yes"],
    "memory_bytes": [0, *NUMBER[:4], True],
    "scratch_dir": ["/no/such/folder", 3],
    "mesh": [3, jax.make_mesh((1, 1), ("x", "y"), axis_types=(jax.sharding.AxisType.Auto,) * 2)],
    "programs": [{}, 3],
    "progress": [3, "bar"],
}


def test_every_argument_is_in_the_table():
    assert set(ARGUMENTS) == set(inspect.signature(pipeline.score).parameters)


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in ARGUMENTS.items() for value in values])
def test_arguments_are_checked_before_a_sample_is_read(backbones, name, value):
    config = Config(image_size=32, grouping=GROUPS, **backbones)
    with pytest.raises(ConfigError, match=rf"^{name}: expected .*; received "):
        pipeline.score(**{"samples": Untouched(), "config": config, name: value})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_backbone": None}, "image_backbone: modality"),
        ({"point_backbone": None}, "point_backbone: modality"),
        ({"image_size": 33}, "image_size: .* multiple, for example 32"),
        ({"blocks": (0, 1)}, "blocks: .* expected 3 image blocks, received 2"),
        ({"blocks": (0, 1, 9)}, "blocks: .* blocks 0 to 2"),
        ({"aggregation": AggregationConfig(degrees=(2,))}, "degrees: expected odd numbers .*; received 2"),
        ({"aggregation": AggregationConfig(degrees=(1, 41))}, "degrees: expected .* num_groups = 40; received 1,41"),
        ({"grouping": GroupingConfig(group_size=1025)}, "group_size: expected at most 1024 points.*; received 1025"),
        ({"ablate": ("cae",), "modality": "rgb"}, "ablate: 'cae' .* changes nothing"),
        ({"variant": "v1"}, "modality: version 1 scores images only"),
        ({"subsets": 2, "batch_size": 2}, "subsets, batch_size: expected one of them, received both"),
        ({"memory_bytes": 1000}, "raise --memory_gb"),
        ({"samples": [None]}, "N = 1: samples score each other"),
    ],
)
def test_options_that_do_not_fit_each_other(backbones, options, message):
    options = {"image_size": 32, "grouping": GROUPS} | backbones | options
    arguments = {name: options.pop(name) for name in ARGUMENTS if name in options}
    with pytest.raises(ValueError, match=message):
        pipeline.score(**({"samples": Untouched(), "config": Config(**options)} | arguments))


def test_references_are_drawn_or_similar():
    with pytest.raises(ConfigError, match="references, nearest_images: expected one of them, received both"):
        ScoringConfig(references=2, nearest_images=2)


@pytest.mark.parametrize("name", ["image_backbone", "point_backbone"])
def test_a_backbone_of_the_other_modality_is_refused(backbones, name):
    (other,) = (backbone for field, backbone in backbones.items() if field != name)
    with pytest.raises(ConfigError, match=f"{name}: {other.name} is the other modality's"):
        Config(**{name: other})
