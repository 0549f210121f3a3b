"""Patch scores of a category: a stage at once, a few samples at a time, or over many devices (paper III-C)."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, Int

from musc_jax._arrays import Array
from musc_jax.config import Config
from musc_jax.crossmodal import multimodal_scores
from musc_jax.execution.devices import everywhere, on_every_device
from musc_jax.execution.extraction import Features, Progress, Spread, patches_of_groups
from musc_jax.execution.feature_store import StoredArray
from musc_jax.execution.memory import Plan, Tokens, plan_memory
from musc_jax.execution.programs import Programs
from musc_jax.execution.sharded import sharded_multimodal_scores, sharded_mutual_scores
from musc_jax.execution.streamed import Stage, stream_scores
from musc_jax.mutual import mutual_scores


class PatchScores(NamedTuple):
    """Patch scores, the mean over the stages (paper eq. 9)."""

    image: Float[jax.Array, "N M2"] | None
    points: Float[jax.Array, "N M3"] | None


def plan_for(config: Config, count: int, budget: int, mesh: Mesh | None = None) -> Plan:
    """What stays where while `count` samples are scored in `budget` bytes.

    Args:
        config: A resolved config.
        count: N.
        budget: Bytes that may be used; on accelerators, of each.
        mesh: The devices over which samples and features are spread; default one.

    Raises:
        BudgetError: Not even the smallest plan fits.
    """
    modalities = []
    assert config.image_size is not None
    assert config.blocks is not None
    stages = len(config.blocks) * (len(config.aggregation.degrees) if config.variant == "v1" else 1)
    if config.image_backbone is not None and config.uses_images:
        tokens = (config.image_size // config.image_backbone.patch_size) ** 2
        modalities.append(Tokens(tokens, config.image_backbone.module.config.width, stages))
    if config.point_backbone is not None and config.uses_points:
        width = config.point_backbone.module.config.width
        modalities.append(Tokens(config.grouping.num_groups, width, stages))
    references = config.scoring.references
    return plan_memory(count, modalities, size=config.image_size, budget=budget, references=references, mesh=mesh)


def devices_for(plan: Plan | None, mesh: Mesh | None) -> Mesh | None:
    """The devices over which `extract` works: one where the features stay in memory but not in several devices'."""
    return mesh if plan is None or plan.on_disk or plan.devices > 1 else None


def score_patches(
    features: Features,
    config: Config,
    programs: Programs,
    *,
    plan: Plan | None = None,
    progress: Progress | None = None,
) -> PatchScores:
    """Mutual scores of all patches, averaged over the stages (paper III-C); by `plan`, default a stage at once."""
    modalities = [modality for modality in (features.image, features.points) if modality]
    count = len(modalities[0].stages)
    patches = patches_of_groups(features, config) if len(modalities) == 2 else None
    options: dict[str, Any] = {
        "interval": 1.0 if "ia" in config.ablate else config.scoring.interval,
        "precision": config.scoring.precision,
        "references": config.scoring.references,
        "seed": config.scoring.seed,
    }
    if patches is not None:
        options |= {
            "variant": config.variant,
            "enhancement": "cae" not in config.ablate,
            "trust": "trust" not in config.ablate,
        }
    total: tuple[jax.Array, ...] | None = None
    for stage in range(count):
        own = [modality.stages[stage] for modality in modalities]
        scores: Sequence[jax.Array]
        if features.spread is not None:
            scores = _over_devices(own, patches, features.spread, programs, **options)
        elif plan is not None and not plan.whole_stages:
            part: Callable | None = None
            if progress:
                part = lambda done, size, stage=stage: progress("mutual scoring", stage * size + done, count * size)  # noqa: E731
            scores = stream_scores(own, patches, plan, programs, progress=part, **options)
        elif patches is not None:
            scores = programs.run("mutual scoring", multimodal_scores, *map(_on_device, own), patches, **options)
        else:
            scores = (programs.run("mutual scoring", mutual_scores, _on_device(own[0]), **options),)
        total = tuple(scores) if total is None else tuple(a + b for a, b in zip(total, scores, strict=True))
        if progress and (plan is None or plan.whole_stages or features.spread):
            progress("mutual scoring", stage + 1, count)
    assert total is not None
    mean = [x / count for x in total]
    return PatchScores(mean[0] if features.image else None, mean[-1] if features.points else None)


def _on_device(stage: Stage) -> Array:
    return jnp.asarray(stage.load()) if isinstance(stage, StoredArray) else stage


def _over_devices(
    stages: list, patches: jax.Array | None, spread: Spread, programs: Programs, **options: Any
) -> list[jax.Array]:
    """Scores of one stage, computed where the samples lie; on the first device of every process when they return."""
    mesh = spread.mesh
    members = None if spread.whole else everywhere(spread.members.astype(np.int32), mesh)
    if patches is not None:
        missing = 0 if members is not None else stages[0].shape[0] - len(patches)
        patches = everywhere(np.pad(np.asarray(patches), ((0, missing), (0, 0))), mesh)
    count = len(spread.members)
    found = programs.run("mutual scoring", _ring_scores, stages, patches, members, mesh=mesh, count=count, **options)
    return [jnp.asarray(np.asarray(scores)) for scores in found]


def _ring_scores(
    stages: list[jax.Array],
    patches: jax.Array | None,
    members: jax.Array | None,
    *,
    mesh: Mesh,
    count: int,
    **options: Any,
) -> tuple[jax.Array, ...]:
    if members is not None:
        stages = [stage[members] for stage in stages]
    if patches is not None:
        image, points = stages
        return sharded_multimodal_scores(image, points, patches, mesh, count=count, **options)
    return (sharded_mutual_scores(stages[0], mesh, count=count, **options),)


def salient_features(features: Features, scores: PatchScores, programs: Programs) -> Float[jax.Array, "N D"]:
    """The feature of each sample's highest-scoring token at the second-to-last stage (paper eq. 12-13).

    Image and point parts are concatenated. Version 1 compares image embeddings instead.
    """
    if features.image is not None and features.image.embedding is not None:
        return features.image.embedding
    parts = []
    for modality, own in ((features.image, scores.image), (features.points, scores.points)):
        if modality is not None and own is not None:
            stage = modality.stages[max(0, len(modality.stages) - 2)]
            best = jnp.argmax(own, axis=1).astype(jnp.int32)
            if isinstance(stage, StoredArray):
                parts.append(jnp.asarray(np.stack([stage[i][token] for i, token in enumerate(np.asarray(best))])))
            elif features.spread is not None:
                mesh, members = features.spread.mesh, features.spread.members.astype(np.int32)
                index = (everywhere(members, mesh), everywhere(np.asarray(best), mesh))
                found = programs.run("re-scoring", _tokens_at, stage, *index, mesh=mesh)
                parts.append(jnp.asarray(np.asarray(found)))
            else:
                parts.append(stage[jnp.arange(len(own)), best])
    return jnp.concatenate(parts, axis=1)


def _tokens_at(
    stage: Float[jax.Array, "P M C"], sample: Int[jax.Array, "N"], token: Int[jax.Array, "N"], *, mesh: Mesh
) -> Float[jax.Array, "N C"]:
    """One token of each sample, on every device."""
    return on_every_device(stage[sample, token], mesh)
