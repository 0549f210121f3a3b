"""Every hot path and the whole of `eval`, side by side with the plain statement of the same thing.

    python -m benchmarks [--only=mutual,eval] [--repeats=3] [--output=FILE.json] [--quick]

Both sides run on the same arrays in alternation; a ratio is that of the fastest runs. Absolute times of a shared
machine say little: the rate of plain matrix products, measured in the same run, gives the scale.
"""

import importlib.util
import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax

from benchmarks import backbones, forms, hot_paths, plain, whole
from benchmarks.hot_paths import Setting
from benchmarks.machine import cores
from benchmarks.timing import Row
from launch import command
from launch.own_flags import OwnFlags
from musc_jax.storage import atomic

flags = OwnFlags()
ONLY = flags.DEFINE_list("only", None, "Rows to run, by name; default all.")
REPEATS = flags.DEFINE_integer("repeats", 3, "Runs of each side; the fastest counts.", lower_bound=1)
OUTPUT = flags.DEFINE_string(
    "output", None, "Write the figures here as JSON, too; with --only beside those there, with --quick not at all."
)
QUICK = flags.DEFINE_bool("quick", False, "Small sizes: shows that everything works; nothing is judged.")

_LINE = "{:<66} {:>10} {:>12} {:>12} {:>5}"


def rows() -> dict[str, Callable[[Setting], Row]]:
    """All rows of this machine by name."""
    found = {**hot_paths.ROWS, **backbones.ROWS, **whole.ROWS, **forms.rows()}
    return found | whole.GPU_ROWS if jax.default_backend() == "gpu" else found


def _device() -> dict[str, Any]:
    """What the figures were measured on and with."""
    device: dict[str, Any] = {"device": jax.devices()[0].device_kind, "jax": jax.__version__}
    device["torch"] = version("torch") if importlib.util.find_spec("torch") else None
    device["cores"] = cores()
    return device


def table(row: Row, judged: bool) -> str:
    """A row as lines of text."""
    own = "" if row.milliseconds is None else f"{row.milliseconds:.1f}"
    lines = [_LINE.format(row.title, own, "", "", "").rstrip()]
    for c in row.comparisons:
        time = "" if c.milliseconds is None else f"{c.milliseconds:.1f}"
        must = "" if c.must is None or not judged else ("<= " if c.at_most else ">= ") + c.shown(c.must)
        met = {True: "yes", False: "NO", None: ""}[c.met] if judged else ""
        lines.append(_LINE.format("    " + c.what, time, c.shown(c.value), must, met).rstrip())
    return "\n".join([*lines, *(f"    ({note})" for note in row.notes)])


def _record(rate: dict[str, float], measured: dict[str, Row]) -> dict[str, Any]:
    """The file's content; rows measured before on the same device with the same versions stay."""
    record: dict[str, Any] = _device() | rate
    kept: dict[str, Any] = {}
    if OUTPUT.value and ONLY.value and Path(OUTPUT.value).exists():
        before = json.loads(Path(OUTPUT.value).read_text())
        if all(before.get(key) == value for key, value in _device().items()):
            record |= {key: before[key] for key in rate if key in before}
            kept = before["rows"]
    kept |= {name: row.as_dict() for name, row in measured.items()}
    return record | {"rows": {name: kept[name] for name in rows() if name in kept}}


def benchmark() -> None:
    """Runs what the flags say, prints the table, writes the file."""
    known = rows()
    wanted = ONLY.value or list(known)
    for name in wanted:
        if name not in known:
            raise ValueError(f"--only: expected some of {', '.join(known)}; received {name!r}")
    rate = {
        "product_gflops": plain.matmul_rate(maxima=False) / 1e9,
        "product_and_maximum_gflops": plain.matmul_rate() / 1e9,
    }
    alone, with_maximum = rate.values()
    print(" ".join(f"{key} {value}" for key, value in _device().items()))
    print(f"float32 products of 784 x 768 x 784: {alone:.0f} GFLOP/s, {with_maximum:.0f} with the maximum of each")
    if jax.default_backend() == "gpu":
        rate["half_precision_gflops"] = hot_paths.half_precision_rate() / 1e9
        print(f"half-precision products {rate['half_precision_gflops'] / 1e3:.0f} TFLOP/s")
    print(_LINE.format("what", "ms", "measured", "must reach", "met"), flush=True)
    setting, measured = Setting(REPEATS.value, QUICK.value), {}
    for name in wanted:
        measured[name] = known[name](setting)
        print(table(measured[name], not QUICK.value), flush=True)
        if OUTPUT.value and not QUICK.value:
            atomic.write_text(Path(OUTPUT.value), json.dumps(_record(rate, measured), indent=2) + "\n")


def main(argv: list[str]) -> int:
    """The command."""
    return command.execute(argv, benchmark, (ValueError, OSError), interrupted="stopped", own=(flags,), about=__doc__)


if __name__ == "__main__":
    command.run(main)
