"""Which samples score which: all others, some that are drawn, or for each its most similar ones."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Bool, Float, Int

from musc_jax._arrays import Array
from musc_jax.execution.devices import everywhere, on_every_device
from musc_jax.execution.extraction import Features
from musc_jax.execution.feature_store import StoredArray
from musc_jax.execution.inside import Inside
from musc_jax.execution.programs import Programs
from musc_jax.references import References, draw_references, listed_references
from musc_jax.resolved import Scoring
from musc_jax.similarity import mean_tokens, nearest_samples, sample_summaries

# Samples read at once.
_READ_AT_ONCE = 8


def choose_references(
    features: Features,
    scoring: Scoring,
    programs: Programs,
    *,
    inside: Inside | None = None,
    vouch: Bool[np.ndarray, "N"] | None = None,
) -> References:
    """The references of a batch.

    Args:
        features: Of the samples that score each other.
        scoring: How many, and which.
        programs: Compiles and times.
        inside: The tokens that count; default all.
        vouch: The samples that may score others; default all.
    """
    count, nearest = features.num_samples, scoring.nearest_images
    able = count if vouch is None else int(vouch.sum())
    if nearest is None or nearest >= able - 1:
        return draw_references(count, scoring.references, seed=scoring.seed, vouch=vouch)
    looks, more = summaries(features, programs, inside=inside), () if vouch is None else (vouch,)
    found = programs.run("mutual scoring", _nearest_of, looks, *more, count=nearest)
    return listed_references(np.asarray(found))


def _nearest_of(
    looks: Float[jax.Array, "N D"], vouch: Bool[Array, "N"] | None = None, *, count: int
) -> Int[jax.Array, "N R"]:
    return nearest_samples(looks, count, vouch=vouch)


def summaries(features: Features, programs: Programs, *, inside: Inside | None = None) -> Float[jax.Array, "N D"]:
    """`musc_jax.sample_summaries` of all stages, wherever features lie; the same in all processes."""
    modalities = [modality for modality in (features.image, features.points) if modality]
    masks = [None] * len(modalities) if inside is None else inside.masks
    means = []
    for modality, valid in zip(modalities, masks, strict=True):
        more = () if valid is None else (valid,)
        for stage in modality.stages:
            if isinstance(stage, StoredArray):
                means.append(_mean_of_stored(stage, valid))
            elif features.spread is not None:
                mesh = features.spread.mesh
                members = everywhere(features.spread.members.astype(np.int32), mesh)
                more = tuple(everywhere(mask, mesh) for mask in more)
                found = programs.run("mutual scoring", _means_of_members, stage, members, *more, mesh=mesh)
                means.append(jnp.asarray(np.asarray(found)))
            else:
                means.append(programs.run("mutual scoring", _means_of, stage, *more))
    return programs.run("mutual scoring", sample_summaries, means)


def _means_of(stage: Float[Array, "N M C"], valid: Bool[Array, "N M"] | None = None) -> Float[jax.Array, "N C"]:
    return mean_tokens(stage, valid=valid)


def _mean_of_stored(stage: StoredArray, valid: Bool[np.ndarray, "N M"] | None) -> Float[jax.Array, "N C"]:
    count = len(stage)
    blocks = (np.arange(start, min(start + _READ_AT_ONCE, count)) for start in range(0, count, _READ_AT_ONCE))
    if valid is None:
        return jnp.asarray(np.concatenate([stage.rows(block).mean(axis=1) for block in blocks]))
    of_each = [stage.rows(np.array([i]))[0][valid[i]].mean(axis=0) for i in range(count)]
    return jnp.asarray(np.stack(of_each))


def _means_of_members(
    stage: Float[Array, "P M C"],
    members: Int[Array, "N"],
    valid: Bool[Array, "N M"] | None = None,
    *,
    mesh: Mesh,
) -> Float[jax.Array, "N C"]:
    if valid is None:
        return on_every_device(mean_tokens(stage)[members], mesh)
    return on_every_device(mean_tokens(stage[members], valid=valid), mesh)
