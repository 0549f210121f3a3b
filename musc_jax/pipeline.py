"""The composition: samples -> features -> patch scores -> maps -> results.

`score` is the whole of it for one division of the samples, `score_divisions` what it and `launch.eval` are made of.

from musc_jax import Config, pipeline
import weights
config = Config.released(modality="rgb", image_backbone=weights.load("dino-vitb8", "dino_vitb8"))
results = pipeline.score(samples, config)
"""

import contextlib
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Bool, Float, Int

from musc_jax import _options
from musc_jax.config import Config, ConfigError
from musc_jax.data.sample import Sample, SampleError
from musc_jax.execution.devices import AXIS, gather_list, make_mesh, samples_of_process
from musc_jax.execution.extraction import Features, Progress, extract
from musc_jax.execution.feature_store import FeatureStore, HostStore
from musc_jax.execution.free_memory import usable_beside_device, usable_memory
from musc_jax.execution.inside import Inside, inside_of
from musc_jax.execution.mapping import make_maps
from musc_jax.execution.memory import Plan
from musc_jax.execution.programs import Programs
from musc_jax.execution.scoring import PatchScores, devices_for, plan_for, salient_features, score_and_look
from musc_jax.execution.voting import Inquiry, Vote, inquire
from musc_jax.rescoring import rescore
from musc_jax.resolved import Resolved
from musc_jax.subsets import divide, expect_division


class Results(NamedTuple):
    """What N samples say about each other."""

    samples: list[Sample]
    """As read, without point maps."""
    pred_scores: Float[np.ndarray, "N"]
    """Sample scores, higher is more defective: re-scored, in [0, 1]; without re-scoring equal to `max_scores`."""
    max_scores: Float[np.ndarray, "N"]
    """Maxima of the anomaly maps, before re-scoring."""
    anomaly_maps: Float[np.ndarray, "N S S"]
    """Score of each pixel, higher is more defective, not bounded; with both modalities the sum of theirs. 0 outside of
    a sample's region of interest."""
    patch_scores: PatchScores
    """Scores of the tokens that the maps are made of."""
    skipped: tuple[SampleError, ...] = ()
    """Why samples were left out, with their names; they are in nothing above."""
    votes: tuple[Vote, ...] = ()
    """Who matched the places that were asked about."""
    recurring: tuple[tuple[str, ...], ...] = ()
    """Names of samples that share a defect, or what looks like one, group by group; where the config asks for it."""

    @property
    def inside(self) -> Bool[np.ndarray, "N S S"] | None:
        """The pixels in the samples' regions of interest; None where no sample has one."""
        return None if all(sample.roi is None for sample in self.samples) else np.stack(self.regions)

    @property
    def regions(self) -> list[Bool[np.ndarray, "S S"]]:
        """The region of interest of each sample; all of it where it has none."""
        whole = np.ones(self.anomaly_maps.shape[1:], bool)
        return [whole if sample.roi is None else sample.roi for sample in self.samples]


def classify(
    features: Features,
    scores: PatchScores,
    maps: Float[np.ndarray, "N S S"],
    config: Resolved,
    programs: Programs,
    *,
    inside: Inside | None = None,
) -> tuple[Float[np.ndarray, "N"], Float[np.ndarray, "N"]]:
    """(pred_scores, max_scores): sample scores after and before RsCon (paper III-D)."""
    highest = maps.max(axis=(1, 2))
    own = config.rescoring
    if not own.enabled:
        return highest, highest
    rescored = programs.run(
        "re-scoring",
        rescore,
        highest,
        salient_features(features, scores, programs, inside=inside),
        windows=own.windows if own.windowed else (len(maps),),
        variant=own.variant,
    )
    return np.asarray(rescored), highest


def _inside(features: Features, samples: Sequence[Sample], config: Resolved) -> Inside | None:
    """What counts of the samples; None where all of all of them does."""
    if all(sample.roi is None for sample in samples):
        return None  # before the pixels of groups are waited for
    pixels = None if features.points is None else np.asarray(features.points.center_pixels)
    patches = None if features.image is None else features.image.stages[0].shape[1]
    return inside_of(samples, size=config.size, num_patches=patches, center_pixels=pixels)


def _report_part(
    progress: Progress, before: int, size: int, whole: int, stage: str, done: int, total: int | None
) -> None:
    """Mutual scoring of a part as samples of all parts; the last of them counts when its part is done."""
    if stage == "mutual scoring" and total:
        progress("scoring", before + min(size * done // total, size - 1), whole)


def score_extracted(
    features: Features,
    samples: Sequence[Sample],
    config: Resolved,
    programs: Programs,
    *,
    parts: Sequence[Int[np.ndarray, " _"]] | None = None,
    plan: Plan | None = None,
    progress: Progress | None = None,
) -> Results:
    """Scores samples whose features are extracted, all by each other or part by part.

    Args:
        features: Of all samples.
        samples: As `extract` gave them; with several processes those of all, in order.
        config: A resolved config.
        programs: Compiles and times.
        parts: Indices of the samples that score each other, see `musc_jax.subsets`; each part is scored, re-scored and
            mapped by itself. Samples in no part are left out. Default: one part with all.
        plan: How many samples are scored at once, see `plan_for`.
        progress: Called with (stage, done, total).

    Returns:
        Results of the samples that are in a part, in the order of `samples`.
    """
    if parts is None or (len(parts) == 1 and len(parts[0]) == len(samples)):
        inside = _inside(features, samples, config)
        vouch = np.array([sample.vouches for sample in samples])
        given: dict[str, Any] = {"inside": inside, "vouch": None if vouch.all() else vouch}
        patch_scores, groups = score_and_look(features, config, programs, **given, plan=plan, progress=progress)
        recurring = tuple(tuple(samples[i].name for i in group) for group in groups)
        maps = make_maps(features, patch_scores, config, programs, inside=inside, progress=progress)
        judged = classify(features, patch_scores, maps, config, programs, inside=inside)
        return Results(list(samples), *judged, maps, patch_scores, recurring=recurring)
    found, done, total = [], 0, sum(map(len, parts))
    for part in parts:
        own = [samples[i] for i in part]
        within = partial(_report_part, progress, done, len(part), total) if progress else None
        found.append(score_extracted(features.take(part), own, config, programs, plan=plan, progress=within))
        done += len(part)
        if progress:
            progress("scoring", done, total)
    order = np.argsort(np.concatenate(parts))

    def together(*values: np.ndarray | jax.Array) -> np.ndarray:
        return np.concatenate([np.asarray(value) for value in values])[order]

    image, points = (
        None if own[0] is None else jnp.asarray(together(*own))
        for own in zip(*(results.patch_scores for results in found), strict=True)
    )
    return Results(
        [samples[i] for i in np.concatenate(parts)[order]],
        together(*(results.pred_scores for results in found)),
        together(*(results.max_scores for results in found)),
        together(*(results.anomaly_maps for results in found)),
        PatchScores(image, points),
        recurring=tuple(group for results in found for group in results.recurring),
    )


def score(
    samples: Iterable[Sample],
    config: Config,
    *,
    subsets: int = 1,
    batch_size: int | None = None,
    seed: int = 0,
    skip_bad: bool = False,
    memory_bytes: int | float | None = None,
    scratch_dir: Path | str | None = None,
    mesh: Mesh | None = None,
    programs: Programs | None = None,
    progress: Progress | None = None,
) -> Results:
    """Scores N unlabeled samples of one product by each other (MuSc-V2).

    Args:
        samples: At least 2, of the config's image size; a list, or a generator that loads them as they are needed.
        config: What to compute and with which backbones.
        subsets: Divide the samples at random into so many parts that are scored apart (paper, Table I).
        batch_size: Or into parts of so many samples (Table VII); default all together.
        seed: Of the division.
        skip_bad: Leave out samples that cannot be scored instead of refusing all (not with several processes).
        memory_bytes: What features, scores and maps may take; default most of what is free. Beyond that features go to
            a temporary folder, and few samples are scored at a time. Without effect where nobody knows how many samples
            there are (a generator).
        scratch_dir: Where that folder is made; default the system's.
        mesh: The devices that share the work, see `musc_jax.execution.devices.make_mesh`; default all there are. With
            several processes (`jax.distributed`) each of them calls this with the same list of samples, reads its own
            share of it and gets all results.
        programs: Pass one object to several calls to compile once, or one with `profile` to read times; default a new
            one.
        progress: Called with (stage, done, total).

    Returns:
        Scores and maps in the order of the samples.

    Raises:
        ConfigError: Options that contradict each other or make no sense, or a missing backbone; before any sample is
            read.
        SampleError: A sample whose size or modality does not fit, with fewer points than a group, or with features that
            are not finite.
        BudgetError: Too little memory.
        ValueError: Fewer than 2 samples, or fewer than 2 that vouch. With several processes: samples that cannot be
            counted, or fewer than there are shares.
    """
    _options.instance("config", config, Config)
    expect_division(subsets=subsets, batch_size=batch_size, seed=seed)
    _options.instance("skip_bad", skip_bad, bool)
    _expect_resources(memory_bytes, scratch_dir, mesh, programs, progress)
    mesh = usual_mesh() if mesh is None else mesh
    resolved = config.resolved(None if mesh is None else mesh.devices.flat[0])
    own, total = _own_samples(samples, mesh)
    budget = usable_memory() if memory_bytes is None else int(memory_bytes)
    plan = None if total is None else plan_for(resolved, total, budget, mesh, host=usable_beside_device())
    with _temporary_store(plan, scratch_dir) as store:
        (results,) = score_divisions(
            own,
            resolved,
            lambda seen: [divide(len(seen), subsets=subsets, batch_size=batch_size, seed=seed)],
            programs or Programs(),
            total=total,
            plan=plan,
            store=store,
            mesh=mesh,
            skip_bad=skip_bad,
            progress=progress,
        )
    return results


def _own_samples(samples: Iterable[Sample], mesh: Mesh | None) -> tuple[Iterable[Sample], int | None]:
    """Those that this process reads, and how many there are over all processes; None: nobody knows."""
    if not isinstance(samples, Iterable):
        raise _options.refuse("samples", "a list or a generator of samples", samples)
    total = len(samples) if isinstance(samples, Sized) else None
    if total is not None and total < 2:
        raise ValueError(f"N = {total}: samples score each other, so at least 2 are needed")
    if jax.process_count() == 1:
        return samples, total
    if not isinstance(samples, Sequence):
        raise ValueError("samples: with several processes expected a sequence, the same for all of them")
    return (samples[i] for i in own_share(len(samples), mesh or make_mesh())), total


Division = Sequence[Int[np.ndarray, " _"]]
"""Indices of the samples that score each other, part by part; see `musc_jax.subsets`."""


def score_divisions(
    samples: Iterable[Sample],
    config: Resolved,
    divide: Callable[[Sequence[Sample]], Iterable[Division]],
    programs: Programs,
    *,
    total: int | None = None,
    plan: Plan | None = None,
    store: FeatureStore | None = None,
    mesh: Mesh | None = None,
    skip_bad: bool = False,
    progress: Progress | None = None,
    inquiry: Inquiry | None = None,
) -> Iterator[Results]:
    """The one composition: features once, then patch scores, maps and sample scores for each division of the samples.

    Args:
        samples: With several processes this one's share of them, see `own_share`.
        config: What to compute.
        divide: From the samples that stay to their divisions, each of which is scored.
        programs: Compiles and times.
        total: How many samples there are over all processes; None: nobody knows.
        plan: Where features stay and how many samples are scored at once, see `plan_for`; None: all at once.
        store: Where features go that the plan puts on disk.
        mesh: The devices that share the work.
        skip_bad: Leave out samples that cannot be scored.
        progress: Called with (stage, done, total).
        inquiry: What is asked about divisions that are one part with all samples; not with several processes.

    Yields:
        The results of each division, as soon as it is scored.

    Raises:
        SampleError: See `score`.
        ValueError: Fewer than 2 samples.
    """
    skipped: list[SampleError] = []
    features, seen = extract(
        samples,
        config,
        programs,
        total=total,
        progress=progress,
        store=store,
        mesh=devices_for(plan, mesh),
        whole=total if jax.process_count() > 1 else None,
        skipped=skipped if skip_bad else None,
    )
    seen = gather_list(seen)
    for parts in divide(seen):
        results = score_extracted(features, seen, config, programs, parts=parts, plan=plan, progress=progress)
        own = inquiry if len(parts) == 1 else None
        votes = inquire(own, features, seen, results.pred_scores, results.anomaly_maps, config, programs)
        yield results._replace(skipped=tuple(skipped), votes=votes)


@contextlib.contextmanager
def _temporary_store(plan: Plan | None, folder: Path | str | None) -> Iterator[FeatureStore | None]:
    if plan is None or not plan.on_disk:
        yield HostStore() if plan is not None and plan.on_host else None
        return
    with tempfile.TemporaryDirectory(dir=folder) as place, FeatureStore(Path(place)) as store:
        yield store


def _expect_resources(
    memory_bytes: int | float | None,
    scratch_dir: Path | str | None,
    mesh: Mesh | None,
    programs: Programs | None,
    progress: Progress | None,
) -> None:
    """Refuses what `score` could not work with."""
    if memory_bytes is not None:
        _options.number("memory_bytes", memory_bytes, expected="a number above 0", above=0.0)
    if scratch_dir is not None and not (isinstance(scratch_dir, str | Path) and Path(scratch_dir).is_dir()):
        raise _options.refuse("scratch_dir", "a folder", scratch_dir)
    if mesh is not None and _options.instance("mesh", mesh, Mesh).axis_names != (AXIS,):
        raise _options.refuse("mesh", "one of musc_jax.execution.devices.make_mesh", mesh)
    if programs is not None:
        _options.instance("programs", programs, Programs)
    if progress is not None and not callable(progress):
        raise _options.refuse("progress", "a function of (stage, done, total)", progress)


def usual_mesh() -> Mesh | None:
    """All devices of all processes; None where there is but one."""
    return make_mesh() if jax.device_count() > 1 else None


def own_share(total: int, mesh: Mesh) -> range:
    """Which of `total` samples this process reads and extracts.

    Raises:
        ConfigError: So few samples that a process would have none.
    """
    share = -(-total // mesh.size)
    last = [device.process_index for device in mesh.devices.flat][: -(-total // share)]
    if len(set(last)) < jax.process_count():
        raise ConfigError(
            f"N = {total}: too few samples for {jax.process_count()} processes with {mesh.size} devices; start fewer"
        )
    return samples_of_process(total, mesh)
