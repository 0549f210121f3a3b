"""Rules that hold for every public function, and one table of calls run in every form."""

import inspect

import jax
import numpy as np
import pytest

import musc_jax as m

FUNCTIONS = {name: getattr(m, name) for name in m.__all__ if inspect.isfunction(getattr(m, name))}


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
        "pair_scores": (m.pair_scores, (f(9, 5), f(3, 7, 5))),
        "all_pair_scores": (m.all_pair_scores, (f(4, 9, 5),)),
        "interval_average": (m.interval_average, (f(6, 10),)),
        "mutual_scores": (m.mutual_scores, (f(4, 9, 5),)),
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
    assert set(TABLE) == set(FUNCTIONS)


@pytest.mark.parametrize("name", TABLE)
def test_eager_jit_and_vmap_agree(name):
    call, args = TABLE[name]
    want = jax.tree.leaves(jax.jit(call)(*args))
    eager = jax.tree.leaves(call(*(jax.numpy.asarray(a) for a in args)))
    both = jax.tree.leaves(jax.jit(jax.vmap(call))(*(np.stack([a, a]) for a in args)))
    for a, b, c in zip(want, eager, both, strict=True):
        assert isinstance(b, jax.Array)
        for other in (b, c[0], c[1]):
            np.testing.assert_allclose(other, a, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("name", TABLE)
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


@pytest.mark.parametrize("name", FUNCTIONS)
def test_signatures(name):
    """Arrays (and sizes) come first and by position; every option is keyword-only."""
    for parameter in inspect.signature(FUNCTIONS[name]).parameters.values():
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
