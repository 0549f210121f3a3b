"""Scores of samples from tokens that any backbone of any framework has made, in one call."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Bool, Float, Int

from musc_jax import pipeline
from musc_jax._arrays import Array
from musc_jax.config import AggregationConfig, Config, GroupingConfig, RescoringConfig, ScoringConfig, usual_windows
from musc_jax.data.sample import Sample, SampleTokens
from musc_jax.execution.extraction import Progress
from musc_jax.models import GivenTokens
from musc_jax.models.given import grid_objection

_TO_NUMPY = "pass tensor.detach().float().cpu().numpy()"
# What arrays hold that are no numbers with a point.
_KINDS = {"pixels": (np.integer, "integers"), "roi": (np.bool_, "True or False")}


def score_features(
    tokens: Sequence[Float[Array, "N M _"]] | Float[Array, "N M C"] | None,
    *,
    points: Sequence[Float[Array, "N G _"]] | Float[Array, "N G D"] | None = None,
    clouds: Float[Array, "N S S 3"] | None = None,
    pixels: Int[Array, "N G"] | None = None,
    curvature: Float[Array, "N G"] | None = None,
    embeddings: Float[Array, "N E"] | None = None,
    roi: Bool[Array, "*N S S"] | None = None,
    names: Sequence[str] | None = None,
    size: int | None = None,
    aggregated: bool = False,
    variant: str = "released",
    degrees: Sequence[int] = (1, 3, 5),
    curvature_threshold: float = 0.01,
    interval: float = 0.3,
    references: int | None = None,
    seed: int = 0,
    nearest_images: int | None = None,
    recurring: str = "off",
    precision: str = "full",
    windows: Sequence[int] | None = None,
    ablate: Sequence[str] = (),
    implementation: str = "auto",
    skip_bad: bool = False,
    memory_bytes: int | float | None = None,
    scratch_dir: Path | str | None = None,
    mesh: Mesh | None = None,
    progress: Progress | None = None,
) -> pipeline.Results:
    """Scores N unlabeled samples of one product by each other, from tokens of any backbone (MuSc-V2).

    The same as `musc_jax.pipeline.score` from where the backbones have run. Unlike all other functions here it compiles
    and runs programs of its own, so it is no part of another one.

    Args:
        tokens: Tokens of images, an array for each stage (or one alone): M patches in row order, a square number, no
            class token; stages may differ in their channels. None where only points are scored.
        points: Tokens of a cloud's G groups, as many stages as images have.
        clouds: With `points`: organised point maps in any unit; a pixel is a point when all three coordinates are other
            than 0.
        pixels: With `points`: flat pixel, row * S + column, of each group's centre.
        curvature: Of each group, 0 to 1/3; from `curvature_threshold` on it is aggregated with no other. Default 0.
        embeddings: One for each image, which variant "v1" re-scores by.
        roi: Regions of interest at the side of the maps, one for each sample or one for all: what is outside never
            counts. A patch counts if any of its pixels is inside, a group if its centre's pixel is. Tokens may still
            have seen what is outside; a picture that is blank there keeps them from it.
        names: Of the samples; default their numbers.
        size: Side of the anomaly maps; that of the clouds, default 224 where there are none.
        aggregated: They were aggregated over their neighbourhoods before, and are scored as they are.
        variant: "released", "paper" or "v1".
        degrees: See `snamd_grid` and `snamd_points`.
        curvature_threshold: See `snamd_points`.
        interval: Share of the lowest scores that is averaged.
        references: Score each sample by so many others; default all.
        seed: Of their draw.
        nearest_images: Score each sample by so many others that are most similar to it instead.
        recurring: "report" names samples that share a defect (`recurring` of the results), "filter" also keeps such
            defects from scoring others.
        precision: One of `musc_jax.kernels.rounding.PRECISIONS`.
        windows: Of RsCon; default the variant's usual ones.
        ablate: Names out of `musc_jax.config.ABLATIONS`; "rescoring" leaves RsCon out.
        implementation: One of `musc_jax.kernels.IMPLEMENTATIONS`.
        skip_bad: See `pipeline.score`, also for those that follow.
        memory_bytes: What features, scores and maps may take.
        scratch_dir: Where features go that do not fit into memory.
        mesh: The devices that share the work.
        progress: Called with (stage, done, total).

    Returns:
        `pred_scores` (N,), `max_scores` (N,), `anomaly_maps` (N, S, S) and `patch_scores`, in the order of the samples;
        higher is more defective. The pictures of its `samples` are black.

    Raises:
        ValueError: Shapes that do not fit together, no square grid of patches, options that make no sense, fewer than 2
            samples.
        SampleError: Values that are not finite, or a group where its cloud has no point; with the sample's name.
        BudgetError: Too little memory.
    """
    images, groups = _stages("tokens", tokens), _stages("points", points)
    if not images and not groups:
        raise ValueError("tokens, points: expected tokens of images, of points or of both, received none")
    count = len((images or groups)[0])
    given = {"clouds": clouds, "pixels": pixels, "curvature": curvature}
    columns = {name: None if value is None else _array(name, value) for name, value in given.items()}
    columns["embeddings"] = None if embeddings is None else _array("embeddings", embeddings)
    columns["roi"] = None if roi is None else _array("roi", roi)
    _expect_columns(columns, count, groups, size)
    size = 224 if size is None and clouds is None else size
    side = size if columns["clouds"] is None else columns["clouds"].shape[1]
    config = Config(
        variant=variant,
        modality={(True, True): "rgb+points", (True, False): "rgb"}.get((bool(images), bool(groups)), "points"),
        image_size=side,
        ablate=tuple(ablate),
        grouping=GroupingConfig(curvature_threshold=curvature_threshold),
        aggregation=AggregationConfig(degrees=tuple(degrees)),
        scoring=ScoringConfig(interval, precision, references, seed, nearest_images, recurring),
        rescoring=RescoringConfig(windows=usual_windows(variant) if windows is None else tuple(windows)),
        image_backbone=_given(images, aggregated, embedded=embeddings is not None) if images else None,
        point_backbone=_given(groups, aggregated) if groups else None,
        implementation=implementation,
    )
    side = config.resolved().size
    _expect_regions(columns, count, side)
    return pipeline.score(
        _Samples(images, groups, columns, _names(names, count), side),
        config,
        skip_bad=skip_bad,
        memory_bytes=memory_bytes,
        scratch_dir=scratch_dir,
        mesh=mesh,
        progress=progress,
    )


class _Samples(Sequence[Sample]):
    """Samples made when they are asked for: as float32 all of them could take more memory than as they were given."""

    def __init__(
        self,
        images: list[np.ndarray],
        groups: list[np.ndarray],
        columns: dict[str, np.ndarray | None],
        names: Sequence[str],
        size: int,
    ) -> None:
        self._images, self._groups, self._columns, self._names = images, groups, columns, names
        self._picture = np.broadcast_to(np.uint8(0), (size, size, 3))

    def __len__(self) -> int:
        return len(self._names)

    def __iter__(self) -> Iterator[Sample]:
        return map(self.__getitem__, range(len(self)))

    def __getitem__(self, i: Any) -> Any:
        def row(name: str) -> np.ndarray | None:
            column = self._columns[name]
            return None if column is None else column[i].astype(np.float32)

        pixels, roi = self._columns["pixels"], self._columns["roi"]
        tokens = SampleTokens(
            image=tuple(stage[i].astype(np.float32) for stage in self._images),
            points=tuple(stage[i].astype(np.float32) for stage in self._groups),
            pixels=np.zeros(0, np.int32) if pixels is None else pixels[i].astype(np.int32),
            curvature=row("curvature"),
            embedding=row("embeddings"),
        )
        path, inside = Path(self._names[i]), None if roi is None else roi[i]
        return Sample(self._names[i], self._picture, row("clouds"), None, None, path, tokens=tokens, roi=inside)


def _array(name: str, value: Any) -> np.ndarray:
    try:
        array = np.asarray(value)
    except (TypeError, RuntimeError, ValueError) as error:  # tensors on a GPU, of bfloat16, or with gradients
        raise ValueError(f"{name}: cannot be read as an array ({error}); {_TO_NUMPY}") from None
    kind, expected = _KINDS.get(name, (np.floating, "floating point values"))
    # bfloat16 is no type of NumPy's own.
    if not (np.issubdtype(array.dtype, kind) or (kind is np.floating and array.dtype.name in ("bfloat16",))):
        raise ValueError(f"{name}: expected {expected}, received {array.dtype}")
    return array


def _stages(name: str, value: Any) -> list[np.ndarray]:
    """One array for each stage; their channels may differ."""
    if value is None:
        return []
    several = isinstance(value, list | tuple)
    stages = [_array(name, one) for one in (value if several else [value])]
    shapes = [stage.shape for stage in stages]
    if any(len(shape) != 3 or 0 in shape for shape in shapes) or len({shape[:2] for shape in shapes}) != 1:
        received = ", ".join(map(str, shapes)) or "none"
        raise ValueError(
            f"{name}: expected an array (samples, tokens, channels) for each stage, with as many samples and tokens in "
            f"all of them; received {received}"
        )
    objection = grid_objection(shapes[0][1]) if name == "tokens" else None
    if objection:
        raise ValueError(f"{name}: {objection}")
    return stages


def _expect_columns(
    columns: dict[str, np.ndarray | None], count: int, groups: list[np.ndarray], size: int | None
) -> None:
    """Refuses what does not belong together."""
    if groups and len(groups[0]) != count:
        raise ValueError(f"points: expected those of {count} samples, as tokens, received {len(groups[0])}")
    for name in ("clouds", "pixels", "curvature"):
        if columns[name] is not None and not groups:
            raise ValueError(f"{name}: belongs to points, received none")
    shape = (count, groups[0].shape[1]) if groups else ()
    for name in ("clouds", "pixels"):
        if groups and columns[name] is None:
            raise ValueError(f"{name}: points need them to be drawn, received none")
    for name in ("pixels", "curvature"):
        column = columns[name]
        if column is not None and column.shape != shape:
            raise ValueError(f"{name}: expected shape {shape}, received {column.shape}")
    clouds, embeddings = columns["clouds"], columns["embeddings"]
    if clouds is not None:
        side = clouds.shape[1] if size is None and clouds.ndim == 4 else size
        if clouds.shape != (count, side, side, 3):
            raise ValueError(f"clouds: expected ({count}, {side or 'S'}, {side or 'S'}, 3), received {clouds.shape}")
    pixels = columns["pixels"]
    if pixels is not None and clouds is not None and not ((pixels >= 0) & (pixels < clouds.shape[1] ** 2)).all():
        outside = pixels[(pixels < 0) | (pixels >= clouds.shape[1] ** 2)][0]
        raise ValueError(f"pixels: expected indices from 0 to {clouds.shape[1] ** 2 - 1}, received {outside}")
    if embeddings is not None and (embeddings.ndim != 2 or len(embeddings) != count):
        raise ValueError(f"embeddings: expected ({count}, channels), received {embeddings.shape}")


def _expect_regions(columns: dict[str, np.ndarray | None], count: int, side: int) -> None:
    """Makes regions of interest one for each sample; refuses others than of the maps' pixels."""
    roi = columns["roi"]
    if roi is None:
        return
    if roi.shape not in ((side, side), (count, side, side)):
        raise ValueError(f"roi: expected ({count}, {side}, {side}) or ({side}, {side}), received {roi.shape}")
    columns["roi"] = np.broadcast_to(roi, (count, side, side))


def _given(stages: list[np.ndarray], aggregated: bool, *, embedded: bool = False) -> GivenTokens:
    widths = tuple(stage.shape[2] for stage in stages)
    return GivenTokens(stages[0].shape[1], widths, aggregated=aggregated, embedded=embedded)


def _names(names: Sequence[str] | None, count: int) -> list[str]:
    if names is None:
        digits = len(str(count - 1))
        return [f"{i:0{digits}}" for i in range(count)]
    found = [str(name) for name in names]
    if len(found) != count or len(set(found)) < count:
        raise ValueError(f"names: expected {count} different ones, received {len(found)}, {len(set(found))} different")
    return found
