"""Pretrained checkpoints to Flax parameters: found, fetched, read safely, converted, checked, kept."""

from musc_jax.models import Backbone
from weights.backbones import BACKBONES, BackboneSpec
from weights.errors import WeightsError
from weights.sources import convert, default_folder, fetch, load

__all__ = ["BACKBONES", "Backbone", "BackboneSpec", "WeightsError", "convert", "default_folder", "fetch", "load"]
