"""Converts a checkpoint to the file that loads fastest and needs nothing beside it.

    python -m launch.convert_weights --source=dino_vitbase8_pretrain.pth --backbone=dino_vitb8 --output=vit.safetensors

Reads a folder from Hugging Face, safetensors and PyTorch's formats, without PyTorch and without executing anything;
float16 and bfloat16 are widened. The output goes to --weights_rgb or --weights_points of launch.eval, or into the
folder that MUSC_WEIGHTS_DIR names.
"""

import os

# Before JAX starts: its notes about what hardware it did not find are not this program's messages.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import weights
from launch import command
from launch.own_flags import OwnFlags

flags = OwnFlags()
flags.DEFINE_string("source", None, "The checkpoint: a file, or a folder with config.json.", required=True)
flags.DEFINE_enum("backbone", None, list(weights.BACKBONES), "What it is a checkpoint of.", required=True)
flags.DEFINE_string("output", None, "The file to write, ending in .safetensors; replaced if there.", required=True)
flags.DEFINE_integer("heads", None, "Attention heads, for a model of your own without config.json.", lower_bound=1)


def _convert() -> None:
    values = flags.FLAGS
    overrides = {"heads": values.heads} if values.heads is not None else {}
    output = command.path("output", values.output)
    made = weights.convert(values.source, values.backbone, output, **overrides)
    command.say(f"{made.backbone}: {made.architecture.depth} blocks of width {made.architecture.width}")
    command.say(f"from {made.source} (SHA-256 with its settings {made.source_digest})")
    print(f"{output}  {output.stat().st_size / 1e6:.1f} MB")


def main(argv: list[str]) -> int:
    """The whole program; returns the exit code."""
    nothing = "interrupted; nothing was written"
    bad_input = (weights.WeightsError,)
    return command.execute(argv, _convert, bad_input, interrupted=nothing, own=(flags,), about=__doc__)


if __name__ == "__main__":
    command.run(main)
