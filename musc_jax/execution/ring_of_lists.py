"""Who meets whom on a ring of devices where each sample has a list of its own: no more than the listed pairs.

The samples travel all the way around. A device scores its own samples by those visitors that are in their lists; it
waits for the others only where the visitors move on.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from musc_jax.execution.devices import AXIS
from musc_jax.execution.schedule import Products
from musc_jax.pairs import squared_of_pairs

Block = tuple[jax.Array, jax.Array | None]
"""A device's tokens (samples, M, C), and which of them may be nearest; None: all."""


class Meetings(NamedTuple):
    """The pairs of each device and step of the ring; `numbers` of them are pairs, the rest fills up."""

    pairs: Int[np.ndarray, "devices steps P 3"]
    """Own sample, visitor, and the visitor's place in the own sample's list."""
    numbers: Int[np.ndarray, "devices steps"]


def meetings(columns: Int[np.ndarray, "N R"], devices: int) -> Meetings | None:
    """The meetings of lists over so many devices; None where meeting everybody half-way around is less work.

    Args:
        columns: For each sample its references; device d has the d-th share of the samples.
        devices: How many, D.
    """
    count, wanted = columns.shape
    if 2 * wanted >= count - 1:
        return None
    share = -(-count // devices)
    own = np.repeat(np.arange(count), wanted)
    other = np.asarray(columns).reshape(-1)
    place = np.tile(np.arange(wanted), count)
    device, home = own // share, other // share
    step = (device - home) % devices
    found = np.zeros((devices, devices), np.int32)
    np.add.at(found, (device, step), 1)
    pairs = np.zeros((devices, devices, int(found.max()), 3), np.int32)
    order = np.lexsort((step, device))
    group = device[order] * devices + step[order]
    at = np.arange(len(order)) - np.searchsorted(group, group)
    pairs[device[order], step[order], at] = np.stack([own % share, other % share, place], axis=1)[order]
    return Meetings(pairs, found)


def shifted(x: Any, by: int, devices: int) -> Any:
    """A tree of arrays, each device's sent to the one `by` places further on."""
    send = [(device, (device + by) % devices) for device in range(devices)]
    return jax.tree.map(lambda part: jax.lax.ppermute(part, AXIS, send), x)


def ring_of_lists(block: Block, meets: Meetings, wanted: int, devices: int, products: Products) -> jax.Array:
    """Squared scores of a device's samples by those in their lists, (own samples, R, M).

    Runs on every device inside of `shard_map`. `block` is the device's share, `meets` its part, with a leading axis of
    one.
    """
    tokens = block[0]
    options = {"precision": products.precision, "implementation": products.implementation}
    dtype = jnp.float32 if tokens.dtype.itemsize == 2 else tokens.dtype
    scores = jax.lax.pcast(jnp.zeros((len(tokens), wanted, tokens.shape[1]), dtype), (AXIS,), to="varying")
    visitor = block
    for step in range(devices):
        # The next ones are on their way before these are compared: the transfer hides behind the products.
        current, visitor = visitor, shifted(visitor, 1, devices) if step < devices - 1 else visitor
        pairs = meets.pairs[0, step]

        def one(at: jax.Array, scores: jax.Array, current: Block = current, pairs: jax.Array = pairs) -> jax.Array:
            own, other, place = pairs[at]
            there, _ = squared_of_pairs(tokens, current[0], own[None], other[None], block[1], current[1], **options)
            return scores.at[own, place].set(there[0])

        scores = jax.lax.fori_loop(0, meets.numbers[0, step], one, scores)
    return scores
