"""Rules that hold for every public function, and one table of calls run in every form."""

import inspect

import jax
import numpy as np
import pytest
from scenes import make_backbones

import musc_jax as m

BACKBONES = make_backbones()
# Runs programs of its own, and so is no part of one; see test_given.py.
WHOLE = {"score_features", "score_folder"}
EXPORTED = {name: getattr(m, name) for name in m.__all__ if inspect.isfunction(getattr(m, name))}
FUNCTIONS = {name: function for name, function in EXPORTED.items() if name not in WHOLE}


def _table():
    rng = np.random.default_rng(0)
    f = lambda *s: rng.uniform(0.1, 1, s).astype(np.float32)  # noqa: E731
    patch = rng.integers(0, 9, 12)
    at = np.arange(5)
    return {
        "farthest_point_sampling": (lambda p: m.farthest_point_sampling(p, 6), (f(40, 3),)),
        "nearest_neighbors": (lambda q, p: m.nearest_neighbors(q, p, 4), (f(5, 3), f(40, 3))),
        "curvature": (m.curvature, (f(5, 9, 3), f(5, 3))),
        "iterative_point_grouping": (
            lambda p: m.iterative_point_grouping(p, at, group_size=8, k_iter=5),
            (f(40, 3),),
        ),
        "snamd_grid": (m.snamd_grid, (f(16, 5),)),
        "snamd_points": (m.snamd_points, (f(12, 5), f(12, 3), f(12) / 50)),
        "lnamd_grid": (lambda t: m.lnamd_grid(t, degree=3), (f(16, 5),)),
        "image_tokens": (
            lambda image: m.image_tokens(image, BACKBONES["image_backbone"]),
            (rng.integers(0, 256, (16, 16, 3)).astype(np.uint8),),
        ),
        "point_tokens": (
            lambda p: m.point_tokens(p, BACKBONES["point_backbone"], num_groups=9, group_size=8, k_iter=5),
            (f(40, 3),),
        ),
        "pair_scores": (m.pair_scores, (f(9, 5), f(3, 7, 5))),
        "all_pair_scores": (m.all_pair_scores, (f(4, 9, 5),)),
        "interval_average": (m.interval_average, (f(6, 10),)),
        "mutual_scores": (m.mutual_scores, (f(4, 9, 5),)),
        "mean_tokens": (m.mean_tokens, (f(4, 9, 5),)),
        "sample_summaries": (lambda a, b: m.sample_summaries([a, b]), (f(6, 5), f(6, 3))),
        "nearest_samples": (lambda s: m.nearest_samples(s, 2), (f(6, 5),)),
        "rank_match": (m.rank_match, (f(6, 5), f(6, 5))),
        "patch_index": (lambda p: m.patch_index(p, size=12, grid=3), (rng.integers(0, 144, 8),)),
        "align_modalities": (m.align_modalities, (f(9, 4), f(12, 4), patch)),
        "cross_modal_enhancement": (m.cross_modal_enhancement, (f(9, 4), f(12, 4), patch)),
        "multimodal_scores": (m.multimodal_scores, (f(4, 9, 5), f(4, 12, 3), np.stack([patch] * 4))),
        "rescore": (m.rescore, (f(6), f(6, 4))),
        "upsample_grid": (lambda g: m.upsample_grid(g, 12), (f(3, 3),)),
        "interpolate_points": (m.interpolate_points, (f(40, 3), f(9, 3), f(9))),
        "gaussian_blur": (m.gaussian_blur, (f(12, 9),)),
        "point_map": (
            lambda p, x, c, v: m.point_map(p, x, c, v, size=12),
            (f(40, 3), rng.permutation(144)[:40], f(9, 3), f(9)),
        ),
    }


TABLE = _table()


def test_every_function_is_in_the_table():
    assert set(TABLE) == set(FUNCTIONS) == EXPORTED.keys() - WHOLE


@pytest.mark.parametrize("name", TABLE)
def test_eager_jit_and_vmap_agree(name):
    call, args = TABLE[name]
    want = jax.tree.leaves(jax.jit(call)(*args))
    eager = jax.tree.leaves(call(*(jax.numpy.asarray(a) for a in args)))
    both = jax.tree.leaves(jax.jit(jax.vmap(call))(*(np.stack([a, a]) for a in args)))
    for a, b, c in zip(want, eager, both, strict=True):
        assert isinstance(b, jax.Array)
        for other in (b, c[0], c[1]):
            # Backbones add up many products, in another order when mapped.
            tolerance = 2e-5 if "tokens" in name else 2e-6
            np.testing.assert_allclose(other, a, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", sorted(TABLE.keys() - {"image_tokens", "point_tokens"}))  # backbones have float32
def test_float64_stays_float64(name):
    call, args = TABLE[name]
    with jax.enable_x64(True):
        wide = [a.astype(np.float64) if a.dtype == np.float32 else a for a in args]
        got = jax.tree.leaves(jax.jit(call)(*wide))
    narrow = jax.tree.leaves(jax.jit(call)(*args))
    for a, b in zip(got, narrow, strict=True):
        if np.issubdtype(b.dtype, np.floating):
            assert a.dtype == np.float64
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def _indices():
    """Function and argument: call with these indices, indices that are fine, how many places there are."""
    rng = np.random.default_rng(1)
    f = lambda *s: rng.uniform(0.1, 1, s).astype(np.float32)  # noqa: E731
    cloud, two, three, patch = f(40, 3), f(9, 4), f(6, 4), np.array([0, 3, 3, 8, 5, 1])
    tokens, map_of = (f(3, 9, 5), f(3, 6, 4)), (f(6, 3), f(4, 3), f(4))
    return {
        "farthest_point_sampling start": (lambda i: m.farthest_point_sampling(cloud, 4, start=i), np.array(7), 40),
        "iterative_point_grouping centers": (
            lambda i: m.iterative_point_grouping(cloud, i, group_size=8, k_iter=5),
            np.array([3, 0, 39]),
            40,
        ),
        "patch_index pixels": (lambda i: m.patch_index(i, size=12, grid=3), np.array([5, 0, 143]), 144),
        "mutual_scores references": (
            lambda i: m.mutual_scores(tokens[0], references=i),
            np.array([[1], [2], [0]]),
            3,
        ),
        "multimodal_scores references": (
            lambda i: m.multimodal_scores(*tokens, np.stack([patch] * 3), variant="paper", references=i),
            np.array([[1], [2], [0]]),
            3,
        ),
        "align_modalities patch_of_group": (lambda i: m.align_modalities(two, three, i), patch, 9),
        "cross_modal_enhancement patch_of_group": (lambda i: m.cross_modal_enhancement(two, three, i), patch, 9),
        "multimodal_scores patch_of_group": (
            lambda i: m.multimodal_scores(*tokens, i, variant="paper"),
            np.stack([patch] * 3),
            9,
        ),
        "point_map pixels": (
            lambda i: m.point_map(map_of[0], i, *map_of[1:], size=12, sigma=0.0),
            np.array([5, 1, 100, 7, 8, 9]),  # the first and the last pixel are left for what is moved there
            144,
        ),
    }


INDICES = _indices()


def test_every_index_is_in_the_table():
    arguments = {
        f"{name} {parameter.name}"
        for name, function in FUNCTIONS.items()
        for parameter in inspect.signature(function).parameters.values()
        if "Int[" in str(parameter.annotation)
    }
    assert set(INDICES) == arguments


def _replaced(fine, value, dtype):
    indices = fine.astype(dtype)
    indices.reshape(-1)[0] = value
    return indices


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", INDICES)
def test_known_indices_out_of_range_are_refused(name):
    call, fine, size = INDICES[name]
    for value in (-1, size, 2**32 + 1):
        message = rf"^{name.split()[1]}: expected indices from 0 to {size - 1}, received {value}\b"
        with pytest.raises(ValueError, match=message):
            call(_replaced(fine, value, np.int64))
        if value < 2**31:
            with pytest.raises(ValueError, match=message):
                call(jax.numpy.asarray(_replaced(fine, value, np.int32)))
            # A constant of a program is known, too.
            with pytest.raises(ValueError, match=message):
                jax.jit(lambda value=value: call(_replaced(fine, value, np.int32)))()
    with pytest.raises(ValueError, match=rf"^{name.split()[1]}: expected integers, received float32$"):
        call(fine.astype(np.float32))


@pytest.mark.parametrize("name", INDICES)
def test_traced_indices_out_of_range_are_the_nearest(name):
    call, fine, size = INDICES[name]
    compiled = jax.jit(jax.vmap(call))
    got = compiled(np.stack([_replaced(fine, value, np.int32) for value in (-1, -size, size, 2**31 - 1)]))
    want = compiled(np.stack([_replaced(fine, value, np.int32) for value in (0, 0, size - 1, size - 1)]))
    jax.tree.map(np.testing.assert_array_equal, got, want)


def test_traced_indices_of_wide_types_do_not_come_back_into_range():
    with jax.enable_x64(True):
        far = np.array([2**32 + 1, -(2**32) + 1, 5])
        np.testing.assert_array_equal(jax.jit(lambda i: m.patch_index(i, size=12, grid=3))(far), [8, 0, 1])


def test_pixels_of_invalid_points_may_be_anything():
    rng = np.random.default_rng(2)
    points, centers = rng.normal(size=(2, 6, 3)).astype(np.float32)
    valid, pixels = np.array([True, False, True, True, False, True]), np.array([0, -1, 3, 8, 999, 2])
    call = lambda pixels, valid: m.point_map(points, pixels, centers, centers[:, 0], size=3, valid=valid)  # noqa: E731
    compiled = jax.jit(call)
    want = compiled(np.where(valid, pixels, 4), valid)
    np.testing.assert_array_equal(compiled(pixels, valid), want)
    np.testing.assert_array_equal(jax.jit(lambda: call(pixels, valid))(), want)
    # Where it is not known which points count, nothing is refused.
    jax.eval_shape(lambda valid: call(pixels, valid), valid)


def test_patches_of_masked_groups_may_be_anything():
    rng = np.random.default_rng(5)
    two, three = rng.uniform(size=(9, 4)).astype(np.float32), rng.uniform(size=(4, 4)).astype(np.float32)
    valid, patch = np.array([True, False, True, False]), np.array([3, -1, 8, 99])

    def call(patch):
        got = m.cross_modal_enhancement(two, three, patch, variant="paper", valid_3d=valid)
        return got[0], got[1][valid]

    want = jax.jit(call)(np.where(valid, patch, 0))
    # Of known indices the compiler makes another program, whose sums may round otherwise in their last bit.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=3e-7), jax.jit(lambda: call(patch))(), want)


@pytest.mark.usefixtures("unchecked")
def test_sizes_and_counts_are_whole_numbers():
    rng = np.random.default_rng(3)
    f = lambda *s: rng.uniform(0.1, 1, s).astype(np.float32)  # noqa: E731
    cloud, at = f(40, 3), np.arange(5)
    calls = {
        "num": lambda n: m.farthest_point_sampling(cloud, n),
        "k": lambda n: m.nearest_neighbors(cloud, cloud, n),
        "group_size": lambda n: m.iterative_point_grouping(cloud, at, group_size=n),
        "k_iter": lambda n: m.iterative_point_grouping(cloud, at, group_size=8, k_iter=n),
        "degrees": lambda n: m.snamd_points(f(12, 5), f(12, 3), f(12), degrees=(1, n)),
        "windows": lambda n: m.rescore(f(6), f(6, 4), windows=(1, n)),
        "size": lambda n: m.patch_index(at, size=n, grid=1),
        "grid": lambda n: m.patch_index(at, size=12, grid=n),
        "references": lambda n: m.mutual_scores(f(5, 9, 4), references=n),
        "seed": lambda n: m.mutual_scores(f(5, 9, 4), references=2, seed=n),
    }
    for name, call in calls.items():
        for value, received in ((2.5, r"2\.5$"), (-1, "-1$"), (True, "True$"), (None, "None$")):
            if name != "references" or value is not None:
                with pytest.raises(ValueError, match=f"^{name}: expected .*; received .*{received}"):
                    call(value)
        with pytest.raises(ValueError, match=f"^{name}: expected .*; received .*int32"):
            jax.jit(call)(3)


def test_a_mask_may_be_a_constant_of_the_program():
    points = np.random.default_rng(4).normal(size=(9, 3)).astype(np.float32)
    valid = jax.numpy.asarray(np.arange(9) > 3)
    found = jax.jit(lambda p: m.nearest_neighbors(p, p, 2, valid=valid).indices)(points)
    assert (np.asarray(found) > 3).all()


@pytest.mark.parametrize("name", EXPORTED)
def test_signatures(name):
    """Arrays (and sizes) come first and by position; every option is keyword-only."""
    for parameter in inspect.signature(EXPORTED[name]).parameters.values():
        if parameter.default is not inspect.Parameter.empty:
            assert parameter.kind is inspect.Parameter.KEYWORD_ONLY, parameter


def test_importing_the_library_changes_no_setting():
    import subprocess
    import sys

    code = (
        "import jax; before = dict(jax.config.values); import musc_jax, weights, musc_jax.pipeline; "
        "assert dict(jax.config.values) == before; import sys; "
        "assert not {'torch', 'transformers', 'open3d', 'optax'} & set(sys.modules), 'heavy import'"
    )
    # flax itself may bring optax; nothing of ours asks for it.
    code = code.replace(", 'optax'", "")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
