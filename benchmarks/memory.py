r"""Mutual scoring of more than fits into memory: features on disk, a few samples scored at a time, the peak measured.

    python -m benchmarks.memory [--output=FILE.json]
    python -m benchmarks.memory --count=100000 --tokens=16 --width=32 --stages=1 --size=16 --references=300 \
        --memory_gb=1 [--output=FILE.json]

Synthetic unit features, written as the pipeline writes them. Afterwards a few samples are scored anew in float64 by the
definition, and both must agree. With --output the run is put beside those that are in the file already.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.machine import cores, peak
from benchmarks.timing import expect
from musc_jax.execution import dense, streamed
from musc_jax.execution.feature_store import FeatureStore, StoredArray
from musc_jax.execution.memory import Tokens, plan_memory, return_freed_memory
from musc_jax.execution.programs import Programs
from musc_jax.execution.schedule import Machine
from musc_jax.mutual import AverageInterval, interval_count
from musc_jax.references import draw_references
from musc_jax.storage import atomic

INTERVAL = 0.3
TOLERANCE = 1e-5


def write(store: FeatureStore, stage: int, shape: tuple[int, int, int]) -> StoredArray:
    """One stage's unit features on disk, made some samples at a time."""
    count, tokens, width = shape
    rng = np.random.default_rng(stage)
    writer = store.writer(f"stage_{stage}", with_mean=True)
    at_once = max(1, 4_000_000 // (tokens * width))
    for start in range(0, count, at_once):
        z = rng.standard_normal((min(at_once, count - start), tokens, width), np.float32)
        writer.append(z / np.linalg.norm(z, axis=-1, keepdims=True))
    return writer.finish()


def by_definition(features: StoredArray, sample: int, references: int | None) -> np.ndarray:
    """(M,) scores of one sample by the others it is scored by, in float64, one after the other."""
    count = len(features)
    drawn = draw_references(count, references)
    own = features[sample].astype(np.float64)
    norms, rows = (own**2).sum(1), []
    for other in drawn.samples[drawn.columns[sample]]:
        theirs = features[int(other)].astype(np.float64)
        squared = norms[:, None] + (theirs**2).sum(1)[None] - 2 * own @ theirs.T
        rows.append(np.sqrt(np.maximum(squared.min(1), 0)))
    return np.sort(rows, axis=0)[: interval_count(len(rows), INTERVAL)].mean(0)


def run(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Writes, plans, scores, measures, checks."""
    shape = count, tokens, width = arguments.count, arguments.tokens, arguments.width
    budget = int(arguments.memory_gb * 1e9)
    plan = plan_memory(
        count,
        [Tokens(tokens, width, arguments.stages)],
        size=arguments.size,
        budget=budget,
        references=arguments.references,
    )
    return_freed_memory(scarce=plan.scarce)
    print(plan.describe(), flush=True)
    before, store = peak() / 1e9, FeatureStore(folder)
    stored = [write(store, stage, shape) for stage in range(arguments.stages)]
    programs, scores = Programs(), []
    started, reported = time.perf_counter(), [0.0]

    def progress(done: int, total: int) -> None:
        seconds = time.perf_counter() - started
        if done == total or seconds > reported[-1] + 10:
            reported.append(seconds)
            print(f"stage {len(scores) + 1}: {done} of {total}, {seconds:.0f} s", file=sys.stderr, flush=True)

    references = draw_references(count, arguments.references)
    schedule = dense.score_stage if plan.whole_stages else streamed.score_stage
    for features in stored:
        finish = AverageInterval(INTERVAL)
        scores += schedule([features], finish, references, Machine(programs, plan), progress=progress)
    jax.block_until_ready(scores)
    seconds, most = time.perf_counter() - started, peak() / 1e9
    apart = 0.0
    for sample in np.linspace(0, count - 1, arguments.check).astype(int):
        for features, found in zip(stored, scores, strict=True):
            want = by_definition(features, int(sample), arguments.references)
            apart = max(apart, float(np.abs(np.asarray(found[sample]) - want).max() / want.max()))
    expect(apart <= TOLERANCE, f"scores differ by {apart:.1e} of the largest from the definition")
    # What the interpreter and the libraries take is no part of the budget.
    expect(most - before <= arguments.memory_gb, f"peak {most - before:.2f} GB above {arguments.memory_gb} GB")
    return {
        "shape": list(shape),
        "stages": arguments.stages,
        "references": arguments.references,
        "memory_gb": arguments.memory_gb,
        "plan": plan.describe(),
        "gb_before": before,
        "gb_peak": most,
        "gb_peak_of_the_work": most - before,
        "seconds": seconds,
        "samples_checked": arguments.check,
        "relative_difference": apart,
    }


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("count", 200), ("tokens", 1369), ("width", 1024), ("stages", 3), ("check", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--size", type=int, default=518, help="Side of the maps that the plan leaves room for.")
    parser.add_argument("--references", type=int)
    parser.add_argument("--memory_gb", type=float, default=3.0)
    parser.add_argument("--work_dir", type=Path, help="Where the features lie meanwhile; default the system's.")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.work_dir) as folder:
        found = run(arguments, Path(folder))
    given = [a for a in sys.argv[1:] if not a.startswith(("--output", "--work_dir"))]
    found = {
        "command": " ".join(["python -m benchmarks.memory", *given]),
        "cores": cores(),
    } | found
    print(json.dumps(found, indent=2))
    if arguments.output:
        kept = json.loads(arguments.output.read_text()) if arguments.output.exists() else []
        kept = [run for run in kept if run["command"] != found["command"]]
        atomic.write_text(arguments.output, json.dumps([*kept, found], indent=2) + "\n")


if __name__ == "__main__":
    main()
