"""A seeded dataset in the Eyecandies layout, for demos and tests without any download.

Candy-like solids of several sub-types stand on a conveyor between two rails, so that cleaning has a
plane and other clusters to remove. Piece, place, turn, camera and light differ from sample to
sample. Every second sample has one defect of the four kinds that Eyecandies has.
"""

import contextlib
import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from musc_jax.data.dataset import Progress
from musc_jax.data.datasets.eyecandies import find_eyecandies
from musc_jax.data.sample import DataError
from musc_jax.data.spec import DatasetSpec
from musc_jax.data.synthetic.candies import DEFECT_KINDS
from musc_jax.data.synthetic.samples import CATEGORIES, VERSION, Picture, render
from musc_jax.data.trees import Found, Request
from musc_jax.storage import atomic
from musc_jax.storage.prefetch import map_ahead

SAMPLES = 20
"""Samples a category has."""

SIZE = 512

_MANIFEST = "manifest.json"


def find_synthetic(request: Request) -> Found:
    """Find every sample of the synthetic set, which is written into the cache directory first if it is not there.

    Raises:
        DataError: an unknown category, or the cache directory cannot be written.
    """
    folder = Path(request.cache_dir, "synthetic", f"v{VERSION}-seed{request.seed}")
    try:
        atomic.sweep(folder.parent)
        if not _is_whole(folder):
            _publish(folder, seed=request.seed, workers=request.workers, progress=request.progress)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        way_out = "make room there or choose another cache_dir"
        raise DataError(f"{folder}: cannot be written ({reason}); {way_out}") from None
    return find_eyecandies(replace(request, data_dir=folder))


def write(
    folder: Path | str,
    *,
    seed: int = 0,
    categories: Sequence[str] | None = None,
    samples: int = SAMPLES,
    size: int = SIZE,
    workers: int = 2,
    progress: Progress | None = None,
) -> None:
    """Write a set into a folder that does not exist yet or is empty.

    Args:
        folder: gets a folder for each category, and a manifest with every file's digest.
        seed: another seed, another set. One seed gives the same bytes.
        categories: default all of `CATEGORIES`.
        samples: of each category; sample i is the same whatever their number.
        size: side of the pictures in pixels. A small one shows the same scene with fewer pixels.
        workers: threads that render.
        progress: told how many samples are rendered.

    Raises:
        DataError: the folder has something in it, or a category is unknown.
    """
    folder = Path(folder)
    if folder.exists() and any(folder.iterdir()):
        raise DataError(f"{folder}: is not empty; give a new folder for the synthetic set")
    categories = CATEGORIES if categories is None else tuple(categories)
    for category in categories:
        if category not in CATEGORIES:
            known = ", ".join(CATEGORIES)
            raise DataError(f"{folder}: no synthetic category {category!r}; take of: {known}")
    jobs = [(category, index) for category in categories for index in range(samples)]

    def produce(job: tuple[str, int]) -> dict[str, bytes]:
        category, index = job
        return _files(render(category, index, seed=seed, size=size))

    manifest: dict[str, str] = {}
    digits = max(2, len(str(samples - 1)))
    made = map_ahead(produce, jobs, workers=workers, ahead=2 * workers)
    for done, ((category, index), contents) in enumerate(zip(jobs, made, strict=True), 1):
        place = Path(category, "test_public", "data")
        (folder / place).mkdir(parents=True, exist_ok=True)
        for item, content in contents.items():
            name = place / f"{index:0{digits}d}_{item}"
            (folder / name).write_bytes(content)
            manifest[name.as_posix()] = hashlib.sha256(content).hexdigest()
        if progress is not None:
            progress("make synthetic set", done, len(jobs))
    (folder / _MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")


def _publish(folder: Path, *, seed: int, workers: int, progress: Progress | None) -> None:
    """Write the set under a temporary name and give it its own once it is whole."""
    with atomic.temporary(folder) as part:
        write(part, seed=seed, workers=workers, progress=progress)
        for _ in range(3):
            try:
                part.rename(folder)
                return
            except OSError:
                # Somebody was faster, or what lies there is damaged and makes way.
                if _is_whole(folder):
                    return
            with atomic.temporary(folder) as damaged, contextlib.suppress(FileNotFoundError):
                folder.rename(damaged)
        part.rename(folder)


def _is_whole(folder: Path) -> bool:
    """Whether all that the manifest lists is there, byte for byte."""
    try:
        manifest = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        return bool(manifest) and all(
            hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest for name, digest in manifest.items()
        )
    except (OSError, ValueError, AttributeError):
        return False


def _files(picture: Picture) -> dict[str, bytes]:
    """Encode a sample as the files of the Eyecandies layout."""
    low, high = picture.depth_range
    pose = "\n".join(" ".join(f"{entry:.17g}" for entry in row) for row in picture.pose)
    files = {
        "image_0.png": _png(picture.image),
        "depth.png": _png(picture.depth),
        "info_depth.yaml": _yaml({"normalization": {"min": low, "max": high}}),
        "pose.txt": (pose + "\n").encode(),
        "mask.png": _png(np.uint8(255) * picture.mask),
        "metadata.yaml": _yaml(
            {
                "anomalous": int(picture.kind is not None),
                "defect": picture.kind,
                "subtype": picture.subtype,
            }
        ),
    }
    for kind in DEFECT_KINDS:
        mask = picture.mask if kind == picture.kind else np.zeros_like(picture.mask)
        files[f"{kind}_mask.png"] = _png(np.uint8(255) * mask)
    return files


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", compress_level=4)
    return buffer.getvalue()


def _yaml(fields: dict[str, object]) -> bytes:
    return yaml.safe_dump(fields, sort_keys=False).encode()


DATASET = DatasetSpec(
    name="synthetic", find=find_synthetic, needs_data_dir=False, seeded=True, default_weights="random", rank=0
)
