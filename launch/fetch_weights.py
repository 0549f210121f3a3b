"""Brings published parameters to disk, converted, so that nothing needs a network afterwards.

    python -m launch.fetch_weights --list
    python -m launch.fetch_weights --backbone=dino_vitb8,point_mae
    python -m launch.fetch_weights --backbone=dino_vitb8 --weights_dir=DIR

Hugging Face comes first (its cache, HF_HUB_OFFLINE and HF_TOKEN count), then the original address. An interrupted
download goes on where it stopped.
"""

import os
from pathlib import Path

# Before JAX starts: its notes about what hardware it did not find are not this program's messages.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import weights
from launch import command
from launch.own_flags import OwnFlags
from launch.progress import ProgressBar
from musc_jax.models import VitConfig

flags = OwnFlags()
flags.DEFINE_list("backbone", None, "Comma-separated backbones out of --list.")
flags.DEFINE_string(
    "weights_dir", None, "Where to; default $MUSC_WEIGHTS_DIR, or the cache folder launch.eval looks into anyway."
)
flags.DEFINE_string("revision", None, "Commit, tag or branch on Hugging Face, to pin what is fetched.")
flags.DEFINE_bool("list", False, "Show the backbones, where they come from, and which are there.")


def _folder() -> Path:
    given = flags.FLAGS.weights_dir or os.environ.get("MUSC_WEIGHTS_DIR")
    return command.path("weights_dir", given) if given else weights.default_folder()


def _list() -> None:
    rows = [("backbone", "architecture", "size", "licence", "there", "published at")]
    for spec in weights.BACKBONES.values():
        c = spec.config
        kind = f"{c.depth} blocks x {c.width}"
        if isinstance(c, VitConfig):
            kind += f", patch {c.patch_size}" + (f", {c.num_registers} registers" if c.num_registers else "")
        size = f"{spec.image_size}" if isinstance(c, VitConfig) else "-"
        there = "yes" if (_folder() / f"{spec.name}.safetensors").exists() else "-"
        rows.append((spec.name, kind, size, spec.licence, there, " or ".join(spec.origins)))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
    for row in rows:
        print("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths)), row[-1]]))
    print(f"\nsize: default input in pixels; there: converted in {_folder()}")


def _fetch() -> None:
    if flags.FLAGS.list:
        _list()
        return
    if not flags.FLAGS.backbone:
        raise weights.WeightsError("--backbone: expected names out of --list, received none")
    for name in flags.FLAGS.backbone:
        if name not in weights.BACKBONES:
            raise weights.WeightsError(f"--backbone: no {name!r}; expected names out of --list")
    failed = []
    for name in flags.FLAGS.backbone:
        bar = ProgressBar(f"{name}: ", in_bytes=True)
        try:
            print(weights.fetch(name, _folder(), revision=flags.FLAGS.revision, report=command.say, progress=bar))
        except weights.WeightsError as error:
            failed.append(f"{name}: {error}")
        finally:
            bar.close()
    if failed:
        raise weights.WeightsError("\nerror: ".join(failed))


def main(argv: list[str]) -> int:
    """The whole program; returns the exit code."""
    again = "interrupted; the same command goes on where it stopped"
    return command.execute(argv, _fetch, (weights.WeightsError,), interrupted=again, own=(flags,), about=__doc__)


if __name__ == "__main__":
    command.run(main)
