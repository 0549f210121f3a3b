"""The commands of this package behind one name, which works from any folder and beside any other software.

python -m musc_jax VERB [flags]
python -m musc_jax VERB --help
python -m musc_jax --version
"""

import importlib
import sys
from collections.abc import Mapping
from pathlib import Path

from musc_jax import __version__

VERBS = {
    "score": "score a folder of your own parts: scores, decisions, masks, overlays",
    "eval": "score the samples of a dataset, and report how well that finds the defects",
    "features": "write the tokens of a dataset's samples, to be scored later or elsewhere",
    "fetch": "fetch a published dataset and unpack it, or compare one on disk with what was published",
    "prepare": "check a dataset and clean its raw scans ahead of time",
    "compare": "compare finished runs with the published results or with each other",
    "reproduce": "make the paper's tables, with the published figures beside",
    "weights": "backbones' parameters: weights list, weights fetch, weights convert",
    "doctor": "say what is here: versions, devices, memory, caches, weights, a dataset",
}
"""What each does; all but `weights` are modules of `launch`."""

_WEIGHTS = {
    "list": ("backbones, where they are published, and which of them are here", "fetch_weights", ["--list"]),
    "fetch": ("bring published parameters to disk, converted", "fetch_weights", []),
    "convert": ("convert a checkpoint to the file that loads fastest", "convert_weights", []),
}
# The modules can be named as well, with hyphens, too.
_MODULES = {*VERBS, "fetch_weights", "convert_weights"} - {"weights"}

_OURS = ("launch", "weights")


def main(argv: list[str] | None = None) -> int:
    """Hands over to a command.

    Args:
        argv: The program's name, a verb, the verb's flags; default those of this process.

    Returns:
        The exit code; 2 for a verb that is none.
    """
    program, *given = sys.argv if argv is None else argv
    program = "python -m musc_jax" if Path(program).stem == "__main__" else Path(program).name
    if given and given[0].lstrip("-") in ("help", "h"):
        sys.stdout.write(_help(f"{program} VERB", VERBS))
        return 0
    if given[:1] == ["--version"]:
        sys.stdout.write(f"musc-jax {__version__}\n")
        return 0
    if given[:1] == ["weights"] and len(given) > 1 and given[1].lstrip("-") in ("help", "h"):
        sys.stdout.write(_help(f"{program} weights VERB", {name: what for name, (what, *_) in _WEIGHTS.items()}))
        return 0
    found = _module(given)
    if isinstance(found, str):
        sys.stderr.write(f"error: {found}; see --help\n")
        return 2
    called, module, flags = found
    if foreign := _find_ours():
        sys.stderr.write(f"error: {foreign} was imported before this program's own; run it in a process of its own\n")
        return 2
    if argv is None:
        importlib.import_module("launch.command").prepare_process()
    return importlib.import_module(f"launch.{module}").main([f"{program} {called}", *flags])


def _module(given: list[str]) -> tuple[str, str, list[str]] | str:
    """The words that name a command, its module and its flags; what is wrong, where they name none."""
    verb = given[0].replace("-", "_") if given and not given[0].startswith("-") else None
    if verb == "weights":
        action, *rest = given[1:] or ["list"]
        if action in _WEIGHTS:
            _, module, flags = _WEIGHTS[action]
            return f"weights {action}", module, [*flags, *rest]
        return f"weights: expected one of {', '.join(_WEIGHTS)}; received {action!r}"
    if verb in _MODULES:
        return given[0], verb, given[1:]
    received = repr(given[0]) if given else "none"
    return f"expected a verb, one of {', '.join(VERBS)}; received {received}"


def _help(usage: str, verbs: Mapping[str, str]) -> str:
    width = max(map(len, verbs))
    lines = [f"  {verb:<{width}}  {what}" for verb, what in verbs.items()]
    return "\n".join([f"{usage} [flags]", "", *lines, "", f"{usage} --help shows the flags.", ""])


def _find_ours() -> str | None:
    """Lets `launch` and `weights` be looked for beside this package first; returns another's that is loaded already.

    They are common names, which the folder at hand may have, or PYTHONPATH: ROS has a `launch` there.
    """
    here = Path(__file__).resolve().parents[1]
    if sys.path[:1] != [str(here)]:
        sys.path.insert(0, str(here))
    for name in _OURS:
        file = getattr(sys.modules.get(name), "__file__", None)
        if file is not None and Path(file).resolve().parents[1] != here:
            return file
    return None


if __name__ == "__main__":
    sys.exit(main())
