"""Samples to features: what scoring needs of N samples, collected one by one."""

import dataclasses
from collections.abc import Callable, Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Int

from musc_jax.data.sample import Sample, SampleError, SampleTokens
from musc_jax.execution.devices import gather_rows, local_mesh, samples_of_process, to_global
from musc_jax.execution.feature_store import FeatureStore
from musc_jax.execution.image_extraction import ImageExtractor, ImageFeatures
from musc_jax.execution.inside import without_outside
from musc_jax.execution.point_extraction import PointExtractor, PointFeatures
from musc_jax.execution.programs import Programs
from musc_jax.models import GivenTokens
from musc_jax.resolved import ImagePath, Resolved

# Called with a stage's name, how many samples are done, and how many there are (None: not known).
Progress = Callable[[str, int, int | None], None]


class Spread(NamedTuple):
    """How features lie over several devices.

    The stages are global arrays then, over all samples that were extracted and padding, and stay whole; clouds are
    those of this process's samples; all else is on every host, of the N samples that are meant.
    """

    mesh: Mesh
    num_extracted: int
    """Samples that were extracted, over all processes."""
    own: range
    """Those that this process extracted."""
    members: Int[np.ndarray, "N"]
    """Which of the extracted samples are meant."""

    @property
    def whole(self) -> bool:
        """Whether all that were extracted are meant."""
        return len(self.members) == self.num_extracted


class Features(NamedTuple):
    """All that scoring needs of N samples."""

    image: ImageFeatures | None
    points: PointFeatures | None
    spread: Spread | None = None
    """Where they lie over several devices; None where there is one."""

    @property
    def num_samples(self) -> int:
        """N."""
        if self.spread is not None:
            return len(self.spread.members)
        return len((self.image or self.points).stages[0])  # type: ignore[union-attr]

    def take(self, part: Int[np.ndarray, " n"]) -> "Features":
        """The features of some of the samples."""
        if self.spread is None:
            return jax.tree.map(lambda array: array[part], self)
        image, points = self.image, self.points
        if image is not None and image.embedding is not None:
            image = image._replace(embedding=image.embedding[part])
        if points is not None:
            points = points._replace(
                centers=points.centers[part],
                center_pixels=points.center_pixels[part],
                curvature=points.curvature[part],
            )
        return Features(image, points, self.spread._replace(members=self.spread.members[part]))


def extract(
    samples: Iterable[Sample],
    config: Resolved,
    programs: Programs,
    *,
    total: int | None = None,
    progress: Progress | None = None,
    store: FeatureStore | None = None,
    mesh: Mesh | None = None,
    whole: int | None = None,
    skipped: list[SampleError] | None = None,
) -> tuple[Features, list[Sample]]:
    """Runs the backbones over the samples and aggregates their tokens (paper III-A, III-B).

    Args:
        samples: Read one by one; may come from a generator that loads ahead. With several processes this one's share,
            see `samples_of_process`.
        config: A resolved config.
        programs: Compiles and times.
        total: How many samples there are, for the progress.
        progress: Called with ("features", done, total).
        store: Where features go; default they stay on the device.
        mesh: The devices over which samples are extracted and, without a store, features are spread; default one.
        whole: With several processes, how many samples all of them extract.
        skipped: Takes the errors of samples that cannot be scored, in order, which are left out; default the first one
            that is found is raised, and so it is with several processes.

    Returns:
        The features, and the samples as read, without their point maps (the features hold those normalised).

    Raises:
        SampleError: A sample's size or modality is not what the config says, a cloud has fewer points than a group, or
            features are not finite; this shows when the next batch has been dispatched.
        ValueError: Fewer than 2 samples.
    """
    extraction = _Extraction(config, programs, store, mesh, skipped)
    iterator, done = iter(samples), 0
    while True:
        with programs.timed("loading"):
            sample = next(iterator, None)
        if sample is None:
            break
        extraction.add(sample)
        done += 1
        if progress:
            progress("features", done, total)
    return extraction.finish(whole)


class _Extraction:
    """The extractors of both modalities, and which of the samples stay."""

    def __init__(
        self,
        config: Resolved,
        programs: Programs,
        store: FeatureStore | None,
        mesh: Mesh | None,
        skipped: list[SampleError] | None,
    ) -> None:
        own = local_mesh(mesh)
        self._image = ImageExtractor(config.image, programs, store, own) if config.image else None
        self._points = PointExtractor(config.points, programs, store, own) if config.points else None
        self._mesh = None if store is not None else mesh
        self._config, self._skipped = config, skipped
        self._left_out: list[tuple[int, SampleError]] = []
        self._taken = 0
        self._seen: list[tuple[int, Sample]] = []
        self._kept: list[int] = []
        self._judged = 0

    def add(self, sample: Sample) -> None:
        """Takes the next sample, or leaves it out."""
        at, self._taken = self._taken, self._taken + 1
        paths = self._config.image, self._config.points
        given, grouped = (path is not None and isinstance(path.backbone, GivenTokens) for path in paths)
        try:
            self._expect_fit(sample)
            seen = without_outside(sample, grouped=grouped)
            if self._points and seen.points is not None:
                self._points.add(sample.name, seen.points, sample.tokens)
        except SampleError as error:
            self._leave_out(at, error)
            return
        if self._image:
            self._image.add(sample.tokens if given and sample.tokens else seen.image)
        self._seen.append((at, dataclasses.replace(sample, points=None, tokens=None)))
        self._judge()

    def _expect_fit(self, sample: Sample) -> None:
        size = self._config.size
        if sample.image.shape != (size, size, 3):
            raise SampleError(sample.name, f"expected an image of {size} x {size}, received {sample.image.shape}")
        if self._points and (sample.points is None or sample.points.shape != (size, size, 3)):
            received = None if sample.points is None else sample.points.shape
            raise SampleError(sample.name, f"expected points ({size}, {size}, 3), received {received}")
        for kind, path in (("image", self._config.image), ("points", self._config.points)):
            if path is not None and isinstance(path.backbone, GivenTokens):
                _expect_tokens(sample, kind, path.backbone)
                if isinstance(path, ImagePath) and path.version1 and getattr(sample.tokens, "embedding", None) is None:
                    raise SampleError(sample.name, "expected an embedding of its image for version 1, received none")

    def _leave_out(self, at: int, error: SampleError) -> None:
        if jax.process_count() > 1:
            # The others have their shares by the number of samples that there were.
            raise SampleError(error.name, f"{error.problem}; several processes cannot leave it out, one can (skip_bad)")
        if self._skipped is None:
            raise SampleError(error.name, f"{error.problem}; skip_bad leaves it out")
        self._left_out.append((at, error))

    def _judge(self) -> None:
        """Looks at the samples that have gone through all backbones since the last time.

        A single NaN would spread to all samples through the common mean that scoring subtracts.
        """
        extractors = {"image": self._image, "points": self._points}
        flags = {kind: extractor.finite for kind, extractor in extractors.items() if extractor}
        ready = min(map(len, flags.values()))
        for at in range(self._judged, ready):
            broken = [kind for kind, finite in flags.items() if not finite[at]]
            if not broken:
                self._kept.append(at)
                continue
            place, sample = self._seen[at]
            self._leave_out(place, SampleError(sample.name, f"features of its {' and '.join(broken)} are not finite"))
        self._judged = ready

    def finish(self, whole: int | None) -> tuple[Features, list[Sample]]:
        """What `extract` returns."""
        extractors = [extractor for extractor in (self._image, self._points) if extractor]
        for extractor in extractors:
            extractor.flush()
        self._judge()
        errors = [error for _, error in sorted(self._left_out, key=lambda entry: entry[0])]
        if self._skipped is not None:
            self._skipped += errors
        count = whole if whole is not None and jax.process_count() > 1 else len(self._kept)
        if count < 2:
            needed = f"N = {count}: samples score each other, so at least 2 are needed"
            if errors:
                raise SampleError(errors[-1].name, f"{errors[-1].problem}; without it {needed}")
            raise ValueError(needed)
        kept = np.array(self._kept)
        image = self._image.finish(kept) if self._image else None
        features = Features(image, self._points.finish(kept) if self._points else None)
        if self._mesh is not None:
            features = _spread(features, count, self._mesh)
        return features, [self._seen[i][1] for i in self._kept]


def _expect_tokens(sample: Sample, kind: str, given: GivenTokens) -> None:
    """Refuses tokens of a sample that are not those that the config speaks of."""
    tokens = sample.tokens or SampleTokens()
    expected = [(given.num_tokens, width) for width in given.widths]
    received = [stage.shape for stage in getattr(tokens, kind)]
    if received != expected:
        wanted, found = (", ".join(map(str, shapes)) or "none" for shapes in (expected, received))
        raise SampleError(sample.name, f"tokens of its {kind}: expected stages {wanted}, received {found}")
    for name in ("pixels", "curvature") if kind == "points" else ():
        value, count = getattr(tokens, name), given.num_tokens
        if value is not None and value.shape != (count,):
            raise SampleError(sample.name, f"{name} of its groups: expected ({count},), received {value.shape}")


def _spread(features: Features, count: int, mesh: Mesh) -> Features:
    """Puts every device's share of the stages on it, and what is small on every host."""
    image, points, _ = features

    def stages(own: list) -> list:
        return [to_global(own.pop(0), count, mesh) for _ in range(len(own))]  # each is given up when it is placed

    def everyone(own: jax.Array) -> jax.Array:
        return jnp.asarray(gather_rows(np.asarray(own)))

    if image is not None:
        embedding = None if image.embedding is None else everyone(image.embedding)
        image = ImageFeatures(stages(list(image.stages)), embedding)
    if points is not None:
        small = (everyone(x) for x in (points.centers, points.center_pixels, points.curvature))
        points = PointFeatures(stages(list(points.stages)), points.points, points.valid, *small)
    return Features(image, points, Spread(mesh, count, samples_of_process(count, mesh), np.arange(count)))
