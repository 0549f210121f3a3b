"""Every flag of `launch.eval` is checked before weights are looked for and before the dataset is opened."""

import pytest
from scenes import make_backbones

from launch import distributed, start
from launch import eval as command
from launch import flags as options

HEIGHTS = "--dataset=folder --depth_kind=height"
# By flag: values that are refused, those of several flags with a space between them.
BAD = {
    "dataset": ["mvtec"],
    "limit": ["0", "-1", "all"],
    "skip_bad": ["maybe"],
    "copies": ["twice"],
    "unmasked": ["bad"],
    "unlabelled": ["maybe"],
    **{name: ["x"] for name in ("normal_dir", "abnormal_dir", "mask_dir", "normal_depth_dir", "abnormal_depth_dir")},
    **{name: ["x"] for name in ("depth_dir", "extensions")},
    "intrinsics": ["1,2,3,4", "1,2,3 --dataset=folder", "1,2,3,a --dataset=folder", "0,1,1,1 --dataset=folder"],
    "depth_scale": ["0.1", "0 --dataset=folder", "nan --dataset=folder", "-1 --dataset=folder"],
    "depth_kind": ["height", "height --dataset=folder --intrinsics=1,1,1,1", "heights --dataset=folder"],
    "pixel_pitch": ["1", "1 --dataset=folder", *(f"{value} {HEIGHTS}" for value in ("0", "1,2,3", "a", "nan"))],
    "points_scale": ["0.1", "0 --dataset=folder", "inf --dataset=folder"],
    "point_order": ["rows", "row --dataset=folder"],
    "invalid": ["0", "x --dataset=folder", "1,,2 --dataset=folder"],
    "fit": ["pad", "stretch --dataset=folder"],
    "bits": ["12", "7 --dataset=folder", "17 --dataset=folder", "a --dataset=folder"],
    "background": ["black", "green --dataset=folder", "1,2 --dataset=folder", "0,0,256 --dataset=folder"],
    "masks": ["white", "red --dataset=folder"],
    "max_pixels": ["9", "0 --dataset=folder"],
    "modality": ["images", "points --dataset=mvtec_ad", "points --variant=v1"],
    "backbone": ["vgg"],
    "point_backbone": [
        "pointnet",
        "descriptors --weights_points=random",
        "descriptors --modality=points --point_norm=cloud",
    ],
    "activation": ["relu", "gelu"],
    "dtype": ["float64"],
    "variant": ["v2"],
    "point_norm": ["batch"],
    "image_size": ["0", "-8", "32.5"],
    "blocks": ["", "a", "3,3", "7,3", "-1", "0.5"],
    "degrees": ["", "2", "0", "1,a", "1,2001"],
    "interval": ["0", "1.1", "nan", "inf", "a"],
    "precision": ["half"],
    "implementation": ["fast"],
    "references": ["0", "-1", "2.5"],
    "recurring": ["on", "no"],
    "nearest_images": ["0", "-1", "2.5", "2 --references=2"],
    "windows": ["", "0", "1,a"],
    "k_iter": ["0", "1.5"],
    "curvature_threshold": ["-1", "nan", "inf"],
    "num_groups": ["0", "2.5"],
    "group_size": ["2", "a"],
    "ablate": ["nothing", "cae --modality=rgb", "ipg --variant=v1"],
    "subsets": ["0", "2 --batch_size=3", "1.5"],
    "batch_size": ["1", "2.5"],
    "normal_ratio": ["2", "-1", "nan", "1/0", "half", "1/2 --dataset=folder"],
    "seeds": ["1,2", "1,1 --subsets=2", "-1 --subsets=2", "a --subsets=2"],
    "seed": ["-1", "4294967296", "0.5"],
    "memory_gb": ["0", "-1", "nan", "inf", "much"],
    "replace": ["maybe"],
    "save": ["videos", "maps,videos"],
    "profile": ["maybe"],
    "coordinator": ["host", "host:1 --num_processes=2"],
    "num_processes": ["2", "0 --coordinator=host:1 --process_id=0"],
    "process_id": ["0", "2 --coordinator=host:1 --num_processes=2"],
}
# Names of files and of categories are looked for; nothing can be said about them before.
LOOKED_FOR = {
    "data_dir",
    "roi",
    "features",
    "categories",
    "weights_rgb",
    "weights_points",
    "weights_dir",
    "output_dir",
    "cache_dir",
}
# What only a backbone can tell.
BY_BACKBONE = {"image_size": "33", "blocks": "0,1,9", "group_size": "1025"}


def test_every_flag_is_in_the_table():
    names = {flag.name for module in (options, distributed) for flag in module.flags.all}
    assert set(BAD) | LOOKED_FOR == names, "a flag needs a row in BAD, with values that are refused"
    assert not set(BAD) & LOOKED_FOR


@pytest.fixture
def refused(monkeypatch, tmp_path, capsys):
    """The command's one line about a flag; it fails where the dataset is opened."""

    def call(arguments):
        monkeypatch.setattr(start, "open_dataset", lambda *_, **__: pytest.fail("the dataset was opened before"))
        given = ["eval", f"--output_dir={tmp_path}", f"--cache_dir={tmp_path}"]
        assert command.main([*given, *arguments.split(" ")]) == 2
        err = capsys.readouterr().err
        assert [line.startswith("error: ") for line in err.splitlines()] == [True]
        return err

    return call


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in BAD.items() for value in values])
def test_a_flag_is_checked_before_weights_are_looked_for(refused, monkeypatch, name, value):
    monkeypatch.setattr("weights.load", lambda *_, **__: pytest.fail("weights were looked for before"))
    assert name in refused(f"--{name}={value}")


@pytest.mark.parametrize("name", BY_BACKBONE)
def test_a_flag_is_checked_with_the_backbone_before_the_dataset_is_opened(refused, monkeypatch, name):
    of = dict(zip(("dino_vitb8", "point_mae"), make_backbones().values(), strict=True))
    monkeypatch.setattr("weights.load", lambda _, name, **__: of[name])
    assert f"error: {name}: " in refused(f"--{name}={BY_BACKBONE[name]}" + " --image_size=32" * (name != "image_size"))
