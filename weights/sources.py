"""From what a user names - a file, a folder, "pretrained", "random" - to a backbone with parameters."""

import dataclasses
import hashlib
import json
import math
import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors import SafetensorError, safe_open

from musc_jax.models import Backbone, PointTransformer, PointTransformerConfig, VisionTransformer, VitConfig
from weights.backbones import BACKBONES, BackboneSpec
from weights.conversion import convert, rules_for, strip_prefixes
from weights.errors import WeightsError
from weights.torch_file import TorchFile

_FOLDER_FILES = ("model.safetensors", "pytorch_model.bin")
Config = VitConfig | PointTransformerConfig
# Shape, and how to read the values.
Entry = tuple[tuple[int, ...], Callable[[], np.ndarray]]


def load(
    path: str | os.PathLike,
    backbone: str,
    *,
    weights_dir: str | os.PathLike | None = None,
    cache_dir: str | os.PathLike | None = None,
    seed: int = 0,
    dtype: str = "float32",
    activation: str | None = None,
    **overrides: Any,
) -> Backbone:
    """Loads a backbone.

    Args:
        path: A Hugging Face folder (config.json and model.safetensors), a .safetensors or PyTorch file, "pretrained"
            (looked for in `weights_dir`, then $MUSC_WEIGHTS_DIR, then `cache_dir`), or "random" (seeded initial
            parameters, for demos and tests).
        backbone: A name out of `BACKBONES`.
        weights_dir: Where "pretrained" looks first.
        cache_dir: Where it looks last.
        seed: Of random parameters.
        dtype: Type of the operands of products, "float32", "bfloat16" or "float16".
        activation: "gelu" or "quick_gelu" instead of the family's own (CLIP).
        overrides: Fields of the architecture, for example heads=3. What config.json or the shapes of the parameters
            say about it is followed without being asked; the number of heads shows in neither of a bare file.

    Returns:
        The module, its float32 parameters, and what a pipeline must know.

    Raises:
        WeightsError: An unknown backbone, nothing there, a broken file, another architecture; the message names the
            file and the way out.
    """
    if backbone not in BACKBONES:
        raise WeightsError(f"backbone: expected one of {', '.join(BACKBONES)}; received {backbone!r}")
    spec = BACKBONES[backbone]
    known = {field.name for field in dataclasses.fields(spec.config)}
    if set(overrides) - known:
        raise WeightsError(
            f"{backbone}: no {', '.join(sorted(set(overrides) - known))}; it has {', '.join(sorted(known))}"
        )
    if activation is not None:
        overrides["activation"] = activation
    if os.fspath(path) == "random":
        return _random(spec, seed, dtype, overrides)
    if os.fspath(path) == "pretrained":
        path = _find(spec, weights_dir, cache_dir)
    return _from_files(Path(path).expanduser(), spec, dtype, overrides)


def _module(config: Config, dtype: str) -> VisionTransformer | PointTransformer:
    kind = VisionTransformer if isinstance(config, VitConfig) else PointTransformer
    return kind(config, dtype=dtype)


def _init(module: Any, seed: int) -> Callable[[], Any]:
    """Initialises the module on inputs of the smallest size."""
    c = module.config
    blocks = (c.depth - 1,)
    if isinstance(c, VitConfig):
        images = jnp.zeros((1, c.patch_size, c.patch_size, 3), jnp.float32)
        return lambda: module.init(jax.random.key(seed), images, blocks=blocks, embedding=True)
    groups, centers = jnp.zeros((2, 2, 3), jnp.float32), jnp.zeros((2, 3), jnp.float32)
    return lambda: module.init(jax.random.key(seed), groups, centers, blocks=blocks, point_norm="checkpoint")


def _backbone(spec: BackboneSpec, module: Any, variables: Any, **identity: Any) -> Backbone:
    depth = module.config.depth
    thirds = tuple(depth * (i + 1) // 3 - 1 for i in range(3)) if depth >= 3 else tuple(range(depth))
    quarters = tuple(depth * (i + 1) // 4 - 1 for i in range(4)) if depth >= 4 else tuple(range(depth))
    same_depth = depth == spec.config.depth
    return Backbone(
        module=module,
        variables=variables,
        name=spec.name,
        blocks=spec.blocks if same_depth else thirds,
        v1_blocks=spec.v1_blocks if same_depth else quarters,
        image_size=spec.image_size,
        mean=spec.mean,
        std=spec.std,
        **identity,
    )


def _random(spec: BackboneSpec, seed: int, dtype: str, overrides: dict[str, Any]) -> Backbone:
    module = _module(dataclasses.replace(spec.config, **overrides), dtype)
    variables = jax.jit(_init(module, seed))()
    # The drawn numbers depend on JAX's generator, so its version belongs to their identity.
    identity = repr((module.config, seed, jax.__version__))
    return _backbone(
        spec,
        module,
        variables,
        source=f"random, seed {seed}",
        digest=hashlib.sha256(identity.encode()).hexdigest(),
        random=True,
    )


def _find(spec: BackboneSpec, weights_dir: str | os.PathLike | None, cache_dir: str | os.PathLike | None) -> Path:
    """Where the pretrained parameters lie."""
    for place in (weights_dir, os.environ.get("MUSC_WEIGHTS_DIR"), cache_dir):
        if not place:
            continue
        for name in spec.file_names:
            found = Path(place).expanduser() / name
            if found.exists():
                return found
    flag = "--weights_points" if spec.family == "point_mae" else "--weights_rgb"
    what, name = spec.url, spec.file_names[-1]
    if spec.hub_id:
        what = f"the folder {spec.hub_id} (config.json, model.safetensors) from huggingface.co"
        name = spec.hub_id.split("/")[1]
    raise WeightsError(
        f"{spec.name}: no pretrained weights found; download {what}, put it as {name} into a folder and pass "
        f"--weights_dir=FOLDER (or set MUSC_WEIGHTS_DIR), or pass its path with {flag}=PATH, or {flag}=random for a "
        f"try that says nothing about accuracy"
    )


def _from_files(path: Path, spec: BackboneSpec, dtype: str, overrides: dict[str, Any]) -> Backbone:
    file, settings = _locate(path)
    tensors = _read(file)
    names = set(tensors)
    config = _describe(spec, names, {name: shape for name, (shape, _) in tensors.items()}, settings, file)
    config = dataclasses.replace(config, **overrides)
    rules = rules_for(spec.family, config, names, str(file))
    module = _module(config, dtype)
    shapes = _expected(jax.eval_shape(_init(module, 0)))
    values = convert(_Lazy(tensors), rules, shapes, str(file))
    return _backbone(spec, module, _nested(values), source=str(path), digest=_digest(file, settings), random=False)


class _Lazy(Mapping[str, np.ndarray]):
    """Entries read from the file when they are asked for, not before."""

    def __init__(self, entries: dict[str, Entry]) -> None:
        self._entries = entries

    def __getitem__(self, name: str) -> np.ndarray:
        return self._entries[name][1]()

    def __iter__(self) -> Any:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


def _locate(path: Path) -> tuple[Path, dict[str, Any] | None]:
    """The file with the parameters, and config.json's content where there is one."""
    if path.is_dir():
        file = next((path / name for name in _FOLDER_FILES if (path / name).is_file()), None)
        if file is None:
            raise WeightsError(f"{path}: expected {' or '.join(_FOLDER_FILES)} in this folder, found neither")
        if not (path / "config.json").is_file():
            raise WeightsError(f"{path}: expected config.json beside {file.name}; copy the whole folder of the model")
    elif path.is_file():
        file = path
    else:
        raise WeightsError(f"{path}: no such file or folder; pass a path, 'pretrained' or 'random'")
    settings = file.parent / "config.json"
    if not settings.is_file() or file.suffix == ".pth":
        return file, None
    try:
        content = json.loads(settings.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("expected an object")
    except (OSError, ValueError) as error:
        raise WeightsError(f"{settings}: cannot be read as JSON ({error}); fetch it again") from None
    return file, content.get("vision_config") or content


def _read(file: Path) -> dict[str, Entry]:
    """Entries by stripped name: shape, and how to read the values."""
    if file.suffix == ".safetensors":
        return _read_safetensors(file)
    archive = TorchFile(file)
    entries: dict[str, Entry] = {
        strip_prefixes(name): (tensor.shape, partial(archive.read, tensor))
        for name, tensor in archive.tensors().items()
    }
    return _expect_entries(entries, file)


def _read_safetensors(file: Path) -> dict[str, Entry]:
    try:
        archive = safe_open(file, framework="np")
        entries: dict[str, Entry] = {
            strip_prefixes(name): (
                tuple(archive.get_slice(name).get_shape()),
                partial(archive.get_tensor, name),
            )
            for name in archive.keys()  # noqa: SIM118
        }
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{file}: cannot be read as safetensors ({error}); fetch it again") from None
    return _expect_entries(entries, file)


def _expect_entries(entries: dict[str, Entry], file: Path) -> dict[str, Entry]:
    if not entries:
        raise WeightsError(f"{file}: holds no parameters; pass the model's checkpoint")
    return entries


def _blocks_in(names: set[str], prefix: str) -> int:
    return len({name[len(prefix) :].split(".")[0] for name in names if name.startswith(prefix)})


def _describe(
    spec: BackboneSpec, names: set[str], shapes: dict[str, tuple[int, ...]], settings: dict[str, Any] | None, file: Path
) -> Config:
    """The architecture: the named one, corrected by config.json, or by the shapes of a file without one."""
    if isinstance(spec.config, PointTransformerConfig):
        return _describe_points(spec.config, names, shapes)
    changes: dict[str, Any] = {}
    if settings is not None:
        kinds = {"dino": ("vit",), "dinov2": ("dinov2", "dinov2_with_registers"), "clip": ("clip", "clip_vision_model")}
        kind = settings.get("model_type", kinds[spec.family][0])
        if kind not in kinds[spec.family]:
            raise WeightsError(
                f"{file.parent / 'config.json'}: a model of type {kind!r}, expected {' or '.join(kinds[spec.family])} "
                f"for {spec.name}; pass the right --backbone or the right folder"
            )
        changes = _from_settings(settings, spec, file)
    known = ("embeddings.position_embeddings", "embeddings.position_embedding.weight", "pos_embed")
    positions = next((name for name in known if name in names), None)
    if positions is not None and len(shapes[positions]) >= 2:
        changes["native_grid"] = math.isqrt(max(0, shapes[positions][-2] - 1))
    registers = shapes.get("embeddings.register_tokens", shapes.get("register_tokens"))
    changes["num_registers"] = registers[-2] if registers and len(registers) >= 2 else 0
    if spec.family == "clip":
        projection = shapes.get("visual_projection.weight")
        changes["projection"] = projection[0] if projection else 0
    return dataclasses.replace(spec.config, **changes)


def _from_settings(settings: dict[str, Any], spec: BackboneSpec, file: Path) -> dict[str, Any]:
    fields = {
        "width": "hidden_size",
        "depth": "num_hidden_layers",
        "heads": "num_attention_heads",
        "patch_size": "patch_size",
    }
    changes: dict[str, Any] = {ours: settings[theirs] for ours, theirs in fields.items() if theirs in settings}
    width = changes.get("width", spec.config.width)
    ratio = settings.get("mlp_ratio")
    changes["mlp_width"] = settings.get("intermediate_size") or (int(width * ratio) if ratio else 4 * width)
    if spec.family == "dinov2" and ratio is None:
        changes["mlp_width"] = 4 * width
    if any(not isinstance(v, int) or v < 1 for v in changes.values()):
        raise WeightsError(f"{file.parent / 'config.json'}: sizes must be whole numbers, received {changes}")
    epsilon = settings.get("layer_norm_eps")
    if epsilon is not None:
        # Hugging Face's DINO says 1e-12 where the original has 1e-6; the folder that is given is followed.
        changes["norm_epsilon"] = float(epsilon)
    activation = settings.get("hidden_act")
    if activation in ("gelu", "quick_gelu"):
        changes["activation"] = activation
    return changes


def _describe_points(config: PointTransformerConfig, names: set[str], shapes: dict[str, tuple[int, ...]]) -> Config:
    def first(name: str, default: int) -> int:
        shape = shapes.get(name)
        return shape[0] if shape else default

    width = first("norm.weight", config.width)
    return dataclasses.replace(
        config,
        width=width,
        depth=_blocks_in(names, "blocks.blocks.") or config.depth,
        mlp_width=first("blocks.blocks.0.mlp.fc1.weight", config.mlp_width),
        conv_widths=(
            first("encoder.first_conv.0.weight", config.conv_widths[0]),
            first("encoder.first_conv.3.weight", config.conv_widths[1]),
            first("encoder.second_conv.0.weight", config.conv_widths[2]),
        ),
        position_width=first("pos_embed.0.weight", config.position_width),
    )


def _expected(variables: Any) -> dict[str, tuple[int, ...]]:
    """Shapes by the paths the tables use: parameters bare, statistics below batch_stats."""
    flat = flatten_dict(variables, sep="/")
    return {path.removeprefix("params/"): leaf.shape for path, leaf in flat.items()}


def _nested(values: dict[str, np.ndarray]) -> Any:
    paths = {
        (path if path.startswith("batch_stats/") else f"params/{path}"): jnp.asarray(value)
        for path, value in values.items()
    }
    return unflatten_dict({tuple(path.split("/")): value for path, value in paths.items()})


def _digest(file: Path, settings: dict[str, Any] | None) -> str:
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    with file.open("rb") as stream:
        while part := stream.read(1 << 22):
            digest.update(part)
    return digest.hexdigest()
