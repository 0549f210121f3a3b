"""Every file of a folder, given to the reader its suffix asks for: a line each, what it was read as or the refusal.

    python -m benchmarks.odd DIR [DIR ...]

Files that people really have show what readers do not expect. Exit code 1: a reader ended in something else than
points, pixels, parameters or a refusal, or a library wrote onto the screen.
"""

import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from musc_jax.data import Camera
from musc_jax.data.account import Account
from musc_jax.data.formats import files, own_pictures
from musc_jax.data.formats import points as point_files
from musc_jax.data.formats.bit_depths import depth_of
from musc_jax.data.formats.files import FileFault
from musc_jax.data.formats.own_masks import keys_of
from musc_jax.data.formats.showing import bits_of, show
from musc_jax.data.mask_rules import decide_mask_rule
from musc_jax.data.mask_survey import look_at_mask
from musc_jax.data.scan_points import ScanRules, decode_points
from weights import WeightsError
from weights.files import read_entries

WEIGHTS = frozenset({
    ".pt", ".pth", ".bin", ".safetensors", ".npz", ".onnx", ".h5", ".msgpack", ".gguf", ".ckpt", ".pkl", ".zip"
})  # fmt: skip
_TEXT = {".txt": files.decode_pose, ".yaml": files.decode_yaml}
# Depth needs some camera; which one does not matter here.
_CAMERA = Camera(500.0, 500.0, 320.0, 240.0)


def _picture(path: Path) -> str:
    picture = own_pictures.decode(files.read(path))
    bits = bits_of(picture, depth_of(picture.largest))
    pixels = show(picture, bits=bits, background=(255, 255, 255))
    grey = (pixels[..., :1] == pixels).all()
    return f"picture {_size(pixels)}{', grey' if grey else ''}, {pixels.min()} to {pixels.max()}"


def _mask(path: Path) -> str:
    content = files.read(path)
    picture = own_pictures.decode(content, whole=True)
    keys, noisy = keys_of(content, picture), picture.header.noisy
    account = Account()
    rule = decide_mask_rule([look_at_mask(path, keys, noisy=noisy)], "auto", account)
    if rule.unknown:
        return f"no mask: {rule.unknown}"
    defect = (rule.apply(keys, noisy=noisy) > 127).mean()
    return ", ".join([f"mask {_size(keys)}, {defect:.1%} defect", *account.lines])


def _points(path: Path) -> str:
    points = decode_points(files.read(path), size=None, rules=ScanRules(camera=_CAMERA))
    there = points[(points != 0).all(-1)]
    low, high = there[:, 2].min(), there[:, 2].max()
    form = f"{_size(points)} points" if points.ndim == 3 else f"{len(points)} points without a grid"
    return f"{form}, {len(there)} of them there, z {low:.4g} to {high:.4g}"


def _weights(path: Path) -> str:
    entries = read_entries(path)
    for entry in entries.values():
        entry.read()
    values = sum(int(np.prod(entry.shape)) for entry in entries.values())
    return f"{len(entries)} parameters, {values} values of {', '.join(sorted({e.dtype for e in entries.values()}))}"


def _text(path: Path) -> str:
    _TEXT[path.suffix.lower()](files.read(path))
    return "text"


def _size(array: np.ndarray) -> str:
    return f"{array.shape[1]} x {array.shape[0]}"


def readers(path: Path) -> list[Callable[[Path], str]]:
    """Those that a file's suffix asks for; a PNG may be a picture, a mask or depth."""
    suffix, found = path.suffix.lower(), []
    if suffix in own_pictures.EXTENSIONS:
        found += [_picture, _mask]
    if suffix in point_files.EXTENSIONS:
        found.append(_points)
    if suffix in WEIGHTS:
        found.append(_weights)
    return found + ([_text] if suffix in _TEXT else [])


@contextmanager
def _overheard(said: list[str]) -> Iterator[None]:
    """What libraries write onto the screen meanwhile, also those that are no Python."""
    sys.stderr.flush()
    screen = os.dup(2)
    with tempfile.TemporaryFile() as file, warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(screen, 2)
            os.close(screen)
            file.seek(0)
            said += [line for line in file.read().decode(errors="replace").splitlines() if line.strip()]
            said += [f"{w.category.__name__}: {w.message}" for w in warned]


def look_at(path: Path) -> tuple[str, bool]:
    """A line about a file without its path, and whether all is as it should be."""
    told, said, fine = [], [], True
    for read in readers(path):
        with _overheard(said):
            try:
                told.append(read(path))
            except (FileFault, WeightsError) as refusal:
                told.append(f"no {read.__name__.strip('_')}: {str(refusal).removeprefix(f'{path}: ')}")
            except Exception as error:  # noqa: BLE001 - this is what is looked for
                told.append(f"CRASHED as {read.__name__.strip('_')}: {type(error).__name__}: {error}")
                fine = False
    if said:
        told.append(f"SAID {said[0]}" + f" (and {len(said) - 1} more)" * (len(said) > 1))
    return " | ".join(told) or "no reader", fine and not said


def main(folders: list[str]) -> int:
    """The command; returns the exit code."""
    if not folders or not all(map(os.path.exists, folders)):
        print(f"expected folders or files that are there, received {' '.join(folders) or 'none'}", file=sys.stderr)
        return 2
    bad = 0
    for folder in map(Path, folders):
        found = sorted(p for p in folder.rglob("*") if p.is_file()) if folder.is_dir() else [folder]
        for path in found:
            line, fine = look_at(path)
            bad += not fine
            print(f"{path}: {line}".encode(errors="backslashreplace").decode(), flush=True)
    print(f"{bad} files with something that should not be", file=sys.stderr)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
