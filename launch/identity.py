"""What tells runs apart: everything that changes a category's numbers."""

from typing import Any

import jax

from launch import distributed
from launch import flags as options
from launch import input_flags as inputs
from launch.output import digest_of
from launch.summary import versions
from musc_jax.config import Config, ConfigError
from musc_jax.data import Dataset


def _settings(config: Config, division: options.Division) -> dict[str, Any]:
    """Everything but the samples that changes a category's numbers."""
    device = jax.devices()[0]
    return {
        "config": config.as_dict(),
        "activation": options.ACTIVATION.value,
        "dtype": options.DTYPE.value,
        "versions": versions(),
        "device": [device.platform, device.device_kind],
        "division": None if division.plain else [*division[:2], str(division.normal_ratio), division.seeds],
    }


def category_digest(config: Config, dataset: Dataset, category: str, division: options.Division) -> str:
    """Digest of everything that changes a category's numbers."""
    return digest_of(_settings(config, division) | {"samples": dataset.digest(category)})


def expect_same(config: Config, dataset: Dataset, division: options.Division) -> None:
    """Refuses processes that would score different samples, or the same ones differently."""
    samples = {name: dataset.digest(name) for name in dataset.categories}
    settings = _settings(config, division)
    # By field, so that the one that differs is named; a backbone as a whole, as not every modality has both.
    fields: dict[str, Any] = {}
    for name, value in settings.pop("config").items():
        is_concern = isinstance(value, dict) and not name.endswith("_backbone")
        fields |= {f"{name}.{key}": part for key, part in value.items()} if is_concern else {name: value}
    different = distributed.differing(
        {
            "the categories or their samples (--data_dir, --categories, --limit)": digest_of(samples),
            "versions": digest_of(settings.pop("versions")),
            "devices": digest_of(settings.pop("device")),
            "--skip_bad": digest_of(inputs.SKIP_BAD.value),
            "other flags": digest_of(settings),
            **{name: digest_of(value) for name, value in fields.items()},
        }
    )
    if different:
        raise ConfigError(f"several processes: expected the same for all, but these differ: {', '.join(different)}")
