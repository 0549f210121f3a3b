"""Every flag of `launch.eval` arrives where it belongs, and nowhere else: one table, nothing is run."""

import dataclasses
import inspect
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest

import weights
from launch import eval as command
from launch import flags as options
from launch import start
from musc_jax import pipeline
from musc_jax.models import Backbone, GivenTokens, PointTransformer, VisionTransformer


class Stop(Exception):
    """Ends a run where the first sample would be read."""


def _flat(name, value):
    """A dataclass or a named tuple as one entry for each of its fields."""
    if dataclasses.is_dataclass(value):
        parts = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    elif hasattr(value, "_asdict"):
        parts = value._asdict()
    else:
        return {name: value}
    return {key: part for field in parts for key, part in _flat(f"{name}.{field}", parts[field]).items()}


class Parts:
    """Stands in for all that a run is made of, and notes what each part is called with."""

    def __init__(self):
        self.entries = {}

    def note(self, part, function, args, options):
        """Keeps what a function was called with, under the names of its parameters."""
        for name, value in inspect.signature(function).bind(*args, **options).arguments.items():
            self.entries |= _flat(f"{part}.{name}", value)

    def load_weights(self, *args, **options):
        call = inspect.signature(_load).bind(*args, **options).arguments
        spec = weights.BACKBONES[call["backbone"]]
        self.note("points" if spec.family == "point_mae" else "image", _load, args, options)
        return Backbone(
            module=(PointTransformer if spec.family == "point_mae" else VisionTransformer)(spec.config),
            variables={},
            name=spec.name,
            source="",
            digest="",
            random=False,
            blocks=spec.blocks,
            v1_blocks=spec.v1_blocks,
            image_size=spec.image_size,
        )

    def open_dataset(self, *args, **options):
        self.note("data", _open_dataset, args, options)
        return SimpleNamespace(
            categories=("a",),
            warnings=(),
            accounts={},
            skipped={},
            health={},
            copies_count_once=False,
            digest=lambda _: "",
            names=lambda _: ["0", "1"],
            samples=lambda _, *, size, only: self.entries.update({"data.size": size}),
        )

    def open_features(self, *args, **options):
        self.note("features", _open_features, args, options)
        image, points = (GivenTokens(16, (8,) * 3) for _ in range(2))

        def join(dataset, **options):
            self.entries |= {f"features.{name}": value for name, value in options.items()}
            return dataset

        return SimpleNamespace(modality="rgb+points", image=image, points=points, size=None, join=join)

    def results_folder(self, *args, **options):
        self.note("results", _ResultsFolder, args, options)
        folder = MagicMock()
        folder.finished = lambda _, identity, save: self.entries.update({"results.save": save})
        return folder

    def run_category(self, *args, **options):
        self.note("run", _run_category, args, options)
        self.entries["run.profile"] = options["programs"].profile
        return _run_category(*args, **options)

    def score_divisions(self, samples, config, divide, programs, *, plan, skip_bad, **_):
        self.entries |= _flat("config", config.config) | {"scored.budget": plan.budget, "scored.skip_bad": skip_bad}
        if config.points is not None:
            self.entries["scored.point_backbone"] = config.points.backbone.name
        raise Stop


_load, _open_dataset, _open_features = weights.load, start.open_dataset, start.open_features
_ResultsFolder, _run_category = command.ResultsFolder, command.run_category
# Objects of no interest, and what only carries progress and reports.
_LEFT_OUT = ("config.image_backbone", "config.point_backbone", "run.config", "run.dataset", "run.programs", "run.bar",
             "image.report", "image.progress", "points.report", "points.progress", "data.progress",
             "features.progress")  # fmt: skip


@pytest.fixture
def arrive(monkeypatch):
    """Runs the command up to where the first sample would be read; returns what its parts were called with."""

    def call(*arguments):
        parts = Parts()
        monkeypatch.setattr("weights.load", parts.load_weights)
        monkeypatch.setattr(start, "open_dataset", parts.open_dataset)
        monkeypatch.setattr(start, "open_features", parts.open_features)
        monkeypatch.setattr(command, "ResultsFolder", parts.results_folder)
        monkeypatch.setattr(command, "run_category", parts.run_category)
        monkeypatch.setattr(pipeline, "score_divisions", parts.score_divisions)
        monkeypatch.setattr(command, "keep_programs", lambda folder: parts.entries.update({"programs.folder": folder}))
        monkeypatch.setattr(options, "usable_memory", lambda: 7_000_000_000)
        with pytest.raises(Stop):
            command.main(["eval", *arguments])
        return {name: value for name, value in parts.entries.items() if not name.startswith(_LEFT_OUT)}

    return call


FOLDER = ("--dataset=folder", "--data_dir=parts", "--modality=rgb")
# Folders of a dataset, into which nothing is written.
WITHIN = (Path("parts"), Path("parts/x"))
BOTH_PRETRAINED = {"image.path": "pretrained", "points.path": "pretrained"}
REPEATED = {"run.division.seeds": tuple(range(10))}

# The flag as it is given: what else is given, and the entries that become others. A part that is None is not called.
TABLE = {
    # What is scored
    "dataset=eyecandies": ((), {"data.name": "eyecandies", "results.dataset": "eyecandies"} | BOTH_PRETRAINED),
    "data_dir=parts": ((), {"data.data_dir": "parts", "results.data_folders": (Path("parts"),)}),
    "categories=a,b": ((), {"data.categories": ["a", "b"]}),
    "limit=4": ((), {"data.limit": 4}),
    "copies=each": ((), {"data.copies": "each"}),
    "skip_bad": ((), {"data.skip_bad": True, "run.skip_bad": True, "scored.skip_bad": True}),
    "modality=points": (
        (),
        {"config.modality": "points", "data.modality": "points", "data.working": (224, 1), "image": None},
    ),
    "normal_dir=x": (FOLDER, {"data.folder.normal_dir": ("x",), "results.data_folders": WITHIN}),
    "abnormal_dir=x": (FOLDER, {"data.folder.abnormal_dir": ("x",), "results.data_folders": WITHIN}),
    "mask_dir=x": (FOLDER, {"data.folder.mask_dir": ("x",), "results.data_folders": WITHIN}),
    "depth_dir=x": (FOLDER, {"data.folder.depth_dir": "x", "results.data_folders": WITHIN}),
    "normal_depth_dir=x": (FOLDER, {"data.folder.normal_depth_dir": ("x",), "results.data_folders": WITHIN}),
    "abnormal_depth_dir=x": (FOLDER, {"data.folder.abnormal_depth_dir": ("x",), "results.data_folders": WITHIN}),
    "unlabelled": (FOLDER, {"data.folder.unlabelled": True}),
    "unmasked=good": (FOLDER, {"data.folder.unmasked": "good"}),
    "extensions=.x": (FOLDER, {"data.folder.extensions": (".x",)}),
    "intrinsics=1,2,3,4": (
        FOLDER,
        {f"data.folder.camera.{name}": at for at, name in enumerate(("fx", "fy", "cx", "cy"), start=1)},
    ),
    "depth_scale=0.5": (FOLDER, {"data.folder.depth_scale": 0.5}),
    "depth_kind=height": (FOLDER, {"data.folder.depth_kind": "height"}),
    "pixel_pitch=1,2": ((*FOLDER, "--depth_kind=height"), {"data.folder.pixel_pitch": (1.0, 2.0)}),
    "points_scale=0.5": (FOLDER, {"data.folder.points_scale": 0.5}),
    "point_order=columns": (FOLDER, {"data.folder.point_order": "columns"}),
    "invalid=-1,65535": (FOLDER, {"data.folder.invalid": (-1.0, 65535.0)}),
    "fit=pad": (FOLDER, {"data.folder.fit": "pad"}),
    "bits=12": (FOLDER, {"data.folder.bits": 12}),
    "background=1,2,3": (FOLDER, {"data.folder.background": (1, 2, 3)}),
    "masks=alpha": (FOLDER, {"data.folder.masks": "alpha"}),
    "max_pixels=9": (FOLDER, {"data.folder.max_pixels": 9}),
    "roi=x.png": (FOLDER, {"data.folder.roi": str(Path("x.png").absolute())}),
    # With what
    "backbone=dino_vitb16": ((), {"image.backbone": "dino_vitb16", "data.working": (224, 16)}),
    # OpenCLIP's model has an activation of its own.
    "backbone=clip_vitb16_plus_240": (
        (),
        {
            "image.backbone": "clip_vitb16_plus_240",
            "image.activation": "gelu",
            "config.image_size": 240,
            "data.size": 240,
            "data.working": (240, 16),
        },
    ),
    "point_backbone=descriptors": ((), {"points": None, "scored.point_backbone": "descriptors"}),
    "weights_rgb=x": ((), {"image.path": "x"}),
    "weights_points=x": ((), {"points.path": "x"}),
    "features=x": (
        (),
        {
            "features.root": Path("x"),
            "features.categories": None,
            "features.skip_bad": False,
            "features.whole": True,
            "data.working": (224, 56),
            "config.grouping.num_groups": 16,
            "config.blocks": (0, 1, 2),
            "scored.point_backbone": "given tokens",
            "image": None,
            "points": None,
        },
    ),
    "weights_dir=x": ((), {"image.weights_dir": "x", "points.weights_dir": "x"}),
    "activation=quick_gelu": (("--backbone=clip_vitl14_336",), {"image.activation": "quick_gelu"}),
    "dtype=bfloat16": ((), {"image.dtype": "bfloat16", "points.dtype": "bfloat16"}),
    # How
    "variant=paper": ((), {"config.variant": "paper", "config.point_norm": "checkpoint"}),
    "point_norm=checkpoint": ((), {"config.point_norm": "checkpoint"}),
    "image_size=32": ((), {"config.image_size": 32, "data.size": 32, "data.working": (32, 8)}),
    "blocks=1,2,3": ((), {"config.blocks": (1, 2, 3)}),
    "degrees=3": ((), {"config.aggregation.degrees": (3,)}),
    "interval=0.5": ((), {"config.scoring.interval": 0.5}),
    "precision=fast": ((), {"config.scoring.precision": "fast"}),
    "references=3": ((), {"config.scoring.references": 3}),
    "nearest_images=3": ((), {"config.scoring.nearest_images": 3}),
    "recurring=filter": ((), {"config.scoring.recurring": "filter"}),
    "implementation=plain": ((), {"config.implementation": "plain"}),
    "windows=2,3": ((), {"config.rescoring.windows": (2, 3)}),
    "k_iter=5": ((), {"config.grouping.k_iter": 5}),
    "curvature_threshold=0.5": ((), {"config.grouping.curvature_threshold": 0.5}),
    "num_groups=9": ((), {"config.grouping.num_groups": 9}),
    "group_size=9": ((), {"config.grouping.group_size": 9}),
    "ablate=trust,ipg": ((), {"config.ablate": ("ipg", "trust")}),
    "subsets=2": ((), {"run.division.subsets": 2} | REPEATED),
    "batch_size=4": ((), {"run.division.batch_size": 4} | REPEATED),
    "normal_ratio=1/2": ((), {"run.division.normal_ratio": Fraction(1, 2)} | REPEATED),
    "seeds=3,4": (("--subsets=2",), {"run.division.seeds": (3, 4)}),
    "seed=6": (
        ("--references=3",),
        {"image.seed": 6, "points.seed": 6, "data.seed": 6, "config.scoring.seed": 6},
    ),
    # Where to
    "memory_gb=2": ((), {"run.budget": 2_000_000_000, "scored.budget": 2_000_000_000}),
    "output_dir=x": ((), {"results.output_dir": Path("x")}),
    "cache_dir=x": (
        (),
        {"programs.folder": Path("x"), "run.cache_dir": Path("x"), "data.cache_dir": Path("x")}
        | {f"{part}.cache_dir": Path("x/weights") for part in ("image", "points")},
    ),
    "replace": ((), {"results.replace": True}),
    "save=maps": ((), {"results.save": ("maps",)}),
    "profile": ((), {"run.profile": True}),
}


def test_every_flag_has_a_row():
    own = {flag.name for flag in options.flags.all}
    assert {given.partition("=")[0] for given in TABLE} == own, "a flag needs a row in TABLE, with what it changes"


@pytest.mark.parametrize("given", TABLE)
def test_a_flag_arrives_where_it_belongs(arrive, given):
    others, wanted = TABLE[given]
    without, got = arrive(*others), arrive(*others, f"--{given}")
    gone = {name for name in without if any(v is None and name.startswith(f"{k}.") for k, v in wanted.items())}
    wanted = {name: value for name, value in wanted.items() if value is not None}
    assert {name for name in without.keys() | got.keys() if without.get(name) != got.get(name)} - gone == set(wanted)
    assert gone.isdisjoint(got)
    assert {name: got[name] for name in wanted} == wanted
