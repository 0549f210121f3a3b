"""Products that a device of the ring makes and bytes that it sends, counted in its program for 1 to 64 devices."""

import math

import jax
import numpy as np
import pytest
from jax.extend.core import ClosedJaxpr, Jaxpr
from jax.sharding import AbstractMesh, AxisType

from musc_jax.execution import sharded
from musc_jax.execution.devices import AXIS, BY_SAMPLE
from musc_jax.execution.schedule import Products

TOKENS, CHANNELS, FLOAT = 5, 7, 4


def counted(jaxpr):
    """(multiplications of matrix products, bytes sent to another device)."""
    total = np.zeros(2, int)
    for eqn in jaxpr.eqns:
        name, out = eqn.primitive.name, [x.aval for x in eqn.outvars]
        if name == "dot_general":
            (contracted, _), _ = eqn.params["dimension_numbers"]
            total[0] += out[0].size * math.prod(eqn.invars[0].aval.shape[axis] for axis in contracted)
        elif name == "ppermute":
            total[1] += sum(x.size * x.dtype.itemsize for x in out)
        assert name not in ("while", "cond"), "nobody knows how often"
        inner = [x for x in eqn.params.values() if isinstance(x, ClosedJaxpr | Jaxpr)]
        times = eqn.params["length"] if name == "scan" else 1
        total += sum(times * counted(getattr(x, "jaxpr", x)) for x in inner)
    return total


def ring(devices, share, tokens_at_once):
    """The program of `devices` devices that nobody need have."""
    mesh = AbstractMesh((devices,), (AXIS,), axis_types=(AxisType.Auto,))

    def one(tokens):
        return sharded._half_ring((tokens, None), devices, Products(tokens_at_once=tokens_at_once))

    shape = jax.ShapeDtypeStruct((devices * share, TOKENS, CHANNELS), np.float32)
    mapped = jax.shard_map(one, mesh=mesh, in_specs=BY_SAMPLE, out_specs=BY_SAMPLE)
    return jax.make_jaxpr(mapped)(shape).jaxpr


def up_to(count, size):
    return -(-count // size) * size


@pytest.mark.parametrize("devices", [1, 2, 3, 8, 13, 64])
@pytest.mark.parametrize("share", [4, 5])
def test_pairs_one_by_one(devices, share):
    """Each pair once: N^2 / 2D products; half of the others' samples arrive, and their scores go home."""
    steps, opposite = (devices - 1) // 2, devices > 1 and devices % 2 == 0
    last = -(-(share**2) // 2) if opposite else 0
    pairs = share * (share - 1) // 2 + steps * share**2 + last
    sent = devices // 2 * share * TOKENS * CHANNELS + (steps * share**2 + last) * TOKENS
    assert counted(ring(devices, share, 0)).tolist() == [pairs * TOKENS**2 * CHANNELS, sent * FLOAT]
    count = devices * share
    # What is more than everybody's fair part: the pair that opposite devices with an odd number of pairs both compute.
    assert pairs - count * (count - 1) / 2 / devices == (0.5 if opposite and share % 2 else 0)


@pytest.mark.parametrize("devices", [1, 2, 3, 8, 64])
@pytest.mark.parametrize("share", [4, 5])
def test_pairs_in_blocks(devices, share):
    """The same but for what fills blocks up."""
    size = 2
    whole, half = up_to(share, size), -(-share // 2)
    steps, opposite = (devices - 1) // 2, devices > 1 and devices % 2 == 0
    blocks = whole // size
    pairs = blocks * (blocks + 1) // 2 * size**2 + steps * whole**2 + (up_to(half, size) * whole if opposite else 0)
    home = steps * share**2 + (share * half if opposite else 0)
    sent = devices // 2 * share * TOKENS * CHANNELS + home * TOKENS
    assert counted(ring(devices, share, size * TOKENS)).tolist() == [pairs * TOKENS**2 * CHANNELS, sent * FLOAT]
