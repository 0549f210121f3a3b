"""musc-jax: samples of one product score each other, and what finds no match elsewhere is a defect.

A JAX implementation of MuSc-V2 (Li, Xue, Zhou, TPAMI 2026). All functions are pure. None but `score_features` and
`score_folder` calls `jax.jit`; all others can be jitted, vmapped and, where it makes sense, differentiated, and are
written for one sample where that is natural.

Indices out of range are refused with a ValueError, never counted from the end. Behind `jit` and `vmap`, where values
cannot be looked at, they count as the nearest index in range.
"""

from musc_jax import metrics as metrics
from musc_jax.aggregation import snamd_grid, snamd_points
from musc_jax.config import Config
from musc_jax.crossmodal import (
    align_modalities,
    cross_modal_enhancement,
    multimodal_scores,
    patch_index,
    rank_match,
)
from musc_jax.given import score_features
from musc_jax.grouping import (
    Neighbors,
    PointGroups,
    curvature,
    farthest_point_sampling,
    iterative_point_grouping,
    nearest_neighbors,
)
from musc_jax.maps import gaussian_blur, interpolate_points, point_map, upsample_grid
from musc_jax.mutual import interval_average, mutual_scores
from musc_jax.own_parts import score_folder
from musc_jax.pairs import all_pair_scores, pair_scores
from musc_jax.rescoring import rescore
from musc_jax.similarity import mean_tokens, nearest_samples, sample_summaries
from musc_jax.tokens import CloudTokens, image_tokens, point_tokens
from musc_jax.version1 import lnamd_grid

__version__ = "0.1.0"

__all__ = [  # noqa: RUF022 - grouped by theme
    # Point groups (paper III-A)
    "farthest_point_sampling",
    "nearest_neighbors",
    "Neighbors",
    "curvature",
    "iterative_point_grouping",
    "PointGroups",
    # Neighbourhood aggregation (III-B)
    "snamd_grid",
    "snamd_points",
    "lnamd_grid",
    # A sample to its tokens
    "image_tokens",
    "point_tokens",
    "CloudTokens",
    # Mutual scoring (III-C)
    "pair_scores",
    "all_pair_scores",
    "interval_average",
    "mutual_scores",
    # Similar samples as references (not in the paper)
    "mean_tokens",
    "sample_summaries",
    "nearest_samples",
    # Cross-modal enhancement (III-C)
    "rank_match",
    "patch_index",
    "align_modalities",
    "cross_modal_enhancement",
    "multimodal_scores",
    # Re-scoring (III-D)
    "rescore",
    # All of it, from tokens on (host side)
    "score_features",
    "score_folder",
    # Maps
    "upsample_grid",
    "interpolate_points",
    "gaussian_blur",
    "point_map",
    # Metrics (host side)
    "metrics",
    # What a run computes; `musc_jax.pipeline.score` runs it
    "Config",
]
