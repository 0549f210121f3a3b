"""Each switch of a config changes exactly its field of what is resolved; what the device decides is decided there."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
from scenes import GROUPS, make_backbones, make_samples

from musc_jax import Config, pipeline
from musc_jax.config import AggregationConfig, GroupingConfig, RescoringConfig, ScoringConfig
from musc_jax.models import Backbone
from musc_jax.resolved import Device


@pytest.fixture(scope="module")
def backbones():
    return make_backbones()


def fields(value, prefix=""):
    """Every field by its dotted name; backbones and the config itself are not looked into."""
    found = {}
    for field in dataclasses.fields(value):
        inner, name = getattr(value, field.name), f"{prefix}{field.name}"
        if isinstance(inner, Backbone | Config):
            continue
        if dataclasses.is_dataclass(inner):
            found |= fields(inner, f"{name}.")
        else:
            found[name] = inner
    return found


def ablated(name):
    return {"ablate": (name,)}


SWITCHES = {
    "ipg": (ablated("ipg"), {"points.expansion"}),
    "swpooling": (ablated("swpooling"), {"image.similarity_weighting", "points.similarity_weighting"}),
    "ia": (ablated("ia"), {"scoring.interval"}),
    "cae": (ablated("cae"), {"scoring.enhancement"}),
    "trust": (ablated("trust"), {"scoring.trust"}),
    "rescoring": (ablated("rescoring"), {"rescoring.enabled"}),
    "window": (ablated("window"), {"rescoring.windowed"}),
    "variant": (
        {"variant": "paper"},
        {"image.variant", "points.variant", "points.point_norm", "scoring.variant", "rescoring.variant"},
    ),
    "point_norm": ({"point_norm": "checkpoint"}, {"points.point_norm"}),
    "image_size": ({"image_size": 40}, {"size", "image.size"}),
    "blocks": ({"blocks": (0, 1, 2)}, set()),  # the default of three blocks
    "num_groups": ({"grouping": dataclasses.replace(GROUPS, num_groups=30)}, {"points.num_groups"}),
    "group_size": ({"grouping": dataclasses.replace(GROUPS, group_size=20)}, {"points.group_size"}),
    "k_iter": ({"grouping": dataclasses.replace(GROUPS, k_iter=9)}, {"points.k_iter"}),
    "curvature_threshold": (
        {"grouping": dataclasses.replace(GROUPS, curvature_threshold=0.5)},
        {"points.curvature_threshold"},
    ),
    "degrees": ({"aggregation": AggregationConfig((1, 3))}, {"image.degrees", "points.degrees"}),
    "interval": ({"scoring": ScoringConfig(interval=0.5)}, {"scoring.interval"}),
    "precision": ({"scoring": ScoringConfig(precision="fast")}, {"scoring.precision"}),
    "references": ({"scoring": ScoringConfig(references=3)}, {"scoring.references"}),
    "nearest_images": ({"scoring": ScoringConfig(nearest_images=3)}, {"scoring.nearest_images"}),
    "recurring": ({"scoring": ScoringConfig(recurring="filter")}, {"scoring.recurring"}),
    "seed": ({"scoring": ScoringConfig(seed=3)}, {"scoring.seed"}),
    "windows": ({"rescoring": RescoringConfig((1, 2))}, {"rescoring.windows"}),
    "implementation": (
        {"implementation": "plain"},
        {"image.implementation", "points.implementation", "scoring.implementation", "implementation"},
    ),
}


@pytest.mark.parametrize("name", SWITCHES)
def test_a_switch_changes_its_field_and_no_other(backbones, name):
    change, expected = SWITCHES[name]
    usual = {"image_size": 32, "grouping": GROUPS, **backbones}
    plain, changed = (fields(Config(**(usual | more)).resolved()) for more in ({}, change))
    assert plain.keys() == changed.keys()
    assert {key for key in plain if plain[key] != changed[key]} == expected


def test_every_field_of_the_config_is_a_switch_here():
    names = {"variant", "image_size", "blocks", "point_norm", "implementation"}  # modality: whole paths come and go
    concerns = (GroupingConfig, AggregationConfig, ScoringConfig, RescoringConfig)
    known = names | {field.name for concern in concerns for field in dataclasses.fields(concern)}
    assert known <= set(SWITCHES), "a field needs a row in SWITCHES, with what of `Resolved` it changes"
    own = {field.name for field in dataclasses.fields(Config)}
    concerned = {"grouping", "aggregation", "scoring", "rescoring"}
    assert own - concerned - {"modality", "ablate", "image_backbone", "point_backbone"} == names


def test_a_modality_is_a_path(backbones):
    for modality, image, points in (("rgb", True, False), ("points", False, True), ("rgb+points", True, True)):
        resolved = Config(modality=modality, image_size=32, grouping=GROUPS, **backbones).resolved()
        assert (resolved.image is not None, resolved.points is not None) == (image, points)
    assert Config.v1(image_size=32, image_backbone=backbones["image_backbone"]).resolved().image.version1


def device(platform, version="", capability=None):
    return SimpleNamespace(
        platform=platform, client=SimpleNamespace(platform_version=version), compute_capability=capability
    )


@pytest.mark.usefixtures("unchecked")
def test_what_the_device_decides(backbones):
    config = Config(image_size=32, grouping=GROUPS, **backbones)
    found = {
        name: config.resolved(given)
        for name, given in (
            ("cpu", device("cpu")),
            ("cuda", device("gpu", "cuda 13000", "9.0")),
            ("rocm", device("gpu", "rocm 60200")),
            ("tpu", device("tpu")),
        )
    }
    assert {name: r.scoring.half_type for name, r in found.items()} == {
        "cpu": "bfloat16", "cuda": "float16", "rocm": "bfloat16", "tpu": "bfloat16",
    }  # fmt: skip
    assert {name: r.device.platform for name, r in found.items()} == {name: name for name in found}
    assert found["cuda"].device.capability == "9.0"
    assert {name: r.image.at_once for name, r in found.items()} == {"cpu": 1, "cuda": 16, "rocm": 16, "tpu": 16}
    for sizes in (
        {n: r.points.at_once for n, r in found.items()},
        {n: r.device.clouds_at_once for n, r in found.items()},
    ):
        assert sizes == {"cpu": 1, "cuda": 32, "rocm": 32, "tpu": 32}
    for name, elsewhere in (("tokens_at_once", 6272), ("samples_at_once", 32)):
        for part in ("device", "scoring"):
            sizes = {n: getattr(getattr(r, part), name) for n, r in found.items()}
            assert sizes.pop("cpu") == {"tokens_at_once": 0, "samples_at_once": 1}[name]
            assert set(sizes.values()) == {elsewhere}
    assert Device.of(device("cpu")).capability == ""


@pytest.mark.parametrize(("modality", "ablate", "tolerance"), [("points", (), 1e-5), ("rgb+points", ("cae",), 1e-5)])
def test_the_statements_give_the_maps_of_the_forms(backbones, modality, ablate, tolerance):
    usual = Config(modality=modality, ablate=ablate, image_size=32, grouping=GROUPS, **backbones)
    samples = make_samples(4)
    want = pipeline.score(samples, usual)
    got = pipeline.score(samples, dataclasses.replace(usual, implementation="plain"))
    np.testing.assert_allclose(got.anomaly_maps, want.anomaly_maps, atol=tolerance * want.anomaly_maps.max())
    np.testing.assert_allclose(got.pred_scores, want.pred_scores, atol=1e-4)
