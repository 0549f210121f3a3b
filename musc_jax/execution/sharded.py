"""Mutual scoring over many devices: the samples travel around the ring of devices, half-way only.

Who meets a visitor computes both directions of each pair and sends the visitor's scores home. Every unordered pair of
samples is multiplied once over all devices.

    from musc_jax.execution.sharded import sharded_mutual_scores
    from musc_jax.execution.devices import make_mesh

    mesh = make_mesh()
    scores = jax.jit(lambda z: sharded_mutual_scores(z, mesh))(features)
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, Int

from musc_jax._arrays import Array, as_float, as_index, expect_shape, expect_variant, safe_sqrt, same_dtype
from musc_jax.crossmodal import EnhanceAndAverage
from musc_jax.execution.devices import (
    AXIS,
    BY_SAMPLE,
    EVERYWHERE,
    everywhere,
    make_mesh,
    on_every_device,
    padded_count,
)
from musc_jax.execution.programs import copy_to_host_async
from musc_jax.execution.ring_of_lists import Block, Meetings, meetings, ring_of_lists, shifted
from musc_jax.execution.schedule import Counter, Machine, Products, Stage, map_some, masks_of
from musc_jax.kernels.rounding import common_scale, expect_precision
from musc_jax.mutual import AverageInterval, Finish, Scorers, finish_sample, interval_count
from musc_jax.pair_blocks import samples_of_block, scores_among, scores_of_all
from musc_jax.pairs import panel_scores, squared_of_pairs
from musc_jax.references import References, draw_references
from musc_jax.resolved import Device


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


def _half_ring(block: Block, devices: int, products: Products) -> jax.Array:
    """Squared scores of a device's samples by all samples, (own samples, all samples, M); 0 by themselves.

    Runs on every device inside of `shard_map`. `block` is the device's share.
    """
    share, tokens, _ = block[0].shape
    at = jax.lax.axis_index(AXIS)
    options: dict[str, Any] = {"precision": products.precision, "implementation": products.implementation}
    size = samples_of_block(tokens, products.tokens_at_once)

    def of_pairs(visitor: Block, first: jax.Array, second: jax.Array) -> tuple[jax.Array, jax.Array]:
        return squared_of_pairs(block[0], visitor[0], first, second, block[1], visitor[1], **options)

    def of_all(own: Block, others: Block) -> tuple[jax.Array, jax.Array]:
        """Scores of all own samples by all others, and of the others by the own."""
        if size > 1:
            return scores_of_all(own[0], others[0], own[1], others[1], size=size, **options)
        every, other = (jnp.asarray(x, jnp.int32) for x in np.divmod(np.arange(share * share), share))
        there, back = (x.reshape(share, share, tokens) for x in of_pairs(others, every, other))
        return there, back.swapaxes(0, 1)

    dtype = jnp.float32 if block[0].dtype.itemsize == 2 else block[0].dtype
    scores = jax.lax.pcast(jnp.zeros((share, devices, share, tokens), dtype), (AXIS,), to="varying")
    # On its way before the own samples are compared: the transfer hides behind the products.
    visitor = shifted(block, 1, devices) if devices > 1 else block
    if size > 1:
        scores = scores.at[:, at].set(scores_among(*block, size=size, **options))
    elif share > 1:
        first, second = (jnp.asarray(x, jnp.int32) for x in np.triu_indices(share, k=1))
        to_second, to_first = of_pairs(block, first, second)
        scores = scores.at[first, at, second].set(to_second).at[second, at, first].set(to_first)
    for step in range(1, (devices - 1) // 2 + 1):
        home = (at - step) % devices
        current, visitor = visitor, shifted(visitor, 1, devices) if step < devices // 2 else visitor
        own, theirs = of_all(block, current)
        scores = scores.at[:, home].set(own)
        theirs = shifted(theirs, -step, devices)
        scores = scores.at[:, (at + step) % devices].set(theirs)
    if devices % 2 == 0 and size > 1:
        opposite = (at + devices // 2) % devices
        scores = scores.at[:, opposite].set(_by_opposite(block, visitor, of_all, devices))
    elif devices % 2 == 0:
        # Opposite devices hold each other's samples: each computes half of the pairs.
        opposite = (at + devices // 2) % devices
        side = (at >= devices // 2).astype(jnp.int32)
        own_table, visitor_table = (jnp.asarray(x) for x in _antipodal_pairs(share))
        i, j = own_table[side], visitor_table[side]
        own, theirs = of_pairs(visitor, i, j)
        scores = scores.at[i, opposite, j].set(own)
        theirs = shifted(theirs, devices // 2, devices)
        scores = scores.at[visitor_table[1 - side], opposite, own_table[1 - side]].set(theirs)
    return scores.reshape(share, devices * share, tokens)


def _by_opposite(block: Block, visitor: Block, of_all: Callable, devices: int) -> jax.Array:
    """Scores (own, theirs, M) by the opposite device's samples, of which each of both computes half, in blocks.

    The device in the first half of the ring takes its first samples by all of the other's, the other one all of its own
    by the first one's last; with an odd number of samples the middle one is taken by both.
    """
    share = len(block[0])
    half, later = -(-share // 2), jax.lax.axis_index(AXIS) >= devices // 2
    theirs_last, own_first = (
        jax.tree.map(lambda x, s=s: x[s], b)
        for b, s in (
            (visitor, slice(share - half, None)),
            (block, slice(half)),
        )
    )
    rows = jax.tree.map(partial(jnp.where, later), theirs_last, own_first)
    everyone = jax.tree.map(partial(jnp.where, later), block, visitor)
    there, back = of_all(rows, everyone)
    received = shifted(jnp.where(later, there.swapaxes(0, 1), back), devices // 2, devices)
    empty = jax.lax.pcast(jnp.zeros((share, share, received.shape[2]), received.dtype), (AXIS,), to="varying")
    in_first = empty.at[share - half :].set(received.swapaxes(0, 1)).at[:half].set(there)
    in_second = empty.at[:, :half].set(received).at[:, share - half :].set(back)
    return jnp.where(later, in_second, in_first)


def _without_garbage(block: jax.Array, needed: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(tokens about the mean of those needed, that mean): the same mean on all devices; what is not needed is 0."""
    clean = jnp.where(needed[..., None], block, 0)
    total = jax.lax.psum(needed.sum(), AXIS)
    mean = jax.lax.stop_gradient(jax.lax.psum(clean.sum(axis=(0, 1)), AXIS) / jnp.maximum(total, 1).astype(block.dtype))
    return jnp.where(needed[..., None], block - mean[None, None], 0), mean


def _in_half(block: jax.Array, dtype: str) -> tuple[jax.Array, jax.Array]:
    """(rounded, scale), with a scale that is the same on all devices."""
    largest = jax.lax.pmax(jax.lax.stop_gradient(jnp.abs(block).max()), AXIS)
    scale = common_scale(largest).astype(block.dtype)
    return (block / scale).astype(dtype), scale


class _Drawn(NamedTuple):
    """The static part of `References`: samples that score (None: all), units, samples that are scored."""

    samples: tuple[int, ...] | None
    num_units: int
    num_scored: int

    @classmethod
    def of(cls, references: References) -> "_Drawn":
        samples = None if references.everyone or references.listed else tuple(references.samples.tolist())
        return cls(samples, references.num_units, len(references.columns))


def _score_over_mesh(
    features: tuple[jax.Array, ...],
    scorers: Scorers,
    extra: tuple,
    query_mask: tuple[jax.Array | None, ...],
    reference_mask: tuple[jax.Array | None, ...],
    meets: Meetings | None = None,
    *,
    drawn: _Drawn,
    finish: Finish,
    mesh: Mesh,
    products: Products,
) -> tuple[jax.Array, ...]:
    """`musc_jax.mutual.score_samples` over a mesh: each sample's scores are finished where the sample lies.

    Features may have padding behind the samples that are meant; what comes back has it, too. With `meets` no other
    pairs of samples meet.
    """
    columns, units = scorers
    chosen, count = drawn.samples, drawn.num_scored
    num_tokens = sum(x.shape[1] for x in features)
    at_once = products.finished_together(num_tokens, count if chosen is None else len(chosen))
    others, masks_of_others = (), ()
    if chosen is not None:
        index_of_others = np.array(chosen, np.int32)
        others, masks_of_others = jax.tree.map(lambda x: x[index_of_others], (features, reference_mask))

    def one_share(
        blocks: tuple, per_sample: tuple, valid: tuple, meets: Any, others: tuple, masks: tuple, units: Any
    ) -> tuple:
        share = blocks[0].shape[0]
        index = jax.lax.axis_index(AXIS) * share + jnp.arange(share, dtype=jnp.int32)
        real = (index < count)[:, None]
        tokens, means = [], []
        for block, query, reference in zip(blocks, per_sample[1], valid, strict=True):
            needed = real if query is None or reference is None else real & (query | reference)
            clean, mean = _without_garbage(block, jnp.broadcast_to(needed, block.shape[:2]))
            tokens.append(clean)
            means.append(mean)

        def finished(scores: Sequence[jax.Array], sample: tuple) -> tuple[jax.Array, ...]:
            column, query, rest = sample
            return finish_sample(finish, drawn.num_units, scores, column, units, query, rest)

        if chosen is not None:
            about = [
                x - mean[None, None] if mask is None else jnp.where(mask[..., None], x - mean[None, None], 0)
                for x, mean, mask in zip(others, means, masks, strict=True)
            ]

            def by_drawn(sample: tuple) -> tuple[jax.Array, ...]:
                own, rest = sample
                parts = zip(own, about, masks, strict=True)
                return finished([panel_scores(o[None], s, valid=m, **products.of_pairs)[0] for o, s, m in parts], rest)

            return map_some(by_drawn, (tuple(tokens), per_sample), at_once)
        squared, scales = [], []
        for clean, mask in zip(tokens, valid, strict=True):
            scale = jnp.ones((), clean.dtype)
            if products.precision == "fast" and clean.dtype == jnp.float32:
                clean, scale = _in_half(clean, products.half_type)
            if meets is None:
                squared.append(_half_ring((clean, mask), mesh.size, products))
            else:
                wanted = per_sample[0].shape[1]
                squared.append(ring_of_lists((clean, mask), meets, wanted, mesh.size, products))
            scales.append(scale)

        def by_all(sample: tuple) -> tuple[jax.Array, ...]:
            rows, rest = sample
            if meets is not None:
                # Of a list nothing but its own scores is there, in its order.
                rest = (jnp.arange(len(rest[0]), dtype=jnp.int32), *rest[1:])
            return finished([safe_sqrt(r[:count]) * s for r, s in zip(rows, scales, strict=True)], rest)

        return map_some(by_all, (tuple(squared), per_sample), at_once)

    filled = partial(_filled, mesh=mesh)
    blocks, per_sample, own_masks = jax.tree.map(filled, (features, (columns, query_mask, extra), reference_mask))
    specs = (BY_SAMPLE, BY_SAMPLE, BY_SAMPLE, BY_SAMPLE, EVERYWHERE, EVERYWHERE, EVERYWHERE)
    mapped = jax.shard_map(one_share, mesh=mesh, in_specs=specs, out_specs=BY_SAMPLE)
    return mapped(blocks, per_sample, own_masks, meets, others, masks_of_others, units)


def score_stage(
    stages: Sequence[Stage],
    finish: Finish,
    references: References,
    machine: Machine,
    *,
    extra: Sequence[Any] = (),
    query_mask: Sequence[Array | None] | None = None,
    reference_mask: Sequence[Array | None] | None = None,
    products: Products = Products(),  # noqa: B008 - immutable
    progress: Counter | None = None,
) -> tuple[jax.Array, ...]:
    """A `musc_jax.execution.schedule.Schedule`; scores are on the first device of every process when it returns."""
    mesh = machine.mesh or make_mesh(jax.local_devices()[:1])
    count = len(references.columns)
    members = None if machine.members is None else everywhere(machine.members.astype(np.int32), mesh)
    rows = count if members is not None else stages[0].shape[0]

    def spread(x: Array) -> jax.Array:
        host = np.asarray(x)
        return everywhere(np.pad(host, [(0, rows - len(host))] + [(0, 0)] * (host.ndim - 1)), mesh)

    per_sample = jax.tree.map(spread, (tuple(extra), tuple(masks_of(query_mask, len(stages)))))
    masks = jax.tree.map(spread, tuple(masks_of(reference_mask, len(stages))))
    columns, units = Scorers.of(references)
    scorers = Scorers(spread(columns), None if units is None else everywhere(np.asarray(units), mesh))
    meets = meetings(references.columns, mesh.size) if references.listed else None
    found = machine.programs.run(
        "mutual scoring",
        _score_stage,
        tuple(stages),
        members,
        scorers,
        *per_sample,
        masks,
        None if meets is None else everywhere(meets, mesh),
        drawn=_Drawn.of(references),
        finish=finish,
        mesh=mesh,
        products=products,
    )
    copy_to_host_async(found)
    placed = tuple(jnp.asarray(np.asarray(scores)) for scores in found)
    if progress is not None:
        progress(1, 1)
    return placed


def _score_stage(
    stages: tuple[jax.Array, ...],
    members: jax.Array | None,
    *arrays: Any,
    mesh: Mesh,
    drawn: _Drawn,
    **options: Any,
) -> tuple[jax.Array, ...]:
    if members is not None:
        stages = tuple(stage[members] for stage in stages)
    found = _score_over_mesh(stages, *arrays, mesh=mesh, drawn=drawn, **options)
    return tuple(_gathered(x, drawn.num_scored, mesh, jnp.dtype(jnp.float32)) for x in found)


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
    expect_precision(precision)
    interval_count(1, interval)  # refused here and not in the middle of a trace
    real = _real_count(features, count, mesh)
    wide, dtype = as_float(features)
    drawn = draw_references(real, references, seed=seed)
    (found,) = _sharded((wide,), AverageInterval(interval), drawn, mesh, (), precision)
    return _gathered(found, real, mesh, dtype)


def _sharded(
    features: tuple[jax.Array, ...], finish: Finish, references: References, mesh: Mesh, extra: tuple, precision: str
) -> tuple[jax.Array, ...]:
    none = (None,) * len(features)
    products = Products(precision, Device.of(mesh.devices.flat[0]).half_type)
    scorers = Scorers.of(references)
    rows = features[0].shape[0]
    scorers = scorers._replace(columns=jnp.pad(scorers.columns, ((0, rows - len(scorers.columns)), (0, 0))))
    options: dict[str, Any] = {"drawn": _Drawn.of(references), "finish": finish, "mesh": mesh, "products": products}
    return _score_over_mesh(features, scorers, extra, none, none, **options)


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
        patch_of_group: The image patch each group belongs to; out of range as in `align_modalities`.
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
    expect_precision(precision)
    interval_count(1, interval)
    real = _real_count(features_2d, count, mesh)
    dtypes = as_float(features_2d)[1], as_float(features_3d)[1]
    finish = EnhanceAndAverage(AverageInterval(interval), variant, enhancement, trust)
    features = same_dtype(features_2d, features_3d)
    patches = (as_index("patch_of_group", patch_of_group, features_2d.shape[1]),)
    drawn = draw_references(real, references, seed=seed)
    found = _sharded(features, finish, drawn, mesh, patches, precision)
    return _gathered(found[0], real, mesh, dtypes[0]), _gathered(found[1], real, mesh, dtypes[1])
