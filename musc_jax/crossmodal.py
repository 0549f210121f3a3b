"""Cross-modal anomaly enhancement: image and point scores support each other (paper III-C, eq. 10-11).

A defect that only one modality sees clearly lifts the score of the other at the same place. All functions take ONE
sample and one stage, before the interval average; `multimodal_scores` runs them over a whole category.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from musc_jax._arrays import (
    Array,
    as_float,
    as_index,
    expect_shape,
    expect_variant,
    safe_sqrt,
    same_dtype,
)
from musc_jax.interval import interval_count, mean_of_lowest
from musc_jax.mutual import all_pair_scores, panel_scores
from musc_jax.neighbors import sort_by_key
from musc_jax.subsets import draw_references


def rank_match(source: Float[Array, "*shape"], target: Float[Array, "*shape"]) -> Float[jax.Array, "*shape"]:
    """`target` with each value replaced by the value of `source` that has the same rank.

    Args:
        source: The values to take.
        target: The order to keep; as many values as `source`. Equal values are ranked by position.

    Returns:
        The values of `source` in the order of `target`, in the shape and dtype of `target`.

    Raises:
        ValueError: Different sizes.
    """
    if jnp.size(source) != jnp.size(target):
        raise ValueError(f"rank_match: expected equal sizes, received {jnp.size(source)} and {jnp.size(target)}")
    dtype = as_float(target)[1]
    source, target = same_dtype(source, target)
    return _in_order_of(target, _sorted(source)).astype(dtype)


def _order(values: jax.Array) -> jax.Array:
    """Stable argsort of all values; no gradient."""
    flat = jax.lax.stop_gradient(values).reshape(-1)
    return sort_by_key(flat, jnp.arange(flat.size, dtype=jnp.int32))[1]


def _sorted(values: jax.Array) -> jax.Array:
    """All values, ascending."""
    return values.reshape(-1)[_order(values)]


def _in_order_of(target: jax.Array, ascending: jax.Array) -> jax.Array:
    """Ascending values put to the places where `target` has the same ranks."""
    matched = jnp.zeros(ascending.shape, ascending.dtype).at[_order(target)].set(ascending, unique_indices=True)
    return matched.reshape(target.shape)


def patch_index(pixels: Int[Array, "*G"], *, size: int, grid: int) -> Int[jax.Array, "*G"]:
    """The image patch that holds each pixel: a group belongs to the patch of its centre's pixel.

    Args:
        pixels: Flat pixel indices, row * size + column.
        size: Side of the image in pixels.
        grid: Side of the patch grid; must divide `size`.

    Returns:
        Flat patch indices, row * grid + column.

    Raises:
        ValueError: `size` is not a multiple of `grid`.
    """
    if grid < 1 or size % grid:
        raise ValueError(f"size: expected a multiple of the grid's {grid} patches, received {size}")
    pixels = as_index("pixels", pixels)
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
        patch_of_group: The image patch each group belongs to.

    Returns:
        (to_2d, to_3d): the mean of the group scores of each patch, 0 where a patch has no group; and each group's patch
        score.

    Raises:
        ValueError: Shapes that do not fit.
    """
    _expect_pair(scores_2d, scores_3d, patch_of_group)
    dtypes = as_float(scores_2d)[1], as_float(scores_3d)[1]
    scores_2d, scores_3d = same_dtype(scores_2d, scores_3d)
    patch = as_index("patch_of_group", patch_of_group)
    count = jnp.zeros(len(scores_2d), scores_2d.dtype).at[patch].add(1)
    total = jnp.zeros_like(scores_2d).at[patch].add(scores_3d)
    to_2d = total / jnp.maximum(count, 1)[:, None]
    return to_2d.astype(dtypes[0]), scores_2d[patch].astype(dtypes[1])


def cross_modal_enhancement(
    scores_2d: Float[Array, "M2 R"],
    scores_3d: Float[Array, "M3 R"],
    patch_of_group: Int[Array, "M3"],
    *,
    variant: str = "released",
    trust: bool = True,
) -> tuple[Float[jax.Array, "M2 R"], Float[jax.Array, "M3 R"]]:
    """CAE: each modality's scores, enhanced by the other's at the same place (paper eq. 10-11).

    Args:
        scores_2d: Scores of the image patches by R samples, one stage, before the interval average.
        scores_3d: Scores of the point groups by the same samples.
        patch_of_group: The image patch each group belongs to.
        variant: "paper" rescales the other modality's scores row by row and adds them with the trust
            1 - std. "released" brings them to the same distribution by rank instead, three times over, and averages.
        trust: False sets the trust to 1 (the ablation "w/o lambda").

    Returns:
        The enhanced scores, shapes and dtypes as given.

    Raises:
        ValueError: Shapes that do not fit, an unknown variant.
    """
    _expect_pair(scores_2d, scores_3d, patch_of_group)
    expect_variant(variant)
    dtypes = as_float(scores_2d)[1], as_float(scores_3d)[1]
    scores_2d, scores_3d = same_dtype(scores_2d, scores_3d)
    to_2d, to_3d = align_modalities(scores_2d, scores_3d, patch_of_group)
    enhance = _enhance_released if variant == "released" else _enhance_paper
    # A patch without a group holds zeros, which are no scores. Every group has a patch.
    out_2d = enhance(scores_2d, to_2d, jnp.any(to_2d != 0, axis=1), trust)
    out_3d = enhance(scores_3d, to_3d, None, trust)
    return out_2d.astype(dtypes[0]), out_3d.astype(dtypes[1])


def _std(scores: jax.Array, *, ddof: int) -> jax.Array:
    """Standard deviation of each row, (rows,); gradient 0 where a row is constant, and 0 for a single reference."""
    deviation = scores - scores.mean(axis=1, keepdims=True)
    return safe_sqrt(jnp.sum(deviation**2, axis=1) / max(1, scores.shape[1] - ddof))


def _match_rows(own: jax.Array, order: jax.Array, target: jax.Array, rows: jax.Array) -> jax.Array:
    """`rank_match` of `own` to `target` over the marked rows alone; the others stay as they are.

    Rows left out sort behind all others on both sides, so the ranks among the marked ones stay 0, 1, 2, ... `order` is
    that of all of `own`: moving the marked values up in it is a running count, not another sort.
    """
    keep = jnp.broadcast_to(rows[:, None], own.shape)
    kept = keep.reshape(-1)[order]
    slot = jnp.where(kept, jnp.cumsum(kept, dtype=jnp.int32) - 1, own.size)
    ascending = jnp.full(own.size, jnp.inf, own.dtype).at[slot].set(own.reshape(-1)[order], mode="drop")
    return jnp.where(keep, _in_order_of(jnp.where(keep, target, jnp.inf), ascending), target)


def _enhance_released(own: jax.Array, other: jax.Array, seen: jax.Array | None, trust: bool) -> jax.Array:
    """Both modalities are brought to the same distribution by rank before they are compared; rows not seen stay 0."""
    weight = jnp.ones(len(own), own.dtype)
    if trust:
        weight = weight - rank_match(_std(own, ddof=1), _std(other, ddof=1))
    order = _order(own)
    ascending = own.reshape(-1)[order]
    other = _in_order_of(other, ascending) if seen is None else _match_rows(own, order, other, seen)
    other = jnp.maximum(other, own) * weight[:, None]
    return (own + _in_order_of(other, ascending)) / 2


def _enhance_paper(own: jax.Array, other: jax.Array, seen: jax.Array | None, trust: bool) -> jax.Array:
    """Eq. 10-11 as printed: rescale to the own row's range, then own + trust * max(other, own)."""
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
    references: int | None = None,
    seed: int = 0,
) -> tuple[Float[jax.Array, "N M2"], Float[jax.Array, "N M3"]]:
    """Mutual scores of both modalities with cross-modal enhancement, one stage (paper eq. 7-11).

    Args:
        features_2d: Aggregated image tokens of N >= 2 samples.
        features_3d: Aggregated group tokens of the same samples.
        patch_of_group: The image patch each group belongs to.
        interval: Share of the lowest scores that is averaged.
        variant: "released" or "paper", see `cross_modal_enhancement`.
        enhancement: False leaves the modalities apart (the ablation "w/o CAE").
        trust: False sets CAE's trust to 1.
        precision: See `mutual_scores`.
        references: See `mutual_scores`.
        seed: See `mutual_scores`.

    Returns:
        (scores_2d, scores_3d), dtypes as the features.

    Raises:
        ValueError: Shapes that do not fit, fewer than 2 samples, an unknown variant, an interval outside (0, 1].
    """
    expect_shape("features_2d", features_2d, (None, None, None))
    expect_shape("features_3d", features_3d, (features_2d.shape[0], None, None))
    expect_shape("patch_of_group", patch_of_group, features_3d.shape[:2])
    expect_variant(variant)
    dtypes = as_float(features_2d)[1], as_float(features_3d)[1]
    features_2d, features_3d = same_dtype(features_2d, features_3d)
    patch_of_group = as_index("patch_of_group", patch_of_group)
    finish = partial(average_both, interval=interval, variant=variant, enhancement=enhancement, trust=trust)
    if references is not None and references < features_2d.shape[0] - 1:
        drawn = draw_references(features_2d.shape[0], references, seed=seed)
        scorers = features_2d[drawn.samples], features_3d[drawn.samples]

        def one_sample(sample: tuple) -> tuple[jax.Array, jax.Array]:
            own_2d, own_3d, patch, columns = sample
            by_2d, by_3d = (
                panel_scores(own[None], scorer, precision=precision)[0][columns]
                for own, scorer in zip((own_2d, own_3d), scorers, strict=True)
            )
            return finish(by_2d, by_3d, patch)

        columns = jnp.asarray(drawn.columns)
        out_2d, out_3d = jax.lax.map(one_sample, (features_2d, features_3d, patch_of_group, columns))
    else:
        scores = (all_pair_scores(features, precision=precision) for features in (features_2d, features_3d))
        out_2d, out_3d = jax.lax.map(lambda sample: finish(*sample), (*scores, patch_of_group))
    return out_2d.astype(dtypes[0]), out_3d.astype(dtypes[1])


def average_both(
    scores_2d: Float[Array, "R M2"],
    scores_3d: Float[Array, "R M3"],
    patch_of_group: Int[Array, "M3"],
    *,
    interval: float = 0.3,
    variant: str = "released",
    enhancement: bool = True,
    trust: bool = True,
) -> tuple[Float[jax.Array, "M2"], Float[jax.Array, "M3"]]:
    """One sample's scores by R others to its patch scores: cross-modal enhancement, then the interval average.

    Options as in `multimodal_scores`.
    """
    count = interval_count(scores_2d.shape[0], interval)
    by_2d, by_3d = jnp.asarray(scores_2d), jnp.asarray(scores_3d)
    if enhancement:
        enhanced = cross_modal_enhancement(by_2d.T, by_3d.T, patch_of_group, variant=variant, trust=trust)
        by_2d, by_3d = (x.T for x in enhanced)
    return mean_of_lowest(by_2d, count, axis=0), mean_of_lowest(by_3d, count, axis=0)
