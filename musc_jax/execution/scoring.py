"""Patch scores of a category: a stage at once, a few samples at a time, or over many devices (paper III-C)."""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Bool, Float, Int

from musc_jax._arrays import Array
from musc_jax.crossmodal import patch_index
from musc_jax.execution import dense, sharded, streamed
from musc_jax.execution.devices import everywhere, on_every_device
from musc_jax.execution.extraction import Features, Progress
from musc_jax.execution.feature_store import StoredArray
from musc_jax.execution.inside import Inside
from musc_jax.execution.memory import Plan, Tokens, plan_memory
from musc_jax.execution.programs import Programs
from musc_jax.execution.recurring import find_recurring
from musc_jax.execution.schedule import Machine, Products, Schedule
from musc_jax.execution.similar import choose_references
from musc_jax.mutual import Finish
from musc_jax.recurring import AndJumps
from musc_jax.resolved import Resolved, Scoring


class PatchScores(NamedTuple):
    """Patch scores, the mean over the stages (paper eq. 9)."""

    image: Float[jax.Array, "N M2"] | None
    points: Float[jax.Array, "N M3"] | None


def plan_for(
    config: Resolved,
    count: int,
    budget: int,
    mesh: Mesh | None = None,
    *,
    host: int | None = None,
    vouching: int | None = None,
) -> Plan:
    """What stays where while `count` samples are scored in `budget` bytes.

    Args:
        config: A resolved config.
        count: N.
        budget: Bytes that may be used; on accelerators, of each.
        mesh: The devices over which samples and features are spread; default one.
        host: Bytes that may be used beside those, where the devices' memory is their own.
        vouching: How many of the samples may score others; default all.

    Raises:
        BudgetError: Not even the smallest plan fits.
    """
    modalities = []
    if config.image is not None:
        modalities.append(Tokens(config.image.num_tokens, config.image.num_channels, config.image.num_stages))
    if config.points is not None:
        modalities.append(Tokens(config.points.num_groups, config.points.num_channels, config.points.num_stages))
    able = count if vouching is None else vouching
    nearest = config.scoring.nearest_images
    listed = nearest is not None and nearest < able - 1
    references = nearest if listed else config.scoring.references
    if able < count and not listed:
        references = min(able if references is None else references, able - 1)
    where: dict[str, Any] = {"budget": budget, "mesh": mesh, "host": host}
    return plan_memory(count, modalities, size=config.size, references=references, listed=listed, **where)


def products_of(scoring: Scoring) -> Products:
    """How tokens are multiplied, as a schedule wants to know it."""
    return Products(
        scoring.precision,
        scoring.half_type,
        scoring.implementation,
        # The statements go pair by pair.
        scoring.tokens_at_once if scoring.implementation == "auto" else 0,
        scoring.samples_at_once,
    )


def first_finish(scoring: Scoring, *, both: bool) -> Finish:
    """Of the first time that all are scored: where recurring defects are looked for, jumps come with the scores."""
    finish = scoring.finish(both=both)
    return finish if scoring.recurring == "off" else AndJumps(finish)


def devices_for(plan: Plan | None, mesh: Mesh | None) -> Mesh | None:
    """The devices over which `extract` works: one where the features stay in memory but not in several devices'."""
    return mesh if plan is None or plan.stored or plan.devices > 1 else None


def score_patches(
    features: Features,
    config: Resolved,
    programs: Programs,
    *,
    inside: Inside | None = None,
    vouch: Bool[np.ndarray, "N"] | None = None,
    plan: Plan | None = None,
    progress: Progress | None = None,
) -> PatchScores:
    """Mutual scores of all patches, averaged over the stages (paper III-C); by `plan`, default a stage at once.

    With `inside` other tokens neither score nor are scored; they get 0. With `vouch` samples that do not are scored by
    the others and score nobody.
    """
    return score_and_look(features, config, programs, inside=inside, vouch=vouch, plan=plan, progress=progress)[0]


def score_and_look(
    features: Features,
    config: Resolved,
    programs: Programs,
    *,
    inside: Inside | None = None,
    vouch: Bool[np.ndarray, "N"] | None = None,
    plan: Plan | None = None,
    progress: Progress | None = None,
) -> tuple[PatchScores, tuple[tuple[int, ...], ...]]:
    """`score_patches`, and the groups of samples that share a defect, where the config asks for them.

    To filter, tokens that recur stop scoring others, and all are scored again.
    """
    modalities = [modality for modality in (features.image, features.points) if modality]
    how, extra = config.scoring, _patches(features, config)
    references = choose_references(features, how, programs, inside=inside, vouch=vouch)
    schedule, machine = _choose(features, programs, plan)
    products = products_of(how)
    count, width = len(modalities[0].stages), len(modalities)
    given: dict[str, Any] = {"extra": extra, "products": products}
    whole: list[Any] = [None] * width if inside is None else inside.masks
    if inside is not None:
        given |= {"query_mask": whole, "reference_mask": whole}

    def scored(
        finish: Finish, done: int, unmarked: Sequence[Sequence[Array]] | None = None
    ) -> tuple[tuple[jax.Array, ...], list[list[np.ndarray]]]:
        """(patch scores summed over the stages, what else there is of each stage)."""
        total: tuple[jax.Array, ...] = ()
        more = []
        for stage in range(count):
            # One stage's scores of all pairs at a time: a plan has no room for two.
            jax.block_until_ready(total)
            part = None if progress is None else partial(_report, progress, done + stage, passes * count)
            own = [modality.stages[stage] for modality in modalities]
            options = given
            if unmarked is not None:
                pairs = zip(unmarked[stage], whole, strict=True)
                options = given | {"reference_mask": [free if mask is None else free & mask for free, mask in pairs]}
            found = schedule(own, finish, references, machine, **options, progress=part)
            scores = found[:width]
            more.append([np.asarray(x) for x in found[width:]])
            total = tuple(a + b for a, b in zip(total, scores, strict=True)) if total else scores
        return total, more

    passes = 2 if how.recurring == "filter" else 1
    groups: tuple[tuple[int, ...], ...] = ()
    total, more = scored(first_finish(how, both=width == 2), 0)
    if how.recurring != "off":
        jumps = [list(zip(stage[:width], stage[width:], strict=True)) for stage in more]
        recurring = find_recurring(features, jumps, programs)
        groups = recurring.groups
        if how.recurring == "filter" and recurring.any:
            unmarked = [[~own for own in stage] for stage in recurring.tokens]
            total, _ = scored(how.finish(both=width == 2), count, unmarked)
    mean = [x / count for x in total]
    return PatchScores(mean[0] if features.image else None, mean[-1] if features.points else None), groups


def _patches(features: Features, config: Resolved) -> tuple[Int[jax.Array, "N M3"], ...]:
    """Where the modalities meet: the image patch of each group."""
    if features.image is None or features.points is None:
        return ()
    grid = round(features.image.stages[0].shape[1] ** 0.5)
    return (patch_index(features.points.center_pixels, size=config.size, grid=grid),)


def _choose(features: Features, programs: Programs, plan: Plan | None) -> tuple[Schedule, Machine]:
    """The schedule that fits to where the features lie and what the plan has room for."""
    spread = features.spread
    if spread is not None:
        members = None if spread.whole else spread.members
        return sharded.score_stage, Machine(programs, plan, spread.mesh, members)
    if plan is not None and not plan.whole_stages:
        return streamed.score_stage, Machine(programs, plan)
    return dense.score_stage, Machine(programs, plan)


def _report(progress: Progress, stage: int, stages: int, done: int, total: int) -> None:
    progress("mutual scoring", stage * total + done, stages * total)


def salient_features(
    features: Features, scores: PatchScores, programs: Programs, *, inside: Inside | None = None
) -> Float[jax.Array, "N D"]:
    """The feature of each sample's highest-scoring token at the second-to-last stage (paper eq. 12-13).

    Image and point parts are concatenated. Version 1 compares image embeddings instead.
    """
    if features.image is not None and features.image.embedding is not None:
        return features.image.embedding
    parts = []
    both = (None, None) if inside is None else (inside.patches, inside.groups)
    for modality, own, counts in zip((features.image, features.points), scores, both, strict=True):
        if modality is not None and own is not None:
            stage = modality.stages[max(0, len(modality.stages) - 2)]
            if counts is not None:
                # Scores of tokens outside are 0, which a token inside may have, too.
                own = jnp.where(counts, own, -jnp.inf)
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
