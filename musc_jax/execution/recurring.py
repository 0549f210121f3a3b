"""Which tokens of a batch recur, from what mutual scoring saw of each; see `musc_jax.recurring`."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Bool, Float, Int

from musc_jax._arrays import Array
from musc_jax.execution.devices import everywhere, on_every_device
from musc_jax.execution.extraction import Features, Spread
from musc_jax.execution.feature_store import StoredArray
from musc_jax.execution.programs import Programs
from musc_jax.execution.schedule import Stage
from musc_jax.recurring import Links, Marks, communities, find_links


class Recurring(NamedTuple):
    """What recurs in a batch."""

    tokens: list[list[Bool[np.ndarray, "N M"]]]
    """By stage and modality: tokens that recur in a community of their sample's."""
    groups: tuple[tuple[int, ...], ...]
    """The samples of each community."""

    @property
    def any(self) -> bool:
        """Whether anything recurs."""
        return any(own.any() for stage in self.tokens for own in stage)


def find_recurring(
    features: Features, jumps: Sequence[Sequence[tuple[np.ndarray, np.ndarray]]], programs: Programs
) -> Recurring:
    """Confirms jumps by each other, and finds the samples that share them.

    Args:
        features: Of the samples that score each other.
        jumps: By stage and modality (radius, number), each (N, M), see `musc_jax.recurring.Jump`.
        programs: Compiles and times.
    """
    modalities = [modality for modality in (features.image, features.points) if modality]
    count, seen = features.num_samples, []
    for at, stage in enumerate(jumps):
        for modality, (radius, number) in zip(modalities, stage, strict=True):
            sample, token = np.nonzero(radius)
            own = _tokens_at(modality.stages[at], features.spread, sample, token, programs)
            far = radius[sample, token], number[sample, token].astype(np.int64)
            marks = Marks(sample, token, own, *far)
            seen.append((marks, find_links(marks, radius.shape[1])))
    pairs = [np.stack([marks.sample[links.mark], links.other], axis=1) for marks, links in seen]
    groups = communities(np.concatenate(pairs), count)
    member = np.full(count, -1)
    for i, group in enumerate(groups):
        member[group] = i
    whole = [radius.shape for stage in jumps for radius, _ in stage]
    flags = [_flags(shape, *found, member) for shape, found in zip(whole, seen, strict=True)]
    width = len(modalities)
    tokens = [flags[at : at + width] for at in range(0, len(flags), width)]
    return Recurring(tokens, tuple(tuple(group.tolist()) for group in groups))


def _flags(shape: tuple[int, int], marks: Marks, links: Links, member: Int[np.ndarray, "N"]) -> Bool[np.ndarray, "N M"]:
    """Tokens half of whose links stay in the community of their sample."""
    own = member[marks.sample[links.mark]]
    inside = (own >= 0) & (own == member[links.other])
    all_links = np.bincount(links.mark, minlength=len(marks.sample))
    own_links = np.bincount(links.mark[inside], minlength=len(marks.sample))
    hang = links.kept & (own_links > 0) & (2 * own_links >= all_links)
    flags = np.zeros(shape, bool)
    flags[marks.sample[hang], marks.token[hang]] = True
    return flags


def _tokens_at(
    stage: Stage, spread: Spread | None, sample: np.ndarray, token: np.ndarray, programs: Programs
) -> Float[np.ndarray, "F C"]:
    """Some tokens on the host."""
    if not len(sample):
        return np.zeros((0, stage.shape[2]), np.float32)
    if isinstance(stage, StoredArray):
        # Marks come sample by sample, each of which is read once.
        return np.concatenate([stage.rows(np.array([i]))[0][token[sample == i]] for i in np.unique(sample)])
    if spread is not None:
        # In a few sizes: each is a program of its own.
        size = 1 << max(6, int(len(sample) - 1).bit_length())
        index = [np.resize(x, size).astype(np.int32) for x in (spread.members[sample], token)]
        found = programs.run("mutual scoring", _of_all, stage, *everywhere(index, spread.mesh), mesh=spread.mesh)
        return np.asarray(found)[: len(sample)]
    return np.asarray(jnp.asarray(stage)[sample, token])


def _of_all(
    stage: Float[Array, "P M C"], sample: Int[Array, "F"], token: Int[Array, "F"], *, mesh: Mesh
) -> Float[jax.Array, "F C"]:
    return on_every_device(stage[sample, token], mesh)
