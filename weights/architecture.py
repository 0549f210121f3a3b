"""Which architecture a checkpoint holds: what its shapes say, checked against config.json and the table."""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from musc_jax._text import shown
from musc_jax.models import PointTransformerConfig, VitConfig
from musc_jax.models.layers import ACTIVATIONS
from weights.backbones import BACKBONES, BackboneSpec
from weights.errors import WeightsError
from weights.files import Checkpoint, Entry
from weights.rules import Scheme, Shape
from weights.schemes import named_like

Architecture = VitConfig | PointTransformerConfig
# No backbone comes near; a file that says more would keep the library busy describing it.
_MOST = {"depth": 100, "width": 1 << 14, "mlp_width": 1 << 16, "native_grid": 512, "num_registers": 64}
_KINDS = {
    "dino": ("vit",),
    "dinov2": ("dinov2", "dinov2_with_registers"),
    "dinov3": ("dinov3_vit",),
    "lingbot": ("lingbot_vision", "dinov3_vit"),
    "tipsv2": ("tipsv2_vision_model", "tipsv2"),
    "clip": ("clip", "clip_vision_model"),
}
_SETTINGS = {
    "width": "hidden_size",
    "depth": "num_hidden_layers",
    "heads": "num_attention_heads",
    "patch_size": "patch_size",
    "mlp_width": "intermediate_size",
}
# What must agree for two models to be the same one.
_SHAPE_FIELDS = ("width", "depth", "mlp_width", "patch_size", "native_grid", "num_registers", "gated")


def describe(
    spec: BackboneSpec,
    scheme: Scheme,
    entries: Mapping[str, Entry],
    checkpoint: Checkpoint,
    overrides: Mapping[str, Any],
) -> Architecture:
    """The architecture that a checkpoint holds.

    Sizes are read off the shapes; config.json must agree, and says what no shape shows: heads, epsilon, activation.
    Without it a model of another width than the named one needs `heads` in the overrides.

    Raises:
        WeightsError: The shapes say another backbone of the table, or nothing sensible; config.json disagrees.
    """
    shapes = {name: entry.shape for name, entry in entries.items()}
    settings = checkpoint.settings if isinstance(spec.config, VitConfig) else None
    found = _from_shapes(spec, scheme, shapes, checkpoint)
    # A checkpoint without its last blocks is broken, not a smaller model - unless all of it is of other sizes.
    if settings is None and found.get("width", spec.config.width) == spec.config.width:
        found.pop("depth", None)
    if isinstance(spec.config, VitConfig):
        _refuse_other_backbone(spec, found, checkpoint)
    if settings is not None:
        found |= _from_settings(spec, settings, found, checkpoint)
    elif (
        isinstance(spec.config, VitConfig)
        and found.get("width", spec.config.width) != spec.config.width
        and "heads" not in overrides
    ):
        raise WeightsError(
            f"{checkpoint.path}: tokens of width {found['width']}, where {spec.name} has {spec.config.width}; pass the "
            f"right file or --backbone, or the number of heads if it is a model of your own"
        )
    config = dataclasses.replace(spec.config, **{**found, **overrides})
    check(config, str(checkpoint.path))
    return config


def check(config: Architecture, file: str) -> None:
    """Refuses sizes that no backbone has.

    Raises:
        WeightsError: With the field and the file.
    """
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if isinstance(field.default, bool):
            good = isinstance(value, bool)
        elif isinstance(field.default, int):
            low = 0 if field.name in ("num_registers", "projection") else 1
            good = type(value) is int and low <= value <= _MOST.get(field.name, 1 << 16)
        elif isinstance(field.default, float):
            good = type(value) in (int, float) and math.isfinite(value) and value >= 0
        elif isinstance(field.default, tuple):
            good = len(value) == len(field.default) and all(type(v) is int and 1 <= v <= 1 << 16 for v in value)
        elif field.name == "activation":
            good = value in ACTIVATIONS
        else:
            good = isinstance(value, str)
        if not good:
            raise WeightsError(f"{file}: a model with {field.name} = {shown(value)}; that is no such backbone")
    if config.width % config.heads:
        raise WeightsError(f"{file}: width {config.width} is no multiple of {config.heads} heads; pass another number")
    if isinstance(config, VitConfig) and config.interpolation == "rotary" and config.width // config.heads % 4:
        raise WeightsError(
            f"{file}: {config.width // config.heads} channels in each of {config.heads} heads, expected a multiple of "
            f"4 with rotary positions; pass another number"
        )


def _from_shapes(
    spec: BackboneSpec, scheme: Scheme, shapes: Mapping[str, Shape], checkpoint: Checkpoint
) -> dict[str, Any]:
    numbers = {name[len(scheme.blocks) :].split(".")[0] for name in shapes if name.startswith(scheme.blocks)}
    found: dict[str, Any] = {}
    if numbers:
        found["depth"] = len(numbers)
    gate = shapes.get(f"{scheme.blocks}0.{scheme.gate}") if scheme.gate else None
    if scheme.gate:
        found["gated"] = gate is not None
    if gate and len(gate) == 2:
        gate = (gate[0] // scheme.gate_parts, gate[1])
    hidden = gate or shapes.get(f"{scheme.blocks}0.{scheme.hidden}")
    if hidden and len(hidden) == 2:
        found["mlp_width"], found["width"] = hidden
    if isinstance(spec.config, PointTransformerConfig):
        return found | _from_point_shapes(spec.config, shapes)
    patches = shapes.get(scheme.patches)
    if patches and len(patches) == 4:
        # Of the two places that show the width this one cannot be transposed without being noticed.
        found["width"], found["patch_size"] = patches[0], patches[3]
    positions = shapes.get(scheme.positions)
    if positions and len(positions) >= 2:
        count = positions[-2] - scheme.class_rows
        found["native_grid"] = math.isqrt(max(0, count))
        if found["native_grid"] ** 2 != count or count < 1:
            raise WeightsError(
                f"{checkpoint.path}: does not fit this backbone: 1 misshapen ({scheme.positions} {positions}, expected "
                f"a square number of patches)"
            )
    registers = shapes.get(scheme.registers)
    found["num_registers"] = registers[-2] if registers and len(registers) >= 2 else 0
    if spec.family == "dinov2":
        # The two kinds interpolate their positions differently.
        found["interpolation"] = "antialias" if found["num_registers"] else "offset"
    projection = shapes.get(scheme.projection)
    if spec.family == "clip":
        found["projection"] = projection[scheme.projection_axis] if projection and len(projection) == 2 else 0
    return found


def _from_point_shapes(config: PointTransformerConfig, shapes: Mapping[str, Shape]) -> dict[str, Any]:
    def first(name: str, default: int) -> int:
        shape = shapes.get(name)
        return shape[0] if shape else default

    return {
        "width": first("norm.weight", config.width),
        "conv_widths": (
            first("encoder.first_conv.0.weight", config.conv_widths[0]),
            first("encoder.first_conv.3.weight", config.conv_widths[1]),
            first("encoder.second_conv.0.weight", config.conv_widths[2]),
        ),
        "position_width": first("pos_embed.0.weight", config.position_width),
    }


def _refuse_other_backbone(spec: BackboneSpec, found: Mapping[str, Any], checkpoint: Checkpoint) -> None:
    """A checkpoint that is another row of the table would run under the wrong name, and be compared under it."""

    def key(config: Any, **changes: Any) -> tuple:
        return tuple(changes.get(field, getattr(config, field)) for field in _SHAPE_FIELDS)

    mine = key(spec.config, **found)
    if mine == key(spec.config):
        return
    # Two families may have the same sizes; its own comes first.
    for other in sorted(BACKBONES.values(), key=lambda other: other.family != spec.family):
        if named_like(other.family) == named_like(spec.family) and key(other.config) == mine:
            raise WeightsError(
                f"{checkpoint.path}: this is {other.name}, not {spec.name}; pass --backbone={other.name}, or the right "
                f"file"
            )


def _from_settings(
    spec: BackboneSpec, settings: Mapping[str, Any], found: Mapping[str, Any], checkpoint: Checkpoint
) -> dict[str, Any]:
    path = checkpoint.settings_path
    kinds = _KINDS[spec.family]
    kind = settings.get("model_type", kinds[0])
    if kind not in kinds:
        raise WeightsError(
            f"{path}: a model of type {shown(kind)!r}, expected {' or '.join(kinds)} for {spec.name}; pass the right "
            f"--backbone or the right folder"
        )
    said = {ours: settings[theirs] for ours, theirs in _SETTINGS.items() if theirs in settings}
    if spec.family in ("dinov2", "tipsv2"):
        said.pop("mlp_width", None)
        if "mlp_ratio" in settings and isinstance(said.get("width"), int):
            said["mlp_width"] = _product(settings["mlp_ratio"], said["width"])
            if found.get("gated") and isinstance(said["mlp_width"], int):
                # Two thirds, for three layers in place of two, in eights.
                said["mlp_width"] = (said["mlp_width"] * 2 // 3 + 7) // 8 * 8
    for field, value in said.items():
        if type(value) is not int or value < 1:
            raise WeightsError(f"{path}: sizes must be whole numbers, received {field} = {shown(value)}")
        if field in found and value != found[field]:
            raise WeightsError(
                f"{path}: says {field} = {shown(value)}, but {checkpoint.path.name} has {found[field]}: missing or "
                f"additional parameters, or files of two models; copy the whole folder again"
            )
    changes: dict[str, Any] = {"heads": said["heads"]} if "heads" in said else {}
    epsilon, activation = settings.get("layer_norm_eps"), settings.get("hidden_act")
    if isinstance(spec.config, VitConfig) and spec.config.interpolation == "rotary":
        _expect_base(settings, path)
    if found.get("gated") and activation == "silu":
        activation = None  # of the gate, which has no other
    if epsilon is not None:
        if type(epsilon) not in (int, float):
            raise WeightsError(f"{path}: expected a number for layer_norm_eps, received {shown(epsilon)}")
        # Hugging Face's DINO says 1e-12 where the original has 1e-6; the folder that is given is followed.
        changes["norm_epsilon"] = float(epsilon)
    if activation is not None:
        if activation not in ACTIVATIONS:
            raise WeightsError(
                f"{path}: activation {shown(activation)!r} is not known; expected {' or '.join(ACTIVATIONS)}"
            )
        changes["activation"] = activation
    return changes


def _expect_base(settings: Mapping[str, Any], path: Path) -> None:
    """Periods of another base would give other tokens, and show in no parameter."""
    nested = settings.get("rope_parameters")
    base = settings.get("rope_theta", nested.get("rope_theta", 100) if isinstance(nested, Mapping) else 100)
    if base != 100:
        raise WeightsError(f"{path}: rotary positions of base {shown(base)}; expected 100, which every such model has")


def _product(ratio: Any, width: int) -> Any:
    return int(ratio * width) if type(ratio) in (int, float) and math.isfinite(ratio) else ratio
