"""Which samples score which: all others, some that are drawn, or for each its most similar ones."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, Int

from musc_jax._arrays import Array
from musc_jax.execution.devices import everywhere, on_every_device
from musc_jax.execution.extraction import Features
from musc_jax.execution.feature_store import StoredArray
from musc_jax.execution.programs import Programs
from musc_jax.references import References, draw_references, listed_references
from musc_jax.resolved import Scoring
from musc_jax.similarity import mean_tokens, nearest_samples, sample_summaries

# Samples read at once.
_READ_AT_ONCE = 8


def choose_references(features: Features, scoring: Scoring, programs: Programs) -> References:
    """The references of a batch.

    Args:
        features: Of the samples that score each other.
        scoring: How many, and which.
        programs: Compiles and times.
    """
    count, nearest = features.num_samples, scoring.nearest_images
    if nearest is None or nearest >= count - 1:
        return draw_references(count, scoring.references, seed=scoring.seed)
    found = programs.run("mutual scoring", nearest_samples, summaries(features, programs), count=nearest)
    return listed_references(np.asarray(found))


def summaries(features: Features, programs: Programs) -> Float[jax.Array, "N D"]:
    """`musc_jax.sample_summaries` of all stages, wherever features lie; the same in all processes."""
    modalities = [modality for modality in (features.image, features.points) if modality]
    means = []
    for modality in modalities:
        for stage in modality.stages:
            if isinstance(stage, StoredArray):
                means.append(_mean_of_stored(stage))
            elif features.spread is not None:
                mesh = features.spread.mesh
                members = everywhere(features.spread.members.astype(np.int32), mesh)
                found = programs.run("mutual scoring", _means_of_members, stage, members, mesh=mesh)
                means.append(jnp.asarray(np.asarray(found)))
            else:
                means.append(programs.run("mutual scoring", mean_tokens, stage))
    return programs.run("mutual scoring", sample_summaries, means)


def _mean_of_stored(stage: StoredArray) -> Float[jax.Array, "N C"]:
    count = len(stage)
    blocks = (np.arange(start, min(start + _READ_AT_ONCE, count)) for start in range(0, count, _READ_AT_ONCE))
    return jnp.asarray(np.concatenate([stage.rows(block).mean(axis=1) for block in blocks]))


def _means_of_members(stage: Float[Array, "P M C"], members: Int[Array, "N"], *, mesh: Mesh) -> Float[jax.Array, "N C"]:
    return on_every_device(mean_tokens(stage)[members], mesh)
