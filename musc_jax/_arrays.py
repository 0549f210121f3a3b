"""Array conventions and safe primitives shared by the scoring functions.

Each primitive names the failure it prevents. Everything here is internal: the public functions state their own
contracts.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array | np.ndarray

PRECISION = jax.lax.Precision.HIGHEST


def as_float(x: Array) -> tuple[jax.Array, jnp.dtype]:
    """Returns `x` in at least float32, and the dtype a result should be returned in.

    float64 stays float64 under `jax.enable_x64` and becomes float32 otherwise. bfloat16 and float16 are widened for the
    arithmetic: distances and means in half precision lose the small differences that a defect consists of.
    """
    x = jnp.asarray(x)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f"expected floating point values, received {x.dtype}")
    wide = x.dtype if x.dtype.itemsize >= 4 else jnp.dtype(jnp.float32)
    return x.astype(wide), x.dtype


def same_dtype(*arrays: Array) -> tuple[jax.Array, ...]:
    """Casts all to the widest of their dtypes, so that strict promotion has nothing to complain about."""
    wide = [as_float(x)[0] for x in arrays]
    dtype = max((x.dtype for x in wide), key=lambda dtype: dtype.itemsize)
    return tuple(x.astype(dtype) for x in wide)


def is_known(x: Array) -> bool:
    """Whether the values can be looked at: not behind `jit` or `vmap`, nor partly on devices of another process."""
    return not isinstance(x, jax.Array) or (not isinstance(x, jax.core.Tracer) and x.is_fully_addressable)


def as_index(name: str, x: Array | int, size: int, *, where: Array | None = None) -> jax.Array:
    """Returns indices of `size` places as int32, every one of them from 0 to size - 1.

    Out of range, NumPy counts negative ones from the end, JAX reads the last place and writes nowhere. Here values that
    are known are refused, and those behind `jit` or `vmap` count as the nearest in range, read or written.

    An int64 NumPy array that is used both inside and outside of `jax.enable_x64` would bring the wider type along from
    one to the other, hence int32; no cloud has 2^31 points.

    Args:
        name: For the message.
        x: Integers of any type and shape.
        size: How many places there are.
        where: Which of `x` count, in its shape; the others may hold anything. All by default.

    Raises:
        ValueError: No integers, or known values out of range.
    """
    x = x if isinstance(x, jax.Array) else np.asarray(x)
    if not np.issubdtype(x.dtype, np.integer):
        raise ValueError(f"{name}: expected integers, received {x.dtype}")
    if is_known(x) and (where is None or is_known(where)):
        values = np.asarray(x)
        outside = (values < 0) | (values >= size)
        outside = outside if where is None else outside & np.asarray(where).astype(bool)
        if outside.any():
            raise ValueError(f"{name}: expected indices from 0 to {size - 1}, received {values[outside][0]}")
    x = x.astype(np.int32) if x.dtype.itemsize < 4 else x
    clip = jnp.clip if isinstance(x, jax.Array) else np.clip
    # Wide types are cut first: the cast would bring 2^32 back into range.
    return jnp.asarray(clip(x, 0, max(size - 1, 0)).astype(np.int32))


def expect_shape(name: str, x: Array, shape: Sequence[int | None]) -> None:
    """Raises a ValueError that states expected and received shape; None matches any size."""
    received = np.shape(x)
    if len(received) != len(shape) or any(want not in (None, got) for want, got in zip(shape, received, strict=True)):
        expected = "(" + ", ".join("any" if s is None else str(s) for s in shape) + ")"
        raise ValueError(f"{name}: expected shape {expected}, received {received}")


def expect_variant(variant: str) -> None:
    """Refuses a variant that is neither the released program's nor the paper's."""
    if variant not in ("released", "paper"):
        raise ValueError(f'variant: expected "released" or "paper", received {variant!r}')


def points_and_mask(points: Array, valid: Array | None) -> tuple[jax.Array, jax.Array]:
    """Returns finite float points (P, 3) and the mask (P,) of those that count.

    Points behind the mask may hold anything, NaN included: they become 0, because NaN times 0 is still NaN.

    Raises:
        ValueError: The cloud has no point. Behind `jit` or `vmap` a mask has no value yet; only its shape is checked.
    """
    expect_shape("points", points, (None, 3))
    wide, _ = as_float(points)
    if valid is None:
        mask = jnp.ones(len(wide), bool)
    else:
        expect_shape("valid", valid, (len(wide),))
        mask = jnp.asarray(valid).astype(bool)
    if len(wide) == 0 or (valid is not None and is_known(valid) and not np.asarray(valid).any()):
        raise ValueError("empty cloud: expected at least one valid point, received none")
    return jnp.where(mask[:, None], wide, 0), mask


def square_side(num_tokens: int) -> int:
    """The side of a square grid of tokens; ValueError when the tokens form none."""
    side = math.isqrt(num_tokens)
    if side * side != num_tokens or not side:
        raise ValueError(f"tokens: expected a square grid, received {num_tokens} tokens")
    return side


def safe_sqrt(x: jax.Array) -> jax.Array:
    """Square root with value and gradient 0 at 0 and below; NaN stays NaN.

    The plain one has an infinite gradient at 0, which becomes NaN as soon as it meets a zero, and a squared distance
    computed in float32 may come out slightly negative.
    """
    positive = ~(x <= 0)  # not x > 0: a broken sample must not come out as a perfect match
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1)), 0)


def safe_norm(x: jax.Array, *, keepdims: bool = False) -> jax.Array:
    """Euclidean norm over the last axis with gradient 0 at the zero vector."""
    return safe_sqrt(jnp.sum(x * x, axis=-1, keepdims=keepdims))


def all_finite(arrays: Sequence[jax.Array], *, samples: int = 0) -> jax.Array:
    """Whether no value is NaN or infinite; of each sample where the first `samples` axes count samples."""
    each = [jnp.isfinite(x).all(axis=tuple(range(samples, x.ndim))) for x in arrays]
    return jnp.stack(each).all(axis=0)


def unit(x: jax.Array) -> jax.Array:
    """Divides by the norm over the last axis; the zero vector stays zero (floor 1e-12, as PyTorch's normalize)."""
    return x / jnp.maximum(safe_norm(x, keepdims=True), 1e-12)


def smallest(values: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
    """The k smallest of the last axis, ascending, ties by position: (values, indices), each (..., k).

    The barrier keeps XLA:CPU on its TopK routine: when the two outputs are sliced differently further on, it otherwise
    rewrites the call into a full sort, thirty times slower. Indices come first, as a barrier around the call's very own
    pair of outputs makes XLA crash where several devices are compiled for.
    """
    negated, indices = jax.lax.top_k(-values, k)
    indices, negated = jax.lax.optimization_barrier((indices, negated))
    return -negated, indices


def join_batches(batches: list[list[Array]], kept: np.ndarray, *, on_host: bool) -> list[Array]:
    """For each stage the arrays of all samples as one, out of batches that have all stages.

    Lets go of a stage's parts before it joins the next: one stage at most is in memory twice.

    Args:
        batches: Of each batch its stages, samples along the first axis; is emptied.
        kept: Which of all samples stay, ascending.
        on_host: Joins with NumPy.
    """
    starts = np.cumsum([0, *(len(stages[0]) for stages in batches)])
    if len(kept) < starts[-1]:
        rows = [kept[(kept >= start) & (kept < end)] - start for start, end in pairwise(starts)]
        batches[:] = [[stage[own] for stage in stages] for stages, own in zip(batches, rows, strict=True) if len(own)]
    columns = [list(column) for column in zip(*batches, strict=True)]
    batches.clear()
    joined = []
    for column in columns:
        joined.append((np if on_host else jnp).concatenate(column))
        column.clear()
    return joined
