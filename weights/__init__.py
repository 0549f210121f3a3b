"""Pretrained checkpoints to Flax parameters: found, read without executing anything, converted, checked."""

from musc_jax.models import Backbone
from weights.backbones import BACKBONES, BackboneSpec
from weights.errors import WeightsError
from weights.sources import load

__all__ = ["BACKBONES", "Backbone", "BackboneSpec", "WeightsError", "load"]
