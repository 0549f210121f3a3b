"""A small tree in the exact Eyecandies layout, written without any of the code under test."""

import hashlib
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

SIDE = 48


def scene(seed, *, side=SIDE):
    """A flat conveyor at the largest Y, a bright box and a darker one upon it, seen from straight above."""
    rng = np.random.default_rng(seed)
    depth = np.full((side, side), 1.5)
    image = np.full((side, side, 3), 40, np.uint8)
    depth[8:30, 8:30] = 1.40 + 0.02 * rng.random((22, 22))
    image[8:30, 8:30] = rng.integers(150, 250, (22, 22, 3))
    depth[36:46, 36:46] = 1.44
    image[36:46, 36:46] = 90
    return image, depth


def pose_from_above():
    """World to camera: the world's Y (down) is the camera's depth; shifted, so that no coordinate is zero."""
    pose = np.eye(4)
    pose[:3, :3] = [[1, 0, 0], [0, 0, -1], [0, 1, 0]]
    pose[:3, 3] = [0.0101, 0.0203, 0.3]
    return pose


def write_sample(folder, index, *, seed=0, defective=False, raw=True, xyz=False, side=SIDE, metadata=True):
    folder.mkdir(parents=True, exist_ok=True)
    image, depth = scene(seed, side=side)
    Image.fromarray(image).save(folder / f"{index}_image_0.png")
    mask = np.zeros((side, side), np.uint8)
    if defective:
        mask[12:18, 12:20] = 255
    Image.fromarray(mask).save(folder / f"{index}_mask.png")
    if raw:
        low, high = depth.min(), depth.max()
        coded = np.round((depth - low) / (high - low) * 65535).astype(np.uint16)
        Image.fromarray(coded).save(folder / f"{index}_depth.png")
        (folder / f"{index}_info_depth.yaml").write_text(f"normalization:\n  max: {high!s}\n  min: {low!s}\n")
        np.savetxt(folder / f"{index}_pose.txt", pose_from_above())
    if xyz:
        tifffile.imwrite(folder / f"{index}_xyz.tiff", xyz_of(depth), photometric="minisblack", planarconfig="contig")
    if metadata:
        (folder / f"{index}_metadata.yaml").write_text(f"anomalous: {int(defective)}\n")


def xyz_of(depth):
    side = len(depth)
    row, column = np.mgrid[:side, :side]
    xyz = np.stack([(column - 5.5) * 0.002, (row - 5.5) * 0.002, depth], -1).astype(np.float32)
    xyz[depth == 1.5] = 0
    return xyz


def write_category(root, category, indices, **options):
    folder = root / category / "test_public" / "data"
    for number, index in enumerate(indices):
        write_sample(folder, index, seed=number, defective=number % 2 == 1, **options)
    return folder


def fingerprint(root):
    """Every path below with its content and time of change."""
    return {
        str(path.relative_to(root)): (
            hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "",
            path.lstat().st_mtime_ns,
        )
        for path in sorted(Path(root).rglob("*"))
    }
