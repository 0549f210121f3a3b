"""Cross-modal anomaly enhancement: image and point scores support each other (paper III-C, eq. 10-11).

A defect that only one modality sees clearly lifts the score of the other at the same place. All functions take ONE
sample and one stage, before the interval average; `multimodal_scores` runs them over a whole category.
"""

import dataclasses
from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from musc_jax import _options
from musc_jax._arrays import (
    Array,
    as_float,
    as_index,
    expect_shape,
    expect_variant,
    safe_sqrt,
    same_dtype,
)
from musc_jax.kernels import expect_implementation, operation
from musc_jax.kernels.rounding import expect_precision
from musc_jax.mutual import AverageInterval, interval_count, score_samples
from musc_jax.references import as_references


@operation("rank_match")
def match_by_rank(source: jax.Array, target: jax.Array, where: jax.Array | None = None) -> jax.Array:
    """`target` with each value replaced by the value of `source` that has the same rank; ties ranked by position.

    With `where`, of the shape of both, ranks are those among the marked values, and all others of `target` stay.
    """
    marked = jnp.ones(target.shape, bool) if where is None else where

    def order(values: jax.Array) -> jax.Array:
        """Marked values ascending, then the others."""
        return jnp.lexsort((jax.lax.stop_gradient(values).reshape(-1), ~marked.reshape(-1)))

    matched = jnp.zeros_like(target).reshape(-1).at[order(target)].set(source.reshape(-1)[order(source)])
    return jnp.where(marked, matched.reshape(target.shape), target)


@operation("enhance_by_rank")
def enhance_by_rank(
    own: jax.Array,
    other: jax.Array,
    weight: jax.Array,
    seen: jax.Array | None = None,
    valid: jax.Array | None = None,
) -> jax.Array:
    """Steps 2 to 5 of the released enhancement, for one modality.

    Args:
        own: Its scores (M, R).
        other: The other modality's at the same places.
        weight: (M,) the trust in them.
        seen: (M,) places where the other modality has scores; default all.
        valid: (M,) tokens that are scored; default all. Others take no rank and stay as they are.
    """

    def matched(target: jax.Array, rows: jax.Array | None) -> jax.Array:
        where = None if rows is None else jnp.broadcast_to(rows[:, None], own.shape)
        return match_by_rank(own, target, where, implementation="plain")

    # 2. The other modality's scores, brought to the distribution of the own ones.
    other = matched(other, seen)
    # 3. The larger of both, as far as it is trusted.
    other = jnp.maximum(other, own) * weight[:, None]
    # 4. Brought to the distribution of the own scores again,
    other = matched(other, valid)
    # 5. and averaged with them.
    return (own + other) / 2


def rank_match(
    source: Float[Array, "*shape"], target: Float[Array, "*shape"], *, implementation: str = "auto"
) -> Float[jax.Array, "*shape"]:
    """`target` with each value replaced by the value of `source` that has the same rank.

    Args:
        source: The values to take.
        target: The order to keep; as many values as `source`. Equal values are ranked by position.
        implementation: One of `musc_jax.kernels.IMPLEMENTATIONS`.

    Returns:
        The values of `source` in the order of `target`, in the shape and dtype of `target`.

    Raises:
        ValueError: Different sizes, an unknown implementation.
    """
    if jnp.size(source) != jnp.size(target):
        raise ValueError(f"rank_match: expected equal sizes, received {jnp.size(source)} and {jnp.size(target)}")
    dtype = as_float(target)[1]
    source, target = same_dtype(source, target)
    return match_by_rank(source, target, implementation=implementation).astype(dtype)


def patch_index(pixels: Int[Array, "*G"], *, size: int, grid: int) -> Int[jax.Array, "*G"]:
    """The image patch that holds each pixel: a group belongs to the patch of its centre's pixel.

    Args:
        pixels: Flat pixel indices, row * size + column. Behind `jit` or `vmap` one out of range counts as the nearest
            pixel in range.
        size: Side of the image in pixels.
        grid: Side of the patch grid; must divide `size`.

    Returns:
        Flat patch indices, row * grid + column.

    Raises:
        ValueError: `size` or `grid` below 1, `size` not a multiple of `grid`, pixels out of range.
    """
    size, grid = _options.whole("size", size, lowest=1), _options.whole("grid", grid, lowest=1)
    if size % grid:
        raise ValueError(f"size: expected a multiple of the grid's {grid} patches, received {size}")
    pixels = as_index("pixels", pixels, size * size)
    patch = size // grid
    return (pixels // size // patch) * grid + pixels % size // patch


def _expect_pair(scores_2d: Array, scores_3d: Array, patch_of_group: Array) -> None:
    expect_shape("scores_2d", scores_2d, (None, None))
    expect_shape("scores_3d", scores_3d, (None, scores_2d.shape[1]))
    expect_shape("patch_of_group", patch_of_group, (scores_3d.shape[0],))


def align_modalities(
    scores_2d: Float[Array, "M2 R"],
    scores_3d: Float[Array, "M3 R"],
    patch_of_group: Int[Array, "M3"],
) -> tuple[Float[jax.Array, "M2 R"], Float[jax.Array, "M3 R"]]:
    """Brings each modality's scores to the places of the other (paper eq. 10).

    Args:
        scores_2d: Scores of the image patches by R samples.
        scores_3d: Scores of the point groups by the same samples.
        patch_of_group: The image patch each group belongs to, 0 to M2 - 1. Behind `jit` or `vmap` an index out of range
            counts as the nearest of these, in both results.

    Returns:
        (to_2d, to_3d): the mean of the group scores of each patch, 0 where a patch has no group; and each group's patch
        score.

    Raises:
        ValueError: Shapes that do not fit, patches out of range.
    """
    _expect_pair(scores_2d, scores_3d, patch_of_group)
    dtypes = as_float(scores_2d)[1], as_float(scores_3d)[1]
    scores_2d, scores_3d = same_dtype(scores_2d, scores_3d)
    patch = as_index("patch_of_group", patch_of_group, len(scores_2d))
    to_2d, to_3d = _aligned(scores_2d, scores_3d, patch, None)
    return to_2d.astype(dtypes[0]), to_3d.astype(dtypes[1])


def _aligned(
    scores_2d: jax.Array, scores_3d: jax.Array, patch: jax.Array, valid_3d: Array | None
) -> tuple[jax.Array, jax.Array]:
    """Eq. 10, over the groups that count."""
    place = patch if valid_3d is None else jnp.where(valid_3d, patch, len(scores_2d))
    count = jnp.zeros(len(scores_2d), scores_2d.dtype).at[place].add(1, mode="drop")
    total = jnp.zeros_like(scores_2d).at[place].add(scores_3d, mode="drop")
    return total / jnp.maximum(count, 1)[:, None], scores_2d[patch]


def cross_modal_enhancement(
    scores_2d: Float[Array, "M2 R"],
    scores_3d: Float[Array, "M3 R"],
    patch_of_group: Int[Array, "M3"],
    *,
    variant: str = "released",
    trust: bool = True,
    valid_2d: Bool[Array, "M2"] | None = None,
    valid_3d: Bool[Array, "M3"] | None = None,
    implementation: str = "auto",
) -> tuple[Float[jax.Array, "M2 R"], Float[jax.Array, "M3 R"]]:
    """CAE: each modality's scores, enhanced by the other's at the same place (paper eq. 10-11).

    Args:
        scores_2d: Scores of the image patches by R samples, one stage, before the interval average.
        scores_3d: Scores of the point groups by the same samples.
        patch_of_group: The image patch each group belongs to; out of range as in `align_modalities`.
        variant: "paper" rescales the other modality's scores row by row and adds them with the trust
            1 - std. "released" brings them to the same distribution by rank instead, three times over, and averages.
        trust: False sets the trust to 1 (the ablation "w/o lambda").
        valid_2d: Patches that are scored; default all. Others neither enhance nor take a rank, as if they were not
            there; what is returned for them means nothing.
        valid_3d: The same of the groups; the patch of one that does not count may be anything. A group on a patch that
            is not scored is like a patch without a group.
        implementation: One of `musc_jax.kernels.IMPLEMENTATIONS`.

    Returns:
        The enhanced scores, shapes and dtypes as given.

    Raises:
        ValueError: Shapes that do not fit, patches out of range, an unknown variant or implementation.
    """
    _expect_pair(scores_2d, scores_3d, patch_of_group)
    expect_variant(variant)
    expect_implementation(implementation)
    dtypes = as_float(scores_2d)[1], as_float(scores_3d)[1]
    scores_2d, scores_3d = same_dtype(scores_2d, scores_3d)
    patch = as_index("patch_of_group", patch_of_group, len(scores_2d), where=valid_3d)
    to_2d, to_3d = _aligned(scores_2d, scores_3d, patch, valid_3d)
    # A patch without a group holds zeros, which are no scores. Every group has a patch, which may be masked.
    seen_2d, seen_3d = jnp.any(to_2d != 0, axis=1), None
    if valid_2d is not None:
        seen_2d, seen_3d = seen_2d & valid_2d, valid_2d[patch]
        to_3d = jnp.where(seen_3d[:, None], to_3d, 0)
    if valid_3d is not None:
        seen_3d = valid_3d if seen_3d is None else seen_3d & valid_3d
    enhance = partial(_enhance_released, implementation=implementation) if variant == "released" else _enhance_paper
    out_2d = enhance(scores_2d, to_2d, seen_2d, valid_2d, trust=trust)
    out_3d = enhance(scores_3d, to_3d, seen_3d, valid_3d, trust=trust)
    return out_2d.astype(dtypes[0]), out_3d.astype(dtypes[1])


def _std(scores: jax.Array, *, ddof: int) -> jax.Array:
    """Standard deviation of each row, (rows,); gradient 0 where a row is constant, and 0 for a single reference."""
    deviation = scores - scores.mean(axis=1, keepdims=True)
    return safe_sqrt(jnp.sum(deviation**2, axis=1) / max(1, scores.shape[1] - ddof))


def _enhance_released(
    own: jax.Array,
    other: jax.Array,
    seen: Array | None,
    valid: Array | None,
    *,
    trust: bool,
    implementation: str,
) -> jax.Array:
    """Both modalities are brought to the same distribution by rank before they are compared; places not seen stay 0."""
    weight = jnp.ones(len(own), own.dtype)
    # 1. Trust: the less references disagree, the more; its values are those of the own deviations.
    if trust:
        deviations = match_by_rank(_std(own, ddof=1), _std(other, ddof=1), valid, implementation=implementation)
        weight = weight - deviations
    return enhance_by_rank(own, other, weight, seen, valid, implementation=implementation)


def _enhance_paper(
    own: jax.Array, other: jax.Array, seen: Array | None, valid: Array | None, *, trust: bool
) -> jax.Array:
    """Eq. 10-11 as printed: rescale to the own row's range, then own + trust * max(other, own)."""
    del valid  # rows do not meet each other here
    low, high = own.min(axis=1, keepdims=True), own.max(axis=1, keepdims=True)
    other_low = other.min(axis=1, keepdims=True)
    span = other.max(axis=1, keepdims=True) - other_low
    # All references agree: there is nothing to stretch, and 0 / 0 must not appear.
    scaled = (other - other_low) / jnp.where(span > 0, span, 1) * (high - low) + low
    if seen is not None:
        scaled = jnp.where(seen[:, None], scaled, 0)
    weight = 1 - _std(scaled, ddof=0)[:, None] if trust else 1.0
    return own + weight * jnp.maximum(scaled, own)


def multimodal_scores(
    features_2d: Float[Array, "N M2 C2"],
    features_3d: Float[Array, "N M3 C3"],
    patch_of_group: Int[Array, "N M3"],
    *,
    interval: float = 0.3,
    variant: str = "released",
    enhancement: bool = True,
    trust: bool = True,
    precision: str = "full",
    references: int | Int[Array, "N R"] | None = None,
    seed: int = 0,
    implementation: str = "auto",
) -> tuple[Float[jax.Array, "N M2"], Float[jax.Array, "N M3"]]:
    """Mutual scores of both modalities with cross-modal enhancement, one stage (paper eq. 7-11).

    Args:
        features_2d: Aggregated image tokens of N >= 2 samples.
        features_3d: Aggregated group tokens of the same samples.
        patch_of_group: The image patch each group belongs to; out of range as in `align_modalities`.
        interval: Share of the lowest scores that is averaged.
        variant: "released" or "paper", see `cross_modal_enhancement`.
        enhancement: False leaves the modalities apart (the ablation "w/o CAE").
        trust: False sets CAE's trust to 1.
        precision: See `mutual_scores`.
        references: See `mutual_scores`.
        seed: See `mutual_scores`.
        implementation: One of `musc_jax.kernels.IMPLEMENTATIONS`.

    Returns:
        (scores_2d, scores_3d), dtypes as the features.

    Raises:
        ValueError: Shapes that do not fit, fewer than 2 samples, patches out of range, an unknown variant, an interval
            outside (0, 1], references or a seed that are no whole numbers of at least 1 and 0.
    """
    expect_shape("features_2d", features_2d, (None, None, None))
    expect_shape("features_3d", features_3d, (features_2d.shape[0], None, None))
    expect_shape("patch_of_group", patch_of_group, features_3d.shape[:2])
    expect_variant(variant)
    expect_precision(precision)
    expect_implementation(implementation)
    interval_count(1, interval)
    dtypes = as_float(features_2d)[1], as_float(features_3d)[1]
    wide = same_dtype(features_2d, features_3d)
    finish = EnhanceAndAverage(AverageInterval(interval, implementation), variant, enhancement, trust)
    drawn = as_references(features_2d.shape[0], references, seed=seed)
    patches = (as_index("patch_of_group", patch_of_group, features_2d.shape[1]),)
    out = score_samples(wide, finish, drawn, extra=patches, precision=precision, implementation=implementation)
    return out[0].astype(dtypes[0]), out[1].astype(dtypes[1])


@dataclasses.dataclass(frozen=True)
class EnhanceAndAverage:
    """The `musc_jax.mutual.Finish` of both modalities: cross-modal enhancement, then the interval average.

    Attributes:
        average: What comes last, and the implementation of all of it.
        variant: See `cross_modal_enhancement`.
        enhancement: False leaves the modalities apart.
        trust: See `cross_modal_enhancement`.
    """

    average: AverageInterval
    variant: str
    enhancement: bool = True
    trust: bool = True

    def __call__(
        self, scores: Sequence[jax.Array], query_mask: Sequence[jax.Array | None], patch_of_group: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """((R, M2), (R, M3)) to ((M2,), (M3,))."""
        by_2d, by_3d = scores
        if self.enhancement:
            valid_2d, valid_3d = query_mask
            enhanced = cross_modal_enhancement(
                by_2d.T,
                by_3d.T,
                patch_of_group,
                variant=self.variant,
                trust=self.trust,
                valid_2d=valid_2d,
                valid_3d=valid_3d,
                implementation=self.average.implementation,
            )
            by_2d, by_3d = (x.T for x in enhanced)
        return self.average.of_each(by_2d), self.average.of_each(by_3d)
