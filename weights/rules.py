"""What naming schemes are written in: rules that say which entries of a checkpoint a parameter is made of, and how."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

Shape = tuple[int, ...]


class Transform(NamedTuple):
    """How entries become a parameter.

    Attributes:
        apply: Entries to the parameter.
        sources: The shapes that each entry may have for a parameter of that shape.
    """

    apply: Callable[..., np.ndarray]
    sources: Callable[[Shape], list[set[Shape]]]


class Rule(NamedTuple):
    """One parameter: where it goes, which entries it is made of, and how."""

    target: str
    sources: tuple[str, ...]
    transform: Transform


def _patch_shapes(target: Shape) -> list[set[Shape]]:
    side = round((target[0] / 3) ** 0.5)
    return [{(target[1], 3, side, side)}]


SAME = Transform(lambda x: x, lambda t: [{t}])
FLAT = Transform(lambda x: x.reshape(-1), lambda t: [{t, (1, *t), (1, 1, *t)}])
ROWS = Transform(lambda x: x.reshape(x.shape[-2:]), lambda t: [{t, (1, *t)}])
# timm's models with registers have no position for the class token.
ROWS_OF_PATCHES = Transform(
    lambda x: np.concatenate([np.zeros((1, x.shape[-1]), x.dtype), x.reshape(x.shape[-2:])]),
    lambda t: [{(t[0] - 1, t[1]), (1, t[0] - 1, t[1])}],
)
# (out, in) to (in, out).
LINEAR = Transform(lambda x: x.T, lambda t: [{t[::-1]}])
# A convolution of width 1, (out, in, 1), to (in, out).
POINTWISE = Transform(lambda x: x.reshape(x.shape[:2]).T, lambda t: [{t[::-1], (*t[::-1], 1)}])
# Two linear layers, or their biases, that are joined as rows.
FIRST_OF_TWO = Transform(lambda x: x[: len(x) // 2].T, lambda t: [{(2 * t[-1], *t[:-1])}])
SECOND_OF_TWO = Transform(lambda x: x[len(x) // 2 :].T, FIRST_OF_TWO.sources)
# (out, 3, p, p) to (p * p * 3, out): rows, columns, colours, as patches are flattened.
PATCHES = Transform(lambda x: x.transpose(2, 3, 1, 0).reshape(-1, x.shape[0]), _patch_shapes)
THREE_LINEAR = Transform(
    lambda *parts: np.concatenate([part.T for part in parts], axis=1), lambda t: [{(t[1] // 3, t[0])}] * 3
)
# Queries and values have a bias, keys have none; in the second form they are joined, and the keys' part is masked.
TWO_OF_THREE = Transform(lambda q, v: np.concatenate([q, np.zeros_like(q), v]), lambda t: [{(t[0] // 3,)}] * 2)
KEYS_MASKED = Transform(
    lambda x: np.concatenate([x[: len(x) // 3], np.zeros_like(x[: len(x) // 3]), x[-(len(x) // 3) :]]), SAME.sources
)
# No bias at all: its length is that of the weight's rows.
NO_BIAS = Transform(lambda weight: np.zeros(len(weight), weight.dtype), lambda t: [{(t[0], t[0] // 3)}])
THREE = Transform(lambda *parts: np.concatenate(parts), lambda t: [{(t[0] // 3,)}] * 3)


class Scheme(NamedTuple):
    """One way of naming the entries of a family.

    Attributes:
        name: Whose names they are.
        marker: An entry that only this scheme has.
        rules: The table for an architecture.
        blocks: What comes before a block's number.
        hidden: The MLP's first weight, behind a block's number.
        gate: The weight of a gated MLP's gate, likewise; "" where no such model has this scheme.
        gate_parts: 2 where the first layer is joined to the gate, behind it.
        patches, positions: The patch projection and the position embedding; "" where there are none.
        class_rows: Rows of the position embedding in front of the patches'.
        registers: Register tokens; "" where there are none.
        projection: Projection of the image embedding; "" where there is none.
        projection_axis: The axis of it that is as long as the embedding.
        rename: Brings names into the form the table has.
        ignored: Pattern of the entries that have no counterpart.
        zero: Entries that are ignored if they are 0, which they are in every published file.
    """

    name: str
    marker: str
    rules: Callable[..., list[Rule]]
    blocks: str
    hidden: str
    ignored: str
    gate: str = ""
    gate_parts: int = 1
    patches: str = ""
    positions: str = ""
    class_rows: int = 1
    registers: str = ""
    projection: str = ""
    projection_axis: int = 0
    rename: Callable[[str], str] = str
    zero: tuple[str, ...] = ()


def norm(target: str, source: str) -> list[Rule]:
    """Scale and bias of a layer norm."""
    return [
        Rule(f"{target}/scale", (f"{source}.weight",), SAME),
        Rule(f"{target}/bias", (f"{source}.bias",), SAME),
    ]


def dense(target: str, source: str) -> list[Rule]:
    """Kernel and bias of a linear layer."""
    return [
        Rule(f"{target}/kernel", (f"{source}.weight",), LINEAR),
        Rule(f"{target}/bias", (f"{source}.bias",), SAME),
    ]


def separate_qkv(target: str, query: str, key: str, value: str) -> list[Rule]:
    """Kernel and bias of three linear layers that are one here."""
    names = (query, key, value)
    return [
        Rule(f"{target}/kernel", tuple(f"{n}.weight" for n in names), THREE_LINEAR),
        Rule(f"{target}/bias", tuple(f"{n}.bias" for n in names), THREE),
    ]
