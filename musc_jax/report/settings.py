"""In what the settings of two runs differ, or those of a run and of published results; from what run.json holds."""

from collections.abc import Mapping, Set
from types import MappingProxyType
from typing import Any

from musc_jax.config import Config
from musc_jax.data import DATASETS
from musc_jax.report.comparison import Setting
from musc_jax.report.published_metrics import Published

# Flags of `launch.eval` that change numbers and are no fields of the config; each with its default.
FLAGS: Mapping[str, Any] = MappingProxyType({
    "limit": None, "features": None, "activation": None, "dtype": "float32",
    "subsets": 1, "batch_size": None, "normal_ratio": "1", "seeds": None,
    "normal_dir": [], "abnormal_dir": [], "mask_dir": [], "depth_dir": None, "normal_depth_dir": [],
    "abnormal_depth_dir": [], "extensions": None, "intrinsics": None, "depth_scale": None, "depth_kind": "depth",
    "pixel_pitch": [], "points_scale": None, "point_order": None, "invalid": None,
    "copies": None, "unmasked": "refuse", "unlabelled": False, "background": "white", "bits": None, "fit": "squash",
    "masks": "auto", "max_pixels": 64_000_000, "roi": None,
})  # fmt: skip
# Those whose effect run.json says by itself: dataset, samples, skipped, and the backbones with their digests.
RECORDED = frozenset(
    {"dataset", "categories", "skip_bad", "backbone", "point_backbone", "weights_rgb", "weights_points"}
)
# Where things are, and how it is computed; the numbers are the same.
WITHOUT_EFFECT = frozenset({
    "data_dir", "weights_dir", "output_dir", "cache_dir", "save", "memory_gb", "coordinator", "num_processes",
    "process_id", "profile", "replace",
})  # fmt: skip
_BACKBONES = ("image_backbone", "point_backbone")
_ONLY_POINTS = ("grouping", "point_norm")
# They decide which table is looked at, and are compared with that.
_CHOSEN = ("variant", "modality", "image_size", "image_backbone", "point_backbone")
# Random partitions of the published means over subsets.
_SEEDS = 10


def config_defaults() -> dict[str, Any]:
    """Every field of `Config` but the backbones by its dotted name, such as "scoring.interval", with its default."""
    return {name: value for name, value in _flat(Config().as_dict()).items() if name not in _BACKBONES}


def run_settings(run: Mapping[str, Any], reference: Mapping[str, Any]) -> tuple[Setting, ...]:
    """What may explain that two runs differ: dataset, config, weights, flags, samples, device, versions.

    Each is named once: flags that lead to a field of the config are not looked at, nor those that change no number.

    Args:
        run: What run.json holds. A field of the config or a flag that it lacks, because another version wrote it, has
            its default; anything else is None.
        reference: The same of the other run.
    """
    common = _inner(run, "samples").keys() & _inner(reference, "samples").keys()
    ours, theirs = _explaining(run, common), _explaining(reference, common)
    if ours["scoring.seed"] == theirs["scoring.seed"] and (_is_seeded(run) or _is_seeded(reference)):
        for settings, record in ((ours, run), (theirs, reference)):
            settings["flags.seed"] = _inner(record, "flags").get("seed", 0)
    return tuple(
        Setting(name, ours.get(name), theirs.get(name))
        for name in dict.fromkeys([*ours, *theirs])
        if ours.get(name) != theirs.get(name)
    )


def published_settings(run: Mapping[str, Any], usual: Mapping[str, Any], reference: Published) -> tuple[Setting, ...]:
    """In what a run is not what the published results were made with.

    Args:
        run: What run.json holds.
        usual: The config's usual values for the run's variant, modality and backbone, in `Config.as_dict`'s form.
        reference: What it is compared with.
    """
    config, flags = _inner(run, "config"), _inner(run, "flags")
    has_points = config.get("modality") != "rgb"
    found = []
    if config.get("variant") == "paper":
        # Both variants are compared with the same tables; who compares should know which of them made these.
        found.append(Setting("variant", "paper", "released, the authors' program"))
    if config.get("image_size") not in reference.sizes:
        found.append(Setting("image_size", config.get("image_size"), " or ".join(map(str, reference.sizes))))
    expected = _flat({k: v for k, v in usual.items() if has_points or k not in _ONLY_POINTS})
    actual = config_defaults() | _flat(config)
    found += [Setting(k, actual.get(k), v) for k, v in expected.items() if k not in _CHOSEN and actual.get(k) != v]
    for kind, flag in zip(_BACKBONES, ("weights_rgb", "weights_points"), strict=True):
        backbone = _inner(config, kind)
        if backbone.get("random"):
            found.append(Setting(f"{kind}.weights", "random", "pretrained"))
        elif backbone and flags.get(flag) not in (None, "pretrained"):
            # A file of one's own may hold anything under a backbone's name, also another architecture.
            found.append(Setting(f"{kind}.weights", flags[flag], "pretrained"))
    if has_points and (encoder := _inner(config, "point_backbone").get("name")) == "descriptors":
        found.append(Setting("point_backbone", encoder, "point_mae"))
    found += _division(flags, reference)
    found += _flag_settings(config, flags)
    left_out = sum(len(names) for names in _inner(run, "skipped").values() if isinstance(names, list))
    if left_out:
        found.append(Setting("skipped samples", left_out, 0))
    return tuple(found)


def division(run: Mapping[str, Any]) -> tuple[int, int | None]:
    """(subsets, batch size) of a run: into how many parts a category was divided, and how many samples met."""
    flags = _inner(run, "flags")
    subsets, batch_size = flags.get("subsets"), flags.get("batch_size")
    return (subsets if isinstance(subsets, int) else 1), (batch_size if isinstance(batch_size, int) else None)


def _division(flags: Mapping[str, Any], reference: Published) -> list[Setting]:
    subsets, batch_size = division({"flags": flags})
    found = []
    if subsets != reference.subsets:
        found.append(Setting("subsets", subsets, reference.subsets))
    if batch_size != reference.batch_size:
        found.append(Setting("batch_size", batch_size or "all", reference.batch_size or "all"))
    seeds = flags.get("seeds")
    if reference.subsets > 1 and isinstance(seeds, list) and len(seeds) != _SEEDS:
        found.append(Setting("seeds", seeds, f"{_SEEDS} random partitions"))
    return found


def _flag_settings(config: Mapping[str, Any], flags: Mapping[str, Any]) -> list[Setting]:
    """The flags that change numbers and are not in the config."""
    found = []
    if flags.get("limit") is not None:
        found.append(Setting("limit", flags["limit"], "all samples"))
    if flags.get("normal_ratio") not in (None, 1, "1", "1/1"):
        found.append(Setting("normal_ratio", flags["normal_ratio"], "all good samples"))
    if flags.get("dtype") not in (None, "float32"):
        found.append(Setting("dtype", flags["dtype"], "float32, or the float16 of the authors' program"))
    usual = "gelu" if config.get("image_size") == 518 else "quick_gelu"
    if flags.get("activation") not in (None, usual):
        found.append(Setting("activation", flags["activation"], usual))
    return found


def _is_seeded(run: Mapping[str, Any]) -> bool:
    """Whether --seed decided about more than the draw of references: the samples, or random weights."""
    random = any(_inner(_inner(run, "config"), kind).get("random") for kind in _BACKBONES)
    dataset = DATASETS.get(str(run.get("dataset")))
    return random or (dataset is not None and dataset.seeded)


def _explaining(run: Mapping[str, Any], categories: Set[str]) -> dict[str, Any]:
    defaults = config_defaults()
    config = dict(_inner(run, "config"))
    for kind in _BACKBONES:
        # Where the same parameters were found changes nothing; the digest says whether they are the same.
        config[kind] = {k: v for k, v in _inner(config, kind).items() if k != "source"}
    in_config = {name.rsplit(".", 1)[-1] for name in defaults}
    flags = {**FLAGS, **_inner(run, "flags")}
    flags = {k: v for k, v in flags.items() if k not in in_config | RECORDED | WITHOUT_EFFECT}
    device = {k: v for k, v in _inner(run, "device").items() if k != "count"}
    skipped = _inner(run, "skipped")
    left_out = {k: len(v) for k, v in skipped.items() if k in categories and isinstance(v, list) and v}
    samples = {k: v for k, v in _inner(run, "samples").items() if k in categories}
    return {
        "dataset": run.get("dataset"),
        **(defaults | _flat(config)),
        **_flat(flags, "flags."),
        **_flat(samples, "samples."),
        **_flat(left_out, "skipped."),
        **_flat(device, "device."),
        **_flat(_inner(run, "versions"), "versions."),
    }


def _inner(value: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = value.get(key)
    return found if isinstance(found, Mapping) else {}


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, inner in value.items():
        if isinstance(inner, Mapping):
            found |= _flat(inner, f"{prefix}{key}.")
        else:
            # As in JSON, which knows no tuples.
            found[prefix + key] = list(inner) if isinstance(inner, tuple) else inner
    return found
