"""Public functions and the pipeline's stages lower for every platform from this one; nothing CPU-only gets in.

Nothing is computed here but a few small programs: shapes are as in a real run, because the path often depends on them.
"""

import contextlib
import dataclasses
import re
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_api import BACKBONES, FUNCTIONS

import musc_jax as m
import weights
from musc_jax import Config, pipeline, resolved
from musc_jax.config import ScoringConfig
from musc_jax.data import Sample
from musc_jax.execution.programs import Programs
from musc_jax.models.layers import attention

PLATFORMS = ("cpu", "cuda", "tpu")
# What an accelerator may call: eigenvalues of 3 x 3 matrices and `lax.top_k`, each in the routine that JAX itself
# chooses there. All are among those that JAX promises to keep running in exported programs.
ACCELERATORS = {"cuda": {"cusolver_syevd_ffi", "mhlo.topk"}, "tpu": {"Eigh", "mhlo.topk"}}
_HAS_CUDNN = jax.default_backend() == "gpu"
# What is only said to the compiler or to the partitioner.
ANNOTATIONS = {"Sharding", "annotate_device_placement"}


def shape(*sizes, dtype=np.float32):
    return jax.ShapeDtypeStruct(sizes, np.dtype(dtype))


POINTS, PIXELS, MASK = shape(224 * 224, 3), shape(224 * 224, dtype=np.int32), shape(224 * 224, dtype=bool)
FEW, CENTERS = shape(300, 3), shape(1024, 3)
PATCHES = shape(1024, dtype=np.int32)
BOTH = (shape(4, 784, 768), shape(4, 1024, 384), shape(4, 1024, dtype=np.int32))
CASES = {
    "farthest_point_sampling": [
        (
            lambda p, c, s: m.farthest_point_sampling(p, 1024, candidates=c, start=s),
            POINTS,
            MASK,
            shape(dtype=np.int32),
        ),
        (lambda p: m.farthest_point_sampling(p, 6), FEW),
    ],
    "nearest_neighbors": [
        (lambda q, p, v: m.nearest_neighbors(q, p, 256, valid=v), CENTERS, POINTS, MASK),
        (lambda q, p: m.nearest_neighbors(q, p, 9), FEW, FEW),
    ],
    "curvature": [(m.curvature, shape(1024, 80, 3), CENTERS)],
    "iterative_point_grouping": [
        (partial(m.iterative_point_grouping, variant="released"), POINTS, PATCHES),
        (partial(m.iterative_point_grouping, variant="paper", group_size=16, k_iter=10), FEW, PATCHES),
        (partial(m.iterative_point_grouping, expansion=False), POINTS, PATCHES),
    ],
    "snamd_grid": [
        (m.snamd_grid, shape(784, 768)),
        (partial(m.snamd_grid, variant="paper"), shape(784, 768)),
        (partial(m.snamd_grid, similarity_weighting=False), shape(784, 768)),
    ],
    "snamd_points": [
        (
            partial(m.snamd_points, variant=variant, similarity_weighting=weighting),
            shape(1024, 384),
            CENTERS,
            shape(1024),
        )
        for variant, weighting in (("released", True), ("paper", True), ("released", False))
    ],
    "lnamd_grid": [(partial(m.lnamd_grid, degree=degree), shape(784, 768)) for degree in (1, 3)],
    "image_tokens": [(partial(m.image_tokens, backbone=BACKBONES["image_backbone"]), shape(32, 32, 3, dtype=np.uint8))],
    "point_tokens": [
        (partial(m.point_tokens, backbone=BACKBONES["point_backbone"], num_groups=20, variant=v, group_size=16), FEW)
        for v in ("released", "paper")
    ],
    "pair_scores": [(m.pair_scores, shape(784, 768), shape(3, 1024, 768))],
    "all_pair_scores": [
        (partial(m.all_pair_scores, precision=precision), shape(4, 784, 768))
        for precision in ("full", "accurate", "fast")
    ],
    "interval_average": [
        (m.interval_average, shape(784, 199)),
        (partial(m.interval_average, interval=1.0), shape(9, 4)),
    ],
    "mutual_scores": [
        *((partial(m.mutual_scores, precision=p), shape(4, 784, 768)) for p in ("full", "accurate", "fast")),
        (partial(m.mutual_scores, references=2), shape(4, 784, 768)),
        (m.mutual_scores, shape(4, 784, 768, dtype=jnp.bfloat16)),
    ],
    "mean_tokens": [
        (m.mean_tokens, shape(4, 784, 768)),
        (lambda z, valid: m.mean_tokens(z, valid=valid), shape(4, 784, 768), shape(4, 784, dtype=np.bool_)),
    ],
    "sample_summaries": [(lambda a, b: m.sample_summaries([a, b]), shape(40, 768), shape(40, 384))],
    "nearest_samples": [(partial(m.nearest_samples, count=25), shape(40, 1152))],
    "rank_match": [(m.rank_match, shape(784, 149), shape(784, 149)), (m.rank_match, shape(9), shape(9))],
    "patch_index": [(partial(m.patch_index, size=224, grid=28), PATCHES)],
    "align_modalities": [(m.align_modalities, shape(784, 149), shape(1024, 149), PATCHES)],
    "cross_modal_enhancement": [
        (partial(m.cross_modal_enhancement, variant=variant), shape(784, 149), shape(1024, 149), PATCHES)
        for variant in ("released", "paper")
    ],
    "multimodal_scores": [
        (partial(m.multimodal_scores, variant="released"), *BOTH),
        (partial(m.multimodal_scores, variant="paper", precision="fast"), *BOTH),
        (partial(m.multimodal_scores, references=2, enhancement=False), *BOTH),
    ],
    "rescore": [
        (partial(m.rescore, variant=variant), shape(150), shape(150, 1152)) for variant in ("released", "paper")
    ],
    "upsample_grid": [(partial(m.upsample_grid, size=224), shape(28, 28))],
    "interpolate_points": [
        (lambda p, c, v, mask: m.interpolate_points(p, c, v, valid=mask), POINTS, CENTERS, shape(1024), MASK),
        (m.interpolate_points, FEW, shape(20, 3), shape(20)),
    ],
    "gaussian_blur": [(m.gaussian_blur, shape(224, 224)), (partial(m.gaussian_blur, sigma=0.5), shape(12, 9))],
    "point_map": [(partial(m.point_map, size=224), POINTS, PIXELS, CENTERS, shape(1024))],
}


@contextlib.contextmanager
def no_questions():
    """Which machine this is must not matter while a program is traced; JAX itself does not ask by these names."""

    def refuse(*_, **__):
        raise AssertionError("a traced function asked for this machine's devices")

    with pytest.MonkeyPatch.context() as patch:
        for name in ("default_backend", "devices", "local_devices", "device_count"):
            patch.setattr(jax, name, refuse)
        yield


def exported(function, *args, platforms=PLATFORMS):
    """Exports for all platforms at once, and looks at what each accelerator would call."""
    jitted = function if hasattr(function, "trace") else jax.jit(function)
    with no_questions():
        traced = jitted.trace(*args)
        for together in [platforms] if isinstance(platforms, tuple) else [(p,) for p in platforms]:
            found = jax.export.export(jitted, platforms=together)(*args)
            assert found.platforms == together
    for platform in ACCELERATORS:
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        assert calls(text) <= ACCELERATORS[platform] | ANNOTATIONS, platform
    return found


def calls(text):
    return set(re.findall(r"(?:custom_call @|call_target_name = \")([\w.$]+)", text))


def at_once(options):
    """JAX refuses three-pass products and cuDNN on other platforms than theirs, even in a branch that never runs there.

    Such programs are exported for one platform at a time.
    """
    alone = options.get("precision") == "accurate" or (_HAS_CUDNN and "half" in options)
    return list(PLATFORMS) if alone else PLATFORMS


def test_every_public_function_is_here():
    assert set(CASES) == set(FUNCTIONS)


@pytest.mark.parametrize("name", CASES)
def test_a_public_function_lowers_for_every_platform(name):
    for function, *args in CASES[name]:
        exported(function, *args, platforms=at_once(getattr(function, "keywords", {})))


class Recorded(Programs):
    """Keeps what is asked for and computes nothing: results are ones, so that all features count as finite."""

    def __init__(self):
        super().__init__()
        self.stages = {}

    def run(self, stage, function, *args, donate=(), **static):
        leaves, structure = jax.tree.flatten(args)
        shapes = tuple((x.shape, str(x.dtype)) for x in leaves)
        key = (function, structure, shapes, tuple(sorted(static.items())))
        if key not in self.stages:
            with no_questions():
                jitted = jax.jit(partial(function, **static))
                out = jax.tree.map(lambda x: jnp.ones(x.shape, x.dtype), jitted.trace(*args).out_info)
            abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), args)
            self.stages[key] = (f"{stage}: {function.__name__}", jitted, abstract, static, out)
        return self.stages[key][-1]


@pytest.fixture(scope="module")
def backbones():
    image = weights.load("random", "dino_vits8", width=32, depth=3, heads=2, mlp_width=48)
    points = weights.load(Path(__file__).parent / "golden" / "point_mae_tiny.pth", "point_mae", heads=3)
    return {"image_backbone": image, "point_backbone": points}


@pytest.fixture(scope="module")
def done():
    """Stages that were exported in a run before."""
    return set()


def samples():
    y, x = np.mgrid[:224, :224] / 224 + 0.5
    cloud = np.stack([x, y, 1 + x * y], -1).astype(np.float32)
    image = np.zeros((224, 224, 3), np.uint8)
    return [Sample(f"{i}", image, cloud, None, None, Path(f"{i}.png")) for i in range(4)]


RUNS = {
    "rgb+points": {},
    "paper": {"variant": "paper"},
    "v1": {"variant": "v1", "modality": "rgb"},
    "half": {"dtype": "bfloat16", "scoring": ScoringConfig(precision="fast")},
    "references": {"scoring": ScoringConfig(references=2)},
    "one modality, streamed": {"modality": "points", "scoring": ScoringConfig(references=2, precision="accurate")},
    "ablations": {"ablate": ("ipg", "swpooling", "ia", "cae", "rescoring")},
}


# What a CPU decides for itself, and what else it would.
ACCELERATED = {
    "_IMAGES_AT_ONCE": "_IMAGES_AT_ONCE_ELSEWHERE",
    "_CLOUDS_AT_ONCE": "_CLOUDS_AT_ONCE_ELSEWHERE",
    "_TOKENS_AT_ONCE": "_TOKENS_AT_ONCE_ELSEWHERE",
    "_SAMPLES_AT_ONCE": "_SAMPLES_AT_ONCE_ELSEWHERE",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_the_stages_of_a_run_lower_for_every_platform(name, backbones, done, monkeypatch):
    """In batches of the sizes that accelerators have."""
    for sizes, usual in ACCELERATED.items():
        monkeypatch.setitem(getattr(resolved, sizes), "cpu", getattr(resolved, usual))
    options = {"modality": "rgb+points"} | RUNS[name]
    dtype = options.pop("dtype", "float32")
    chosen = {k: dataclasses.replace(b, module=b.module.clone(dtype=dtype)) for k, b in backbones.items()}
    programs = Recorded()
    pipeline.score(samples(), Config(image_size=224, **options, **chosen), programs=programs)
    assert len(programs.stages) >= 4
    for key, (stage, jitted, args, static, _) in programs.stages.items():
        if key in done:
            continue
        done.add(key)
        half = {"half": True} if dtype == "bfloat16" and "backbone" in stage else {}
        if "products" in static:
            half |= {"precision": static["products"].precision}
        try:
            exported(jitted, *args, platforms=at_once(static | half))
        except Exception as error:
            error.add_note(f"stage {stage}")
            raise


def test_what_only_a_cpu_knows_is_found():
    def lapack(x):
        return jax.ffi.ffi_call("lapack_ssyevd_ffi", jax.ShapeDtypeStruct((3,), jnp.float32))(x)

    with pytest.raises(AssertionError, match="cuda"):
        exported(lapack, shape(3))
    with pytest.raises(AssertionError, match="this machine"):
        exported(lambda x: x if jax.default_backend() == "cpu" else -x, shape(3))
    with pytest.raises(NotImplementedError, match="python_callback"):
        exported(lambda x: jax.pure_callback(lambda x: x, x, x), shape(3))


def test_attention_takes_the_form_of_the_platform_it_is_lowered_for():
    """Only on a CPU one head after the other, which is a loop."""
    heads = shape(1, 12, 785, 64)
    for dtype in ("float32", "bfloat16"):
        traced = jax.jit(partial(attention, dtype=dtype)).trace(heads, heads, heads)
        loops = {p: "stablehlo.while" in traced.lower(lowering_platforms=(p,)).as_text() for p in PLATFORMS}
        assert loops == {"cpu": True, "cuda": False, "tpu": False}, dtype


def test_attention_falls_back_where_cudnn_does_not_take_it(monkeypatch, rng):
    def refused(*_, implementation, **__):
        assert implementation == "cudnn"
        raise NotImplementedError("head dim")

    monkeypatch.setattr(jax.nn, "dot_product_attention", refused)
    heads = rng.normal(size=(3, 1, 2, 5, 7)).astype(np.float32)
    plain = np.einsum("bhqd,bhkd->bhqk", heads[0], heads[1]) / np.sqrt(np.float32(7))
    plain = np.exp(plain - plain.max(-1, keepdims=True))
    want = np.einsum("bhqk,bhkd->bhqd", plain / plain.sum(-1, keepdims=True), heads[2])
    # Each value is rounded to 8 bits three times, at 2^-9 of values up to 3.
    np.testing.assert_allclose(jax.jit(partial(attention, dtype="bfloat16"))(*heads), want, atol=2e-2)
    np.testing.assert_allclose(jax.jit(partial(attention, dtype="float32"))(*heads), want, atol=1e-5)


def _called(rng):
    f = lambda *s: rng.uniform(0.1, 1, s).astype(np.float32)  # noqa: E731
    return {
        "farthest_point_sampling": (lambda p: m.farthest_point_sampling(p, 40), f(17_000, 3)),
        "nearest_neighbors": (lambda q, p: tuple(m.nearest_neighbors(q, p, 20)), f(9, 3), f(2000, 3)),
        "cross_modal_enhancement": (m.cross_modal_enhancement, f(16, 4), f(20, 4), np.arange(20, dtype=np.int32) % 16),
        "attention": (partial(attention, dtype="float32"), f(2, 3, 9, 8), f(2, 3, 9, 8), f(2, 3, 9, 8)),
    }


@pytest.mark.parametrize(
    "name", ["farthest_point_sampling", "nearest_neighbors", "cross_modal_enhancement", "attention"]
)
def test_an_exported_program_gives_the_same_numbers(name, rng):
    pytest.importorskip("flatbuffers")  # JAX's serialisation needs it; CI installs it
    function, *args = _called(rng)[name]
    stored = jax.export.export(jax.jit(function), platforms=PLATFORMS)(*args).serialize()
    again = jax.export.deserialize(stored)
    for got, want in zip(jax.tree.leaves(again.call(*args)), jax.tree.leaves(jax.jit(function)(*args)), strict=True):
        # The same operations in the same order; the compiler may fuse them differently, a rounding or two apart.
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
