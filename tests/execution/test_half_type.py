"""Which half precision "fast" rounds to: by platform and not by a device's name, on the host as in lowering."""

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scenes import make_backbones, make_samples

from musc_jax import Config, pipeline
from musc_jax.config import ScoringConfig
from musc_jax.kernels.rounding import in_half
from musc_jax.resolved import Device

# As devices describe themselves, and the platform that a program is lowered for there.
DEVICES = {
    "cuda": ("gpu", "PJRT C API\ncuda 12090", "NVIDIA H100 80GB HBM3", "float16"),
    "cuda with another name": ("gpu", "cuda 13000", "Tesla T4", "float16"),
    "rocm": ("gpu", "PJRT C API\nrocm 60300", "AMD Instinct MI300X", "bfloat16"),
    "rocm with a misleading name": ("gpu", "PJRT C API\nrocm 60300", "not an NVIDIA device", "bfloat16"),
    "tpu": ("tpu", "PJRT C API\nTFRT TPU v5 lite", "TPU v5 lite", "bfloat16"),
    "cpu": ("cpu", "cpu", "cpu", "bfloat16"),
}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", DEVICES)
def test_the_platform_decides(name):
    platform, version, kind, expected = DEVICES[name]
    client = SimpleNamespace(platform=platform, platform_version=version)
    assert Device.of(SimpleNamespace(platform=platform, device_kind=kind, client=client)).half_type == expected


@pytest.mark.parametrize("platform", ["cuda", "rocm", "tpu", "cpu"])
def test_a_program_that_is_not_told_takes_the_same(platform):
    program = jax.jit(lambda x: in_half(lambda half: jnp.sum(half.astype(jnp.float32)), x))
    text = jax.export.export(program, platforms=[platform])(jax.ShapeDtypeStruct((3, 2), jnp.float32)).mlir_module()
    kinds = {"float16": "xf16>", "bfloat16": "xbf16>"}
    assert [name for name, kind in kinds.items() if kind in text] == [DEVICES[platform][3]]


def test_the_pipeline_asks_the_device_it_scores_on(monkeypatch):
    asked, scores, plain = [], {}, Device.of
    config = Config(modality="rgb", image_size=32, scoring=ScoringConfig(precision="fast"), **make_backbones())
    for chosen in ("float16", "bfloat16"):

        def of(device, chosen=chosen):
            asked.append(device)
            return dataclasses.replace(plain(device), half_type=chosen)

        monkeypatch.setattr(Device, "of", of)
        scores[chosen] = pipeline.score(make_samples(3), config).patch_scores.image
    assert asked == [jax.devices()[0]] * 2
    assert np.abs(scores["float16"] - scores["bfloat16"]).max() > 0
