"""Faster forms of the method's operations, and the table that says which platform takes which.

A method file states an operation in the few lines of its equation:

    @operation("lowest_mean")
    def lowest_mean(values, *, count, axis): ...

Calling it runs the form that this package has for the platform a program is lowered for, or the statement itself where
there is none or `implementation="plain"` asks for it. A form has the statement's signature and, up to its tolerance,
its values; `tests/kernels/test_forms.py` holds every form of the table against its statement. Forms import nothing of
the method. A platform is all that the table looks at: what depends on more (a device's capability, the half type
that it multiplies fastest) is decided once, in `musc_jax.resolved.Resolved`, and comes as an option.

| add | where |
|---|---|
| an operation | the statement in its method file, under `operation`; inputs in `tests/kernels/cases.py` |
| a form | a function here, a row in `FORMS`; docs/architecture.md has all steps |
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax

from musc_jax.kernels import (
    attention,
    block_minima,
    farthest_points,
    group_encoding,
    group_expansion,
    lowest_mean,
    nearest_centers,
    nearest_points,
    pair_minima,
    rank_matching,
    window_pooling,
)

IMPLEMENTATIONS = ("auto", "plain")
"""auto: the form of the platform. plain: the statements, for tests and for looking closely."""


class Form(NamedTuple):
    """One way to compute an operation.

    Attributes:
        function: Of the statement's signature.
        tolerance: Largest difference from the statement in float32, as a share of the largest value; 0: the same.
        reason: The gain, and on what it was measured.
    """

    function: Callable[..., Any]
    tolerance: float
    reason: str


FORMS: Mapping[str, Mapping[str, Form]] = {
    "attention": {
        "cpu": Form(attention.head_by_head, 2e-5, "one head's scores stay in the cache: 9 times the batched product"),
        "cuda": Form(attention.fused_where_taken, 2e-5, "cuDNN's fused kernel in half precision"),
    },
    "farthest_points": {
        "default": Form(farthest_points.by_row_maxima, 0, "no argmax over all points: 9 times faster on a CPU"),
        "cpu": Form(farthest_points.by_rows_in_reach, 0, "and only where a new point can be nearest: 25 times"),
    },
    "nearest_points": {
        "default": Form(nearest_points.by_boxes, 0, "looks into the nearest boxes only: 25 times lax.top_k on a CPU"),
    },
    "group_expansion": {
        "default": Form(group_expansion.rough_ones_alone, 0, "flat groups cost nothing, rough ones go 64 at a time"),
    },
    "group_tokens": {
        "default": Form(group_encoding.in_large_chunks, 2e-5, "a quarter of the products less, 256 groups at a time"),
        "cpu": Form(group_encoding.in_small_chunks, 2e-5, "and nothing of all points written down: 2 times"),
    },
    "window_pooling": {
        "default": Form(window_pooling.by_offsets, 2e-6, "similarities once for all degrees, no window written down"),
    },
    "nearest_groups": {
        "default": Form(nearest_centers.in_batches, 0, "no (G, G, 3) differences"),
    },
    "nearest_centers": {
        "default": Form(nearest_centers.by_blocks_of_points, 0, "a block of points looks at the 48 nearest centres"),
    },
    "lowest_mean": {
        "default": Form(
            lowest_mean.by_bisection, 1e-6, "counting passes instead of a sort: 9 times lax.top_k's speed on a CPU"
        ),
    },
    "pair_minima": {
        "default": Form(
            pair_minima.by_one_product, 1e-5, "one matrix product for both directions, minima folded into it"
        ),
    },
    "block_minima": {
        "default": Form(
            block_minima.by_one_product, 1e-5, "one product for all pairs of two blocks: 4 times the scan on an H200"
        ),
    },
    "rank_match": {
        "default": Form(
            rank_matching.by_two_sorts, 0, "a stable sort of each side; on a CPU by whole numbers, 6 times faster"
        ),
    },
    "enhance_by_rank": {
        "default": Form(rank_matching.with_one_order, 0, "own scores are sorted once for both matches"),
    },
}
"""Operation to platform ("cpu", "cuda", "rocm", "tpu", or "default" for those not named) to form."""


class Operation:
    """A statement and its forms under one name.

    Attributes:
        name: In `FORMS`.
        statement: The plain one.
    """

    def __init__(self, name: str, statement: Callable[..., Any]) -> None:
        self.name, self.statement = name, statement
        self.__doc__ = statement.__doc__

    def __call__(self, *arrays: Any, implementation: str = "auto", **options: Any) -> Any:
        """Computes the operation.

        Args:
            arrays: The statement's arrays; None where an optional one is left out.
            implementation: One of `IMPLEMENTATIONS`.
            options: The statement's static options.
        """
        expect_implementation(implementation)
        forms = FORMS.get(self.name)
        if implementation == "plain" or forms is None:
            return self.statement(*arrays, **options)
        chosen = {platform: partial(form.function, **options) for platform, form in forms.items()}
        if chosen.keys() == {"default"}:
            return chosen["default"](*arrays)
        chosen.setdefault("default", partial(self.statement, **options))
        return jax.lax.platform_dependent(*arrays, **chosen)


OPERATIONS: dict[str, Operation] = {}
"""By name; filled when the method's modules are imported."""


def operation(name: str) -> Callable[[Callable[..., Any]], Operation]:
    """Decorator that makes an `Operation` of its plain statement."""

    def named(statement: Callable[..., Any]) -> Operation:
        if name in OPERATIONS:
            raise ValueError(f"operation: {name!r} is stated twice, in {statement.__module__} and elsewhere")
        return OPERATIONS.setdefault(name, Operation(name, statement))

    return named


def expect_implementation(implementation: str) -> None:
    """Refuses what is no implementation."""
    if implementation not in IMPLEMENTATIONS:
        raise ValueError(f"implementation: expected one of {', '.join(IMPLEMENTATIONS)}, received {implementation!r}")
