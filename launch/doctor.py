"""Says what is here: versions, devices, memory, caches, weights, the dataset; a line each.

    python -m launch.doctor
    python -m launch.doctor --dataset=eyecandies --data_dir=DIR

Nothing is changed and nothing is fetched. The exit code is 2 if something stands in the way of a run, with what to do
about it, and 0 otherwise.
"""

import importlib.util
import os
import platform
import shutil
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

# Before JAX starts: its notes about what hardware it did not find are not this program's messages.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import jax

import musc_jax
import weights
from launch import command
from launch.own_flags import OwnFlags
from musc_jax.data import DATASETS
from musc_jax.data.published.layout_check import check_layout
from musc_jax.data.sample import DataError
from musc_jax.execution.free_memory import usable_memory

flags = OwnFlags()
flags.DEFINE_enum("dataset", None, sorted(DATASETS), "Look for this dataset, too.")
flags.DEFINE_string("data_dir", None, "Where it is.")
flags.DEFINE_string("weights_dir", None, "Where parameters are looked for; default as for launch.eval.")
flags.DEFINE_string("cache_dir", str(weights.default_folder().parent), "Where derived files are kept.")

_LIBRARIES = ("jax", "jaxlib", "flax", "numpy", "scipy", "pillow", "scikit-learn")
_EXTRAS = {"open3d": "cleans raw scans of MVTec 3D-AD (extra open3d)", "plotly": "curves and clouds in reports"}
# Files that say that a machine has an accelerator, whatever Python knows of it.
_NVIDIA = (Path("/proc/driver/nvidia/version"), Path("/dev/nvidiactl"), Path("/dev/nvhost-gpu"))
_TPU = (Path("/dev/accel0"), Path("/dev/vfio/0"))
# What a small run needs, and a run with the usual backbones.
_LEAST_MEMORY = 2 * 10**9


class Finding(NamedTuple):
    """A line; `fine` is False for what stands in the way of a run."""

    topic: str
    text: str
    fine: bool = True


def _versions() -> Iterator[Finding]:
    found = ", ".join(f"{name} {metadata.version(name)}" for name in _LIBRARIES)
    yield Finding("versions", f"musc-jax {musc_jax.__version__}, Python {platform.python_version()}, {found}")
    here = [name for name in _EXTRAS if importlib.util.find_spec(name) is not None]
    lacking = [f"{name} ({why})" for name, why in _EXTRAS.items() if name not in here]
    text = f"{', '.join(here) or 'none'} installed" + (f"; not here: {', '.join(lacking)}" if lacking else "")
    yield Finding("extras", text)


def _devices() -> Iterator[Finding]:
    asked = os.environ.get("JAX_PLATFORMS")
    try:
        devices = jax.devices()
    except (RuntimeError, AssertionError) as error:
        reason = (str(error).splitlines() or ["no plugin for it is installed"])[0]
        yield Finding("devices", f"none ({reason}); unset JAX_PLATFORMS, or install its plugin", fine=False)
        return
    kind = devices[0].device_kind
    how = f" (JAX_PLATFORMS={asked})" if asked else ""
    yield Finding("devices", f"{len(devices)} of {devices[0].platform}{'' if kind == 'cpu' else f', {kind}'}{how}")
    if devices[0].platform != "cpu" or asked == "cpu":
        return
    for name, extra, files in (("an NVIDIA GPU", "cuda", _NVIDIA), ("a TPU", "tpu", _TPU)):
        if any(file.exists() for file in files):
            way_out = f'pip install "musc-jax[{extra}]"'
            yield Finding("devices", f"this machine has {name}, which JAX does not use; {way_out}", fine=False)


def _memory() -> Iterator[Finding]:
    free = usable_memory()
    enough = free >= _LEAST_MEMORY
    text = f"{free / 1e9:.1f} GB may be planned with, {os.cpu_count()} cores"
    yield Finding("memory", text + ("" if enough else "; end other programs"), enough)


def _size(folder: Path) -> int:
    """Bytes of the files below a folder; what vanishes or cannot be looked at counts as nothing."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(parent, name)).st_size
            except OSError:
                continue
    return total


def _caches(folder: Path) -> Iterator[Finding]:
    above = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        yield Finding("cache", f"{above} cannot be written; pass another --cache_dir", fine=False)
        return
    free = f"{shutil.disk_usage(above).free / 1e9:.1f} GB free"
    if not folder.exists():
        yield Finding("cache", f"{folder}: not there yet, is made by the first run; {free}")
        return
    parts = [f"{path.name} {_size(path) / 1e6:.0f} MB" for path in sorted(folder.iterdir()) if path.is_dir()]
    yield Finding("cache", f"{folder}: {', '.join(parts) or 'empty'}; {free}")


def _weights(given: str | None) -> Iterator[Finding]:
    places = [Path(place).expanduser() for place in (given, os.environ.get("MUSC_WEIGHTS_DIR")) if place]
    places.append(weights.default_folder())
    found = {
        name: place
        for place in reversed(places)
        for name in weights.BACKBONES
        if (place / f"{name}.safetensors").exists()
    }
    if given and not places[0].is_dir():
        yield Finding("weights", f"--weights_dir: {places[0]} is not a folder", fine=False)
    elif not found:
        looked = ", ".join(map(str, dict.fromkeys(places)))
        yield Finding(
            "weights", f"none in {looked}; launch.eval fetches what it needs, launch.fetch_weights beforehand"
        )
    for name, place in found.items():
        size = (place / f"{name}.safetensors").stat().st_size
        yield Finding("weights", f"{name} in {place}, {size / 1e6:.0f} MB")


def _dataset(name: str | None, data_dir: str | None) -> Iterator[Finding]:
    if name is None:
        if data_dir is not None:
            yield Finding("dataset", "--data_dir goes with --dataset; pass both", fine=False)
        return
    spec = DATASETS[name]
    if not spec.needs_data_dir:
        yield Finding("dataset", f"{name} is made on first use")
        return
    if data_dir is None:
        yield Finding("dataset", f"{name}: say where it is by --data_dir", fine=False)
        return
    root = Path(data_dir).expanduser()
    if spec.source is None or not root.is_dir():
        what = f"{len(list(root.iterdir()))} entries in {root}" if root.is_dir() else f"{root} is not a folder"
        yield Finding("dataset", f"{name}: {what}", root.is_dir())
        return
    try:
        findings = check_layout(name, root)
    except DataError as error:
        yield Finding("dataset", str(error).splitlines()[0], fine=False)
        return
    of_all = next((finding for finding in findings if finding.problem and not finding.category), None)
    if of_all is not None:
        yield Finding("dataset", str(of_all), fine=False)
        return
    there = len(spec.source.categories) - len({finding.category for finding in findings if finding.absent})
    said = f"{there} of {len(spec.source.categories)} categories"
    others = sum(not finding.absent for finding in findings)
    if others:
        said += f", {others} remarks (python -m launch.fetch --dataset={name} --data_dir={root} --check lists them)"
    yield Finding("dataset", f"{name} in {root}: {said}", there > 0)


def findings() -> Iterator[Finding]:
    """All lines, for the flags as they are."""
    values = flags.FLAGS
    yield from _versions()
    yield from _devices()
    yield from _memory()
    yield from _caches(command.path("cache_dir", values.cache_dir))
    yield from _weights(values.weights_dir)
    yield from _dataset(values.dataset, values.data_dir)


def _run() -> int:
    fine = True
    for finding in findings():
        print(f"{'ok  ' if finding.fine else 'FAIL'}  {finding.topic:<8}  {finding.text}", flush=True)
        fine &= finding.fine
    return 0 if fine else 2


def main(argv: list[str]) -> int:
    """The whole program; returns the exit code."""
    return command.execute(argv, _run, (DataError,), interrupted="interrupted", own=(flags,), about=__doc__)


if __name__ == "__main__":
    command.run(main)
