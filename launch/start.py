"""What scoring begins with: devices, backbones, samples, and what is said about them."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import jax

import weights
from launch import command, distributed
from launch import flags as options
from launch import input_flags as inputs
from launch.command import say
from launch.output import OutputError
from launch.progress import ProgressBar
from musc_jax.config import Config, ConfigError
from musc_jax.copies import expect_several
from musc_jax.data import DataError, Dataset, open_dataset
from musc_jax.data.features import FeatureFolder, open_features
from musc_jax.execution.memory import BudgetError
from musc_jax.models import descriptors_backbone
from musc_jax.resolved import Resolved

RANDOM_NOTE = "random weights: the figures say nothing about the method's accuracy with pretrained ones"
_PLATFORM_SETTINGS = ("JAX_PLATFORMS", "JAX_NUM_CPU_DEVICES", "CUDA_VISIBLE_DEVICES")
BAD_INPUT = (BudgetError, ConfigError, DataError, OutputError, distributed.LostProcessError, weights.WeightsError)
"""What its input can be blamed for."""


def expect_devices() -> None:
    """Refuses a platform, asked for by JAX's own variables, that JAX cannot use here."""
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:
        reason = (str(error).splitlines() or ["no plugin for it is installed"])[0]
        asked = " ".join(f"{name}={os.environ[name]}" for name in _PLATFORM_SETTINGS if name in os.environ)
        raise ConfigError(
            f"{asked or 'JAX'}: JAX has no device to run on ({reason}); unset what asks for it, or install what brings "
            "it, such as the extra `cuda` or `tpu`"
        ) from None


def given_features() -> FeatureFolder | None:
    """What --features leads to, every file of it looked into; None without it.

    Raises:
        DataError: Files that cannot be used.
    """
    if options.FEATURES.value is None:
        return None
    bar = ProgressBar()
    try:
        return open_features(
            command.path("features", options.FEATURES.value),
            categories=inputs.CATEGORIES.value,
            skip_bad=inputs.SKIP_BAD.value,
            progress=bar,
        )
    finally:
        bar.close()


def with_backbones(config: Config, cache_dir: Path, features: FeatureFolder | None = None) -> Config:
    """The config with parameters, or with tokens in their place.

    What is missing for one backbone is said together with what is for the other.
    """
    source = options.weight_sources(features)
    found: dict[str, Any] = {}
    missing: list[str] = []
    for field, where, name in (
        ("image_backbone", source.image, options.BACKBONE.value),
        ("point_backbone", source.points, "point_mae"),
    ):
        if where is None:
            continue
        bar = ProgressBar(f"{name}: ", in_bytes=True)
        try:
            found[field] = options.load_backbone(where, name, cache_dir, report=say, progress=bar)
        except weights.WeightsError as error:
            missing.append(str(error))
        finally:
            bar.close()
    if missing:
        raise weights.WeightsError("\nerror: ".join(missing))
    if options.uses_descriptors(features):
        found["point_backbone"] = descriptors_backbone()
    return dataclasses.replace(config, **found, **({} if features is None else _tokens(config, features)))


def _tokens(config: Config, features: FeatureFolder) -> dict[str, Any]:
    """What stands in a backbone's place."""
    found = {}
    if config.uses_images and features.image is not None:
        found["image_backbone"] = features.image
    if config.uses_points and features.points is not None:
        found["point_backbone"] = features.points
        if features.size and config.image_size not in (None, features.size):
            raise ConfigError(
                f"--image_size: the features' groups lie in point maps of {features.size}, received "
                f"{config.image_size}; leave it out"
            )
    return found


def open_samples(config: Resolved, cache_dir: Path, features: FeatureFolder | None = None) -> Dataset:
    """The dataset that the flags name, each of its samples checked; with their tokens where these are given."""
    bar = ProgressBar()
    try:
        dataset = open_dataset(
            inputs.DATASET.value,
            data_dir=command.expanded(inputs.DATA_DIR.value),
            categories=inputs.CATEGORIES.value,
            modality=config.config.modality,
            cache_dir=cache_dir,
            limit=inputs.LIMIT.value,
            skip_bad=inputs.SKIP_BAD.value,
            seed=options.SEED.value,
            progress=bar,
            folder=inputs.folder_layout(),
            copies=inputs.COPIES.value,
            working=(config.size, 1 if config.image is None else config.image.patch_size),
        )
    finally:
        bar.close()
    if features is not None:
        dataset = features.join(dataset, whole=inputs.LIMIT.value is None, skip_bad=inputs.SKIP_BAD.value)
    for category in dataset.categories if dataset.copies_count_once else ():
        expect_several(category, dataset.names(category), dataset.copies(category))
    return dataset


def tell(dataset: Dataset) -> None:
    """Says what files were read as, what is odd about them, and what is left out."""
    for category, account in dataset.accounts.items():
        for line in account.lines:
            say(f"{category}: {line}")
    for warning in dataset.warnings:
        say(f"warning: {warning}")
    for category, findings in dataset.health.items():
        for finding in findings:
            say(f"health of {category}: {finding}")
    for category, problems in dataset.skipped.items():
        for problem in problems:
            say(f"left out of {category}: {problem}")
