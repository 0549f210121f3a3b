"""The one signature of the schedules: which pairs of samples meet where and when is all that they differ in.

    scores = schedule(stages, finish, references, machine, extra=..., query_mask=..., reference_mask=..., products=...)

`dense` has a stage on one device and multiplies each pair once, `streamed` reads a few samples at a time, `sharded`
lets them travel around a ring of devices. Each gives what `musc_jax.mutual.score_samples` gives.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np
from jax.sharding import Mesh

from musc_jax._arrays import Array
from musc_jax.execution.feature_store import StoredArray
from musc_jax.execution.memory import Plan
from musc_jax.execution.programs import Programs
from musc_jax.mutual import Finish
from musc_jax.references import References

Stage = Array | StoredArray
"""Features (N, M, C) of one modality and stage."""

Counter = Callable[[int, int], None]
"""Called with (parts done, parts in all)."""


# Scores that are finished together: 134 MB, of which the enhancement takes a dozen copies.
_VALUES_AT_ONCE = 2**25


class Products(NamedTuple):
    """How tokens are multiplied, and how many samples at a time.

    Attributes:
        precision: One of `musc_jax.kernels.rounding.PRECISIONS`.
        half_type: The type that "fast" rounds to.
        implementation: One of `musc_jax.kernels.IMPLEMENTATIONS`.
        tokens_at_once: Rows of a product at the most, of as many samples as have no more; 0: one pair of samples.
        samples_at_once: Samples whose scores are finished at a time, at the most.
    """

    precision: str = "full"
    half_type: str = "bfloat16"
    implementation: str = "auto"
    tokens_at_once: int = 0
    samples_at_once: int = 1

    @property
    def of_pairs(self) -> dict[str, Any]:
        """Options of `musc_jax.pairs.panel_scores` and `block_scores`."""
        found = self._asdict()
        del found["samples_at_once"]
        return found

    def finished_together(self, tokens: int, scorers: int) -> int:
        """How many samples of so many tokens, scored by so many others, are finished at a time."""
        return max(1, min(self.samples_at_once, _VALUES_AT_ONCE // max(1, tokens * scorers)))


class Machine(NamedTuple):
    """What a schedule runs on.

    Attributes:
        programs: Compiles and times.
        plan: How many samples are scored at a time; None: all at once.
        mesh: The devices that a stage is spread over; None: one.
        members: With a mesh, (N,) which of the samples that lie there are meant; None: the first N.
    """

    programs: Programs
    plan: Plan | None = None
    mesh: Mesh | None = None
    members: np.ndarray | None = None


@runtime_checkable
class Schedule(Protocol):
    """Patch scores of one stage."""

    def __call__(
        self,
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
        """Scores the samples of one stage.

        Args:
            stages: Features of each modality.
            finish: From one sample's scores to its patch scores, see `musc_jax.mutual.Finish`.
            references: Who scores whom, and what counts as one.
            machine: Where it runs.
            extra: Arrays with one row a sample, whose rows `finish` gets.
            query_mask: (N, M) for each modality: tokens that are scored; others get 0 and may hold anything.
            reference_mask: (N, M) for each modality: tokens that score others.
            products: How tokens are multiplied.
            progress: Told how far it is.

        Returns:
            (N, M) patch scores of each modality.
        """
        ...


def map_some(function: Callable[[Any], Any], samples: Any, at_once: int) -> Any:
    """`jax.lax.map` over a tree of arrays with samples along the first axis, some of them mapped together.

    The last part is filled up by repeating, so that there is one program for all, and parts are about equally large.
    """
    if at_once <= 1:
        return jax.lax.map(function, samples)
    count = len(jax.tree.leaves(samples)[0])
    parts = -(-count // at_once)
    size = -(-count // parts)
    index = np.minimum(np.arange(parts * size), count - 1).astype(np.int32).reshape(parts, size)

    def some(rows: jax.Array) -> Any:
        return jax.vmap(function)(jax.tree.map(lambda x: x[rows], samples))

    found = jax.lax.map(some, jax.numpy.asarray(index))
    return jax.tree.map(lambda x: x.reshape(parts * size, *x.shape[2:])[:count], found)


def masks_of(masks: Sequence[Array | None] | None, count: int) -> list[np.ndarray | None]:
    """One mask on the host, or None, for each modality."""
    if masks is None:
        return [None] * count
    return [None if mask is None else np.asarray(mask, bool) for mask in masks]
