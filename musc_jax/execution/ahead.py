"""All programs of a run, known from its config and compiled before the first sample is read.

Compiling takes longer than most of what is computed, and on a GPU a minute. What will be compiled follows from shapes
alone, so the run is gone through once with shapes in place of arrays, in a thread, while weights and samples load.
"""

import contextlib
import threading
from typing import Any

import jax
import numpy as np

from musc_jax.execution import dense
from musc_jax.execution.image_extraction import ImageExtractor
from musc_jax.execution.memory import Plan
from musc_jax.execution.point_extraction import PointExtractor
from musc_jax.execution.programs import Programs
from musc_jax.execution.schedule import Machine
from musc_jax.execution.scoring import first_finish, products_of
from musc_jax.models import GivenTokens
from musc_jax.references import draw_references
from musc_jax.resolved import Resolved


class _Ahead(Programs):
    """Has whatever is asked for compiled, and gives shapes for results."""

    def __init__(self, programs: Programs) -> None:
        super().__init__()
        self._programs = programs

    def run(self, stage: str, function: Any, *args: Any, donate: tuple[int, ...] = (), **static: Any) -> Any:
        del stage
        return self._programs.prepare(function, *args, donate=donate, **static)


def compile_ahead(
    config: Resolved, programs: Programs, *, count: int | None = None, plan: Plan | None = None
) -> threading.Thread:
    """Starts compiling what a run on one device will need, in a thread.

    Nothing depends on it, and `Programs.cancel` ends it early: what is missing, or has another shape because a sample
    was left out, is compiled when it is met.

    Args:
        config: A resolved config.
        programs: What the run will be given.
        count: How many samples will score each other; None: not known, so scoring is not compiled.
        plan: Of the run; default everything at once.

    Returns:
        The thread, which ends when all is traced and some is still compiled.
    """
    # No daemon: one that is in JAX's hands when the interpreter ends takes the process down with it.
    thread = threading.Thread(target=_quietly, args=(config, programs, count, plan), name="compile ahead")
    thread.start()
    return thread


def _quietly(config: Resolved, programs: Programs, count: int | None, plan: Plan | None) -> None:
    # Whoever meets the program later says what is wrong with it, or with the config.
    with contextlib.suppress(Exception):
        go_through(config, programs, count=count, plan=plan)


def go_through(config: Resolved, programs: Programs, *, count: int | None = None, plan: Plan | None = None) -> None:
    """What `compile_ahead` does in its thread."""
    if any(path is not None and isinstance(path.backbone, GivenTokens) for path in (config.image, config.points)):
        return  # there is little to compile, and no backbone whose shapes are known
    ahead, stages = _Ahead(programs), []
    if config.image is not None:
        images = ImageExtractor(config.image, ahead)
        stages.append(images.compute(images.example(config.size)).stages[0])
    if config.points is not None:
        clouds = PointExtractor(config.points, ahead)
        stages.append(clouds.compute(clouds.example(config.size)).stages[0])
    if count is None or (plan is not None and not plan.whole_stages):
        return
    scoring = config.scoring
    if scoring.nearest_images is not None:
        return  # who scores whom follows from the features
    references = draw_references(count, scoring.references, seed=scoring.seed)
    tokens: Any = [jax.ShapeDtypeStruct((count, *stage.shape[1:]), stage.dtype) for stage in stages]
    both = len(tokens) == 2
    patches = (jax.ShapeDtypeStruct(tokens[1].shape[:2], np.int32),) if both else ()
    products = products_of(scoring)
    dense.score_stage(
        tokens, first_finish(scoring, both=both), references, Machine(ahead), extra=patches, products=products
    )
