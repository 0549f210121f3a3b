"""Mutual scoring over many devices: the samples travel around the ring of devices, half-way only.

Who meets a visitor computes both directions of each pair and sends the visitor's scores home. Every unordered pair of
samples is multiplied once over all devices.

    from musc_jax.execution.sharded import sharded_mutual_scores
    from musc_jax.execution.devices import make_mesh

    mesh = make_mesh()
    scores = jax.jit(lambda z: sharded_mutual_scores(z, mesh))(features)
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, Int

from musc_jax._arrays import Array, as_float, as_index, expect_shape, expect_variant, safe_sqrt, same_dtype
from musc_jax.crossmodal import average_both
from musc_jax.execution.devices import AXIS, BY_SAMPLE, EVERYWHERE, on_every_device, padded_count
from musc_jax.interval import interval_count, mean_of_lowest
from musc_jax.mutual import _expect_precision, _two_way_minima, panel_scores
from musc_jax.subsets import draw_references


def _of_pairs(
    a: jax.Array, b: jax.Array, first: jax.Array, second: jax.Array, precision: str
) -> tuple[jax.Array, jax.Array]:
    """Squared scores of the pairs (a[first], b[second]), seen from a and from b, each (pairs, M)."""

    def one_pair(_: None, pair: tuple) -> tuple[None, tuple[jax.Array, jax.Array]]:
        i, j = pair
        return None, _two_way_minima(a[i], b[j], precision)

    return jax.lax.scan(one_pair, None, (first, second))[1]


def _antipodal_pairs(share: int) -> tuple[np.ndarray, np.ndarray]:
    """Who computes what when two devices hold each other's samples: (own, visitor) indices, each (2, pairs).

    Row 0 is for the device in the first half of the ring, row 1 for its opposite. Between them they have every pair;
    with an odd number of pairs one is computed by both.
    """
    pairs = np.stack(np.divmod(np.arange(share * share), share))  # (sample of the first, sample of the second)
    half = -(-share * share // 2)
    first, second = pairs[:, :half], pairs[::-1, share * share - half :]
    own, visitor = np.stack([first, second]).astype(np.int32).swapaxes(0, 1)
    return own, visitor


def _half_ring(block: jax.Array, devices: int, precision: str) -> jax.Array:
    """Squared scores of a device's samples by all samples, (own samples, all samples, M); 0 by themselves.

    Runs on every device inside of `shard_map`. `block` is the device's share.
    """
    share, tokens, _ = block.shape
    at = jax.lax.axis_index(AXIS)

    def shifted(x: jax.Array, by: int) -> jax.Array:
        return jax.lax.ppermute(x, AXIS, [(device, (device + by) % devices) for device in range(devices)])

    dtype = jnp.float32 if block.dtype.itemsize == 2 else block.dtype
    scores = jax.lax.pcast(jnp.zeros((share, devices, share, tokens), dtype), (AXIS,), to="varying")
    # On its way before the own samples are compared: the transfer hides behind the products.
    visitor = shifted(block, 1) if devices > 1 else block
    if share > 1:
        first, second = (jnp.asarray(x, jnp.int32) for x in np.triu_indices(share, k=1))
        to_second, to_first = _of_pairs(block, block, first, second, precision)
        scores = scores.at[first, at, second].set(to_second).at[second, at, first].set(to_first)
    every, other = (jnp.asarray(x, jnp.int32) for x in np.divmod(np.arange(share * share), share))
    for step in range(1, (devices - 1) // 2 + 1):
        home = (at - step) % devices
        current, visitor = visitor, shifted(visitor, 1) if step < devices // 2 else visitor
        own, theirs = _of_pairs(block, current, every, other, precision)
        scores = scores.at[:, home].set(own.reshape(share, share, tokens))
        theirs = shifted(theirs.reshape(share, share, tokens).swapaxes(0, 1), -step)
        scores = scores.at[:, (at + step) % devices].set(theirs)
    if devices % 2 == 0:
        # Opposite devices hold each other's samples: each computes half of the pairs.
        opposite = (at + devices // 2) % devices
        side = (at >= devices // 2).astype(jnp.int32)
        own_table, visitor_table = (jnp.asarray(x) for x in _antipodal_pairs(share))
        i, j = own_table[side], visitor_table[side]
        own, theirs = _of_pairs(block, visitor, i, j, precision)
        scores = scores.at[i, opposite, j].set(own)
        theirs = shifted(theirs, devices // 2)
        scores = scores.at[visitor_table[1 - side], opposite, own_table[1 - side]].set(theirs)
    return scores.reshape(share, devices * share, tokens)


def _centered_shares(blocks: tuple[jax.Array, ...], real: jax.Array, count: int) -> tuple[jax.Array, ...]:
    """The mean token of all real samples, of each modality; the same on all devices."""
    mask = real[:, None, None]
    totals = (jax.lax.psum(jnp.where(mask, block, 0).sum(axis=(0, 1)), AXIS) for block in blocks)
    return tuple(jax.lax.stop_gradient(t / (count * b.shape[1])) for t, b in zip(totals, blocks, strict=True))


def _in_half(block: jax.Array, real: jax.Array, dtype: jnp.dtype) -> tuple[jax.Array, jax.Array]:
    """(rounded, scale): as `musc_jax.mutual` rounds, with a scale that is the same on all devices."""
    largest = jax.lax.pmax(jax.lax.stop_gradient(jnp.where(real[:, None, None], jnp.abs(block), 0).max()), AXIS)
    scale = jnp.exp2(jnp.ceil(jnp.log2(jnp.maximum(largest, jnp.finfo(jnp.float32).tiny)))).astype(block.dtype)
    return (block / scale).astype(dtype), scale


def _sharded(
    features: tuple[jax.Array, ...],
    extra: tuple[jax.Array, ...],
    mesh: Mesh,
    average: Callable[..., tuple[jax.Array, ...]],
    *,
    count: int,
    precision: str,
    references: int | None,
    seed: int,
) -> tuple[jax.Array, ...]:
    """`average(scores (R, M) of each modality, *extra)` for each of `count` samples, computed where the sample lies."""
    kind = mesh.devices.flat[0].device_kind
    half = jnp.dtype(jnp.float16 if "NVIDIA" in kind else jnp.bfloat16)
    drawn = None
    if references is not None and references < count - 1:
        drawn = draw_references(count, references, seed=seed)
    scorers = tuple(x[drawn.samples] for x in features) if drawn else ()
    columns = (jnp.asarray(drawn.columns),) if drawn else ()

    def one_share(blocks: tuple, extra: tuple, scorers: tuple, columns: tuple) -> tuple[jax.Array, ...]:
        share = blocks[0].shape[0]
        index = jax.lax.axis_index(AXIS) * share + jnp.arange(share, dtype=jnp.int32)
        means = _centered_shares(blocks, index < count, count)
        blocks = tuple(b - mean[None, None] for b, mean in zip(blocks, means, strict=True))
        if drawn:
            scorers = tuple(s - mean[None, None] for s, mean in zip(scorers, means, strict=True))

            def by_drawn(sample: tuple) -> tuple[jax.Array, ...]:
                own, rest, (column,) = sample
                pairs = zip(own, scorers, strict=True)
                scores = (panel_scores(o[None], s, precision=precision)[0][column] for o, s in pairs)
                return average(*scores, *rest)

            return jax.lax.map(by_drawn, (blocks, extra, columns))
        squared, scales = [], []
        for block in blocks:
            scale = jnp.ones((), block.dtype)
            if precision == "fast" and block.dtype == jnp.float32:
                block, scale = _in_half(block, index < count, half)
            squared.append(_half_ring(block, mesh.size, precision))
            scales.append(scale)
        reference = jnp.arange(count - 1, dtype=jnp.int32)

        def by_others(sample: tuple) -> tuple[jax.Array, ...]:
            rows, rest, at = sample
            others = reference + (reference >= at).astype(jnp.int32)  # in their order, without the sample itself
            return average(*(safe_sqrt(r[others]) * scale for r, scale in zip(rows, scales, strict=True)), *rest)

        return jax.lax.map(by_others, (tuple(squared), extra, index))

    specs = (BY_SAMPLE, BY_SAMPLE, EVERYWHERE, BY_SAMPLE)
    mapped = jax.shard_map(one_share, mesh=mesh, in_specs=specs, out_specs=BY_SAMPLE)
    filled = (jax.tree.map(partial(_filled, mesh=mesh), x) for x in (features, extra, columns))
    features, extra, columns = filled
    return mapped(features, extra, scorers, columns)


def _filled(x: jax.Array, mesh: Mesh) -> jax.Array:
    """Fills up with zeros to a multiple of the devices."""
    missing = padded_count(x.shape[0], mesh) - x.shape[0]
    return jnp.pad(x, [(0, missing)] + [(0, 0)] * (x.ndim - 1)) if missing else x


def _real_count(features: Array, count: int | None, mesh: Mesh) -> int:
    if mesh.axis_names != (AXIS,):
        raise ValueError(f"mesh: expected one of musc_jax.execution.devices.make_mesh, received axes {mesh.axis_names}")
    if 0 in features.shape[1:]:
        raise ValueError(f"features: expected at least one token and channel, received shape {features.shape}")
    rows = features.shape[0]
    real = rows if count is None else count
    if real > rows:
        raise ValueError(f"count: expected at most the {rows} samples there are, received {real}")
    if real < 2:
        raise ValueError(f"features: N = {real}: samples score each other, so at least 2 are needed")
    return real


def _gathered(x: jax.Array, count: int, mesh: Mesh, dtype: jnp.dtype) -> jax.Array:
    """Scores are small: every device, and so every process, gets all of them."""
    return on_every_device(x, mesh)[:count].astype(dtype)


def sharded_mutual_scores(
    features: Float[Array, "N M C"],
    mesh: Mesh,
    *,
    interval: float = 0.3,
    precision: str = "full",
    references: int | None = None,
    seed: int = 0,
    count: int | None = None,
) -> Float[jax.Array, "count M"]:
    """`mutual_scores` over all devices of a mesh; to be called under `jit`, else each call compiles anew.

    Args:
        features: Aggregated tokens of N >= 2 samples: any array that all processes have, or one of `to_global`.
        mesh: Of `musc_jax.execution.devices.make_mesh`.
        interval: Share of the lowest scores that is averaged.
        precision: See `mutual_scores`.
        references: See `mutual_scores`.
        seed: See `mutual_scores`.
        count: How many samples are real; the rest is padding, whose content does not matter. Default all.

    Returns:
        Patch scores of the real samples in the dtype of `features`, on every device.

    Raises:
        ValueError: As `mutual_scores`; a mesh of several axes.
    """
    expect_shape("features", features, (None, None, None))
    _expect_precision(precision)
    interval_count(1, interval)  # refused here and not in the middle of a trace
    real = _real_count(features, count, mesh)
    wide, dtype = as_float(features)

    def average(scores: jax.Array) -> tuple[jax.Array, ...]:
        return (mean_of_lowest(scores, interval_count(len(scores), interval), axis=0),)

    drawing: dict[str, Any] = {"references": references, "seed": seed}
    (found,) = _sharded((wide,), (), mesh, average, count=real, precision=precision, **drawing)
    return _gathered(found, real, mesh, dtype)


def sharded_multimodal_scores(
    features_2d: Float[Array, "N M2 C2"],
    features_3d: Float[Array, "N M3 C3"],
    patch_of_group: Int[Array, "N M3"],
    mesh: Mesh,
    *,
    interval: float = 0.3,
    variant: str = "released",
    enhancement: bool = True,
    trust: bool = True,
    precision: str = "full",
    references: int | None = None,
    seed: int = 0,
    count: int | None = None,
) -> tuple[Float[jax.Array, "count M2"], Float[jax.Array, "count M3"]]:
    """`multimodal_scores` over all devices of a mesh; each enhances the scores of its own samples.

    To be called under `jit`, else each call compiles anew.

    Args:
        features_2d: Aggregated image tokens of N >= 2 samples, as in `sharded_mutual_scores`.
        features_3d: Aggregated group tokens of the same samples.
        patch_of_group: The image patch each group belongs to.
        mesh: Of `musc_jax.execution.devices.make_mesh`.
        interval: Share of the lowest scores that is averaged.
        variant: "released" or "paper", see `cross_modal_enhancement`.
        enhancement: False leaves the modalities apart.
        trust: False sets CAE's trust to 1.
        precision: See `mutual_scores`.
        references: See `mutual_scores`.
        seed: See `mutual_scores`.
        count: How many samples are real; the rest is padding. Default all.

    Returns:
        (scores_2d, scores_3d) of the real samples, dtypes as the features, on every device.

    Raises:
        ValueError: As `multimodal_scores`; a mesh of several axes.
    """
    expect_shape("features_2d", features_2d, (None, None, None))
    expect_shape("features_3d", features_3d, (features_2d.shape[0], None, None))
    expect_shape("patch_of_group", patch_of_group, features_3d.shape[:2])
    expect_variant(variant)
    _expect_precision(precision)
    interval_count(1, interval)
    real = _real_count(features_2d, count, mesh)
    dtypes = as_float(features_2d)[1], as_float(features_3d)[1]
    average = partial(average_both, interval=interval, variant=variant, enhancement=enhancement, trust=trust)
    features = same_dtype(features_2d, features_3d)
    patches = (as_index("patch_of_group", patch_of_group),)
    drawing: dict[str, Any] = {"references": references, "seed": seed}
    found = _sharded(features, patches, mesh, average, count=real, precision=precision, **drawing)
    return _gathered(found[0], real, mesh, dtypes[0]), _gathered(found[1], real, mesh, dtypes[1])
