"""The paper's tables and figures from datasets and weights, with the published figure and the difference beside each.

    python -m launch.reproduce --list
    python -m launch.reproduce --table=3 --data_root=DIR --dry_run
    python -m launch.reproduce --table=1,3,10 --data_root=DIR

DIR has the datasets under their names: DIR/mvtec3d, DIR/eyecandies, DIR/mvtec_ad, ... Each row is a run of launch.eval;
runs that need the same tokens share them. It can be killed and goes on where it stopped.
"""

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

# Before JAX starts: its notes about what hardware it did not find are not this program's messages.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from launch import command
from launch import flags as options
from launch import input_flags as inputs
from launch.command import say
from launch.own_flags import OwnFlags, part
from launch.reproduce_runs import Interrupted, Runs, estimate
from musc_jax.report.reproduction import (
    Outcome,
    Run,
    Shown,
    Table,
    as_csv,
    as_latex,
    as_markdown,
    as_text,
    declared_tables,
    draw_figure,
    shown_table,
)
from musc_jax.report.reproduction.declared import CLIP_SIZES
from musc_jax.storage import atomic

flags = OwnFlags()
TABLE = flags.DEFINE_list("table", None, "Tables by number, 1 to 8, and figures 10 and 11: a comma list, or all.")
LIST = flags.DEFINE_bool("list", False, "Show the tables, and how many runs each needs.")
DATA_ROOT = flags.DEFINE_string("data_root", None, "Folder that has the datasets under their names.")
DRY_RUN = flags.DEFINE_bool("dry_run", False, "Show the runs and what they will take; run nothing.")
WEIGHTS = flags.DEFINE_enum(
    "weights", "pretrained", ["pretrained", "random"], "random: a trial of the way alone, figures mean nothing."
)
CLIP_SIZE = flags.DEFINE_enum(
    "clip_size", "518", [str(size) for size in CLIP_SIZES], "Working size of MuSc-V2's CLIP runs, which is not settled."
)
KEEP_FEATURES = flags.DEFINE_bool("keep_features", False, "Leave shared tokens in the cache, for a later call.")
OUTPUT_DIR = flags.DEFINE_string("output_dir", "results/reproduce", "Where tables and the runs' results are written.")

# Of launch.eval: where things are, and what makes a trial short. The second kind is no setting of the paper.
_PLACES = ("weights_dir", "memory_gb", "cache_dir")
_TRIAL = (
    "limit",
    "categories",
    "image_size",
    "blocks",
    "num_groups",
    "group_size",
    "seeds",
    "precision",
    "dtype",
    "skip_bad",
)
_OF_EVAL = part(options.flags, [*_PLACES, *_TRIAL])


class ReproduceError(ValueError):
    """A command line that asks for nothing that can be made; one line."""


def _chosen(tables: dict[str, Table]) -> dict[str, Table]:
    if TABLE.value is None:
        raise ReproduceError(f"--table: expected some of {', '.join(tables)}, or all; --list shows them")
    names = list(tables) if TABLE.value == ["all"] else TABLE.value
    if unknown := [name for name in names if name not in tables] or not names:
        received = ", ".join(unknown) if isinstance(unknown, list) else "none"
        raise ReproduceError(f"--table: expected some of {', '.join(tables)}, or all; received {received}")
    return {name: tables[name] for name in names}


def _listed(tables: dict[str, Table]) -> str:
    lines = []
    for name, table in tables.items():
        runs = {row.run for row in table.rows} - {None}
        lines.append(f"{name:>3}  {table.title} ({len(table.rows)} rows, {len(runs)} runs)")
    return "\n".join([*lines, "rows of other methods than MuSc and MuSc-V2 are not made"])


def _planned(runs: Sequence[Run], where: Runs) -> str:
    lines = [f"{len(runs)} runs:"]
    for run in runs:
        missing = where.missing(run)
        lines.append(f"  {run.name}" + (f"  [{missing}]" if missing else "  [tokens shared]" * where.is_shared(run)))
    return "\n".join(lines)


def _reproduce() -> None:
    tables = declared_tables(int(CLIP_SIZE.value))
    if LIST.value:
        print(_listed(tables))
        return
    chosen = _chosen(tables)
    if not DATA_ROOT.value:
        raise ReproduceError("--data_root: expected the folder that has the datasets under their names, received none")
    root = command.path("data_root", DATA_ROOT.value)
    if not root.is_dir():
        raise ReproduceError(f"--data_root: {root}: no such folder")
    output = command.path("output_dir", OUTPUT_DIR.value)
    runs = list(dict.fromkeys(row.run for table in chosen.values() for row in table.rows if row.run is not None))
    # The runs read their own command lines into the same flags: whatever of this one is needed is kept here.
    given = {flag.name: _text(flag.value) for flag in _OF_EVAL.all if flag.present}
    notes, limit = _notes(given), inputs.LIMIT.value
    where = Runs(runs, root, output, command.path("cache_dir", options.CACHE_DIR.value), given, WEIGHTS.value)
    say(_planned(runs, where))
    say(estimate([run for run in runs if not where.missing(run)], where, limit=limit))
    if DRY_RUN.value:
        return
    outcomes: dict[Run, Outcome] = {}
    started = time.perf_counter()
    try:
        for done, run in enumerate(runs):
            say(f"[{done + 1} of {len(runs)}] {run.name}")
            outcomes[run] = where.outcome(run)
            if outcomes[run].missing:
                say(f"  not made: {outcomes[run].missing}")
            _write(chosen, outcomes, output, notes)
    except Interrupted:
        raise KeyboardInterrupt from None
    finally:
        where.close(keep=KEEP_FEATURES.value)
    for shown in _write(chosen, outcomes, output, notes).values():
        print(as_text(shown))
    print(f"{output}: these as .txt, .csv, .md and .tex ({time.perf_counter() - started:.0f} s)")


def _text(value: object) -> str:
    """A flag's value as it is written on a command line."""
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _notes(given: Mapping[str, str]) -> list[str]:
    """What of this call no reader of a table may miss."""
    notes = ["random weights: the figures say nothing about the method"] if WEIGHTS.value == "random" else []
    changed = [f"--{name}={value}" for name, value in given.items() if name in _TRIAL]
    return notes + ([f"a trial, not the paper's setting: {' '.join(changed)}"] if changed else [])


def _write(
    chosen: dict[str, Table], outcomes: dict[Run, Outcome], output: Path, notes: Sequence[str]
) -> dict[str, Shown]:
    """Writes the tables as far as they are made."""
    shown = {name: shown_table(table, outcomes, notes) for name, table in chosen.items()}
    output.mkdir(parents=True, exist_ok=True)
    for name, table in shown.items():
        stem = f"figure_{name}" if name in ("10", "11") else f"table_{name}"
        for ending, render in (("txt", as_text), ("csv", as_csv), ("md", as_markdown), ("tex", as_latex)):
            atomic.write_text(output / f"{stem}.{ending}", render(table))
        if name in ("10", "11") and len(outcomes) == _count(chosen):
            try:
                atomic.write_bytes(output / f"{stem}.png", draw_figure(table))
            except ImportError:
                say(f"{stem}: no plot, matplotlib is missing: pip install 'musc-jax[plots]'")
    return shown


def _count(chosen: dict[str, Table]) -> int:
    return len({row.run for table in chosen.values() for row in table.rows} - {None})


def main(argv: list[str]) -> int:
    """The whole program; returns the exit code."""
    again = "interrupted; the same command goes on where it stopped"
    return command.execute(argv, _reproduce, (ReproduceError,), interrupted=again, own=(flags, _OF_EVAL), about=__doc__)


if __name__ == "__main__":
    command.run(main)
