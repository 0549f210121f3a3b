"""Writes the backbones' tokens of a dataset's samples, one file a sample; launch.eval --features=DIR scores them.

    python -m launch.features --dataset=eyecandies --data_dir=DIR --output_dir=TOKENS
    python -m launch.eval --dataset=eyecandies --data_dir=DIR --features=TOKENS

They are raw: aggregation and scoring keep all their options. The layout is that of docs/features.md, in which any other
program may write, too. It can be killed and goes on where it stopped.
"""

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

# Before JAX starts: its notes about what hardware it did not find are not this program's messages.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import jax

import weights
from launch import command, start
from launch import flags as options
from launch import input_flags as inputs
from launch.command import say
from launch.compilation import keep_programs
from launch.output import OutputError, digest_of, refuse_within
from launch.own_flags import OwnFlags, part
from launch.progress import ProgressBar
from launch.summary import versions
from musc_jax.config import ConfigError
from musc_jax.data import DataError, Dataset, Sample, SampleError
from musc_jax.data.feature_notes import NOTES
from musc_jax.data.formats.files import FileFault
from musc_jax.data.formats.tokens import ENDINGS, read_tokens, tokens_bytes
from musc_jax.execution.programs import Programs
from musc_jax.execution.raw_tokens import raw_tokens
from musc_jax.resolved import Resolved
from musc_jax.storage import atomic
from musc_jax.storage.paths import below, link_between
from musc_jax.storage.prefetch import map_ahead

flags = OwnFlags()
OUTPUT_DIR = flags.DEFINE_string("output_dir", None, "Where tokens are written, CATEGORY/SAMPLE.safetensors.")
# Of launch.eval, all that decides what tokens are.
OF_EVAL = part(
    options.flags,
    [
        *inputs.NAMES, "modality", "backbone", "point_backbone", "weights_rgb", "weights_points",
        "weights_dir", "activation", "dtype", "variant", "point_norm", "image_size", "blocks", "k_iter",
        "curvature_threshold", "num_groups", "group_size", "implementation", "ablate", "seed", "cache_dir",
    ],
)  # fmt: skip
_BAD_INPUT = (ConfigError, DataError, OutputError, weights.WeightsError)
_ELSEWHERE = "move it away or pass another --output_dir"


def _write() -> None:
    cache_dir, data_folders = command.path("cache_dir", options.CACHE_DIR.value), inputs.data_folders()
    if OUTPUT_DIR.value is None:
        raise ConfigError("--output_dir: expected a folder for the tokens, received none")
    root = command.path("output_dir", OUTPUT_DIR.value)
    refuse_within(cache_dir, data_folders, "--cache_dir")
    refuse_within(root, data_folders, "--output_dir")
    keep_programs(cache_dir)
    if idle := set(options.ABLATE.value) - {"ipg"}:
        raise ConfigError(f"--ablate: tokens change by ipg alone, received {', '.join(sorted(idle))}; leave it out")
    config = start.with_backbones(options.plain_config(), cache_dir).resolved()
    settings = _settings(config)
    dataset = start.open_samples(config, cache_dir)
    start.tell(dataset)
    for category in dataset.categories:
        _expect_room(root, category, dataset.names(category))
    programs, count, size = Programs(), 0, 0
    for category in dataset.categories:
        bar = ProgressBar(f"{category}: ")
        try:
            for written in _write_category(root, dataset, category, config, settings, programs, bar):
                count, size = count + 1, size + written
        finally:
            bar.close()
    print(f"tokens of {count} samples ({size / 1e6:.0f} MB) are in {root}; score them by --features={root}")


def _settings(config: Resolved) -> str:
    """Digest of all but the samples that decides what tokens are."""
    device, plain = jax.devices()[0], config.config.as_dict()
    kept = ("variant", "modality", "image_size", "blocks", "point_norm", "ablate", "grouping", "implementation")
    return digest_of(
        {name: plain[name] for name in (*kept, "image_backbone", "point_backbone")}
        | {"activation": options.ACTIVATION.value, "dtype": options.DTYPE.value, "versions": versions()}
        | {"device": [device.platform, device.device_kind]}
    )


def _notes(config: Resolved, settings: str) -> str:
    """What `features.json` says."""
    paths = {"image": config.image, "points": config.points}
    backbones = {kind: path.backbone.name for kind, path in paths.items() if path is not None}
    licences = {name: weights.BACKBONES[name].licence for name in backbones.values() if name in weights.BACKBONES}
    said: dict[str, Any] = {
        "modality": config.config.modality,
        "stages": max(len(path.blocks) for path in paths.values() if path is not None),
        "image_size": config.size,
        "aggregated": False,
        "backbone": backbones,
        "licence": "; ".join(f"{name}: {licence}" for name, licence in licences.items()),
        "random": config.config.random_weights,
        "made": {"settings": settings, "config": config.config.as_dict()},
    }
    if config.image is not None:
        said["grid"] = config.size // config.image.patch_size
    return json.dumps(said, indent=2) + "\n"


def _expect_room(root: Path, category: str, names: Sequence[str]) -> None:
    """Refuses, before any work, to write over what is not of an earlier run, or through a link."""
    folder = below(root, category)
    if (link := link_between(root, folder)) is not None:
        raise OutputError(f"{link}: is a link, through which nothing is written; {_ELSEWHERE}")
    if os.path.lexists(folder) and not folder.is_dir():
        raise OutputError(f"{folder}: is a file where a folder goes; {_ELSEWHERE}")
    if os.path.lexists(folder / NOTES) and not _is_ours(folder / NOTES):
        raise OutputError(f"{folder / NOTES}: is not of an earlier run, so it is not replaced; {_ELSEWHERE}")
    for name in names:
        for ending in ENDINGS:
            path = folder / f"{name}{ending}"
            if os.path.lexists(path) and (path.is_symlink() or _stamp(path) is None):
                raise OutputError(f"{path}: is not of an earlier run, so it is not replaced; {_ELSEWHERE}")


def _is_ours(notes: Path) -> bool:
    try:
        return not notes.is_symlink() and "settings" in json.loads(notes.read_bytes())["made"]
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return False


def _stamp(path: Path) -> tuple[str, str] | None:
    """(settings, sample) of a file of ours that is sound; None for every other."""
    if path.suffix != ENDINGS[0]:
        return None
    try:
        notes = read_tokens(path).notes
    except FileFault:
        return None
    settings, _, sample = notes.get("made", "").partition(" ")
    return (settings, sample) if sample else None


def _write_category(
    root: Path,
    dataset: Dataset,
    category: str,
    config: Resolved,
    settings: str,
    programs: Programs,
    bar: ProgressBar,
) -> Iterator[int]:
    """Writes the samples that are not there yet; yields the bytes of each that is there, sample by sample."""
    folder, entries = below(root, category), dataset.entries(category)
    paths = [folder / f"{entry.name}{ENDINGS[0]}" for entry in entries]
    try:
        there = _clear(folder, settings)
        atomic.write_text(folder / NOTES, _notes(config, settings))
        missing = [i for i, entry in enumerate(entries) if there.get(paths[i]) != entry.digest]
        yield from (paths[i].stat().st_size for i in sorted(set(range(len(paths))) - set(missing)))
        samples = map_ahead(lambda i: dataset.load(category, i, size=config.size), missing)
        for done, (sample, tokens) in enumerate(raw_tokens(samples, config, programs)):
            i = missing[done]
            if isinstance(tokens, SampleError):
                _leave_out(category, sample, tokens)
            else:
                # One note: of several the order would be another one each time.
                data = tokens_bytes(tokens, {"made": f"{settings} {entries[i].digest}"})
                atomic.write_bytes(paths[i], data)
                yield len(data)
            bar("tokens", done + 1, len(missing))
    except OSError as error:
        reason = error.strerror or error
        raise OutputError(f"{folder}: cannot be written ({reason}); make room or pass another --output_dir") from None


def _clear(folder: Path, settings: str) -> dict[Path, str]:
    """Files with these settings, with the digest of the sample that each was made of; those with others are removed.

    Whoever scores the folder takes all files in it for what its notes say.
    """
    folder.mkdir(parents=True, exist_ok=True)
    atomic.sweep(folder)
    there = {}
    for path in sorted(folder.glob(f"*{ENDINGS[0]}")):
        made_with, sample = _stamp(path) or (settings, "")
        if made_with == settings:
            there[path] = sample
        else:
            path.unlink()
    return there


def _leave_out(category: str, sample: Sample, error: SampleError) -> None:
    if not inputs.SKIP_BAD.value:
        raise DataError(f"{category}: {error}; --skip_bad leaves it out")
    say(f"left out of {category}: {error}")


def main(argv: list[str]) -> int:
    """The whole program; returns the exit code."""
    again = "interrupted; the same command goes on where it stopped"
    return command.execute(argv, _write, _BAD_INPUT, interrupted=again, own=(flags, OF_EVAL), about=__doc__)


if __name__ == "__main__":
    command.run(main)
