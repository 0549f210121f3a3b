"""`--implementation=plain` through the whole command: the statements alone, and the maps of their forms."""

import jax
import numpy as np
import pytest
import tifffile

from launch import eval as command
from musc_jax import kernels
from musc_jax.kernels import FORMS, OPERATIONS, Form


@pytest.fixture
def called(monkeypatch):
    """Operations whose forms were run since it was cleared last."""
    seen = set()

    def counted(name, form):
        return Form(lambda *a, **options: seen.add(name) or form.function(*a, **options), form.tolerance, form.reason)

    forms = {name: {key: counted(name, form) for key, form in row.items()} for name, row in FORMS.items()}
    monkeypatch.setattr(kernels, "FORMS", forms)
    return seen


@pytest.fixture
def maps(tmp_path, candies, image_weights, request):
    """Runs the command and reads its maps."""

    def call(implementation, *arguments):
        # What has been traced before would not come by the forms again.
        jax.clear_caches()
        output = tmp_path / implementation
        points = request.path.parents[1] / "golden" / "point_mae_tiny.pth"
        given = ["--dataset=eyecandies", f"--data_dir={candies}", "--categories=Apple", "--save=maps", *arguments]
        given += [f"--weights_rgb={image_weights}", f"--weights_points={points}", f"--output_dir={output}"]
        given += [f"--cache_dir={tmp_path / 'cache'}", f"--implementation={implementation}"]
        given += ["--image_size=32", "--num_groups=48", "--group_size=24", "--k_iter=16"]
        assert command.main(["eval", *given]) == 0
        files = sorted((output / "eyecandies" / "Apple" / "maps").iterdir())
        return np.stack([tifffile.imread(file) for file in files])

    return call


IMAGES = {"attention", "window_pooling", "lowest_mean", "pair_minima"}
POINTS = {"farthest_points", "nearest_points", "group_expansion", "group_tokens", "nearest_groups", "nearest_centers"}
RANKS = {"rank_match", "enhance_by_rank"}


@pytest.mark.parametrize(
    ("arguments", "operations", "tolerance"),
    [
        (("--modality=rgb",), IMAGES, 1e-5),
        (("--ablate=cae",), IMAGES | POINTS, 1e-5),
        # Rank matching swaps neighbours in rank on a rounding; values next to each other in rank are close.
        ((), IMAGES | POINTS | RANKS, 2e-3),
    ],
    ids=["rgb", "no cae", "both"],
)
def test_statements_alone_give_the_maps_of_their_forms(maps, called, arguments, operations, tolerance):
    fast = maps("auto", *arguments)
    assert called == operations
    called.clear()
    plain = maps("plain", *arguments)
    assert not called
    assert fast.shape == (6, 32, 32)
    np.testing.assert_allclose(plain, fast, rtol=0, atol=tolerance * fast.max())


def test_the_table_is_all_of_them():
    # Blocks of samples are multiplied on accelerators alone.
    assert set(FORMS) == IMAGES | POINTS | RANKS | {"block_minima"}
    assert set(FORMS) <= set(OPERATIONS)
