"""Checks a dataset and cleans its raw scans ahead of time, in parallel; launch.eval then finds them in the cache.

    python -m launch.prepare --dataset=mvtec3d --data_dir=DIR --workers=8

It can be killed and goes on where it stopped. Nothing is written into the dataset's folder. Everything wrong with it
comes in one report.
"""

import os

# Before JAX starts: its notes about what hardware it did not find are not this program's messages.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Workers share the cores by being several, not by each of them using all.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import weights
from launch import command
from launch.own_flags import OwnFlags
from launch.progress import ProgressBar
from musc_jax.data import DATASETS, DataError
from musc_jax.data.assembly import shortened
from musc_jax.data.published.preparation import prepare
from musc_jax.data.trees import Request

flags = OwnFlags()
_FIXED = [name for name, spec in DATASETS.items() if not spec.user_layout]
_MADE = " and ".join(name for name, spec in DATASETS.items() if not spec.needs_data_dir)
flags.DEFINE_enum("dataset", None, _FIXED, "Dataset.", required=True)
flags.DEFINE_string("data_dir", None, f"Its folder; not needed for {_MADE}.")
flags.DEFINE_list("categories", None, "Comma-separated categories; default all.")
flags.DEFINE_string("cache_dir", str(weights.default_folder().parent), "Where derived files are kept.")
flags.DEFINE_integer("workers", os.cpu_count() or 1, "Processes.", lower_bound=1)
flags.DEFINE_integer("seed", 0, "Seed of the synthetic set.", lower_bound=0)


def _prepare() -> None:
    values = flags.FLAGS
    bar = ProgressBar()
    request = Request(
        data_dir=command.expanded(values.data_dir),
        cache_dir=command.path("cache_dir", values.cache_dir),
        categories=values.categories,
        modality=DATASETS[values.dataset].modalities[-1],
        seed=values.seed,
        workers=values.workers,
        progress=bar,
    )
    try:
        prepared = prepare(values.dataset, request, workers=values.workers, progress=bar)
    finally:
        bar.close()
    for line in prepared.warnings:
        command.say(f"warning: {line}")
    if prepared.faults:
        count = len(prepared.faults)
        head = f"{count} problems (launch.eval --skip_bad leaves such samples out):\n  " if count > 1 else ""
        raise DataError(head + "\n  ".join(shortened(prepared.faults)))
    print(f"{prepared.sound} samples are ready; derived files are in {request.cache_dir}")


def main(argv: list[str]) -> int:
    """The whole program; returns the exit code."""
    again = "interrupted; the same command goes on where it stopped"
    return command.execute(argv, _prepare, (DataError,), interrupted=again, own=(flags,), about=__doc__)


if __name__ == "__main__":
    command.run(main)
