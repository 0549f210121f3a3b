"""Writes `tiny_run.npz`: what the statement says about the scene of `tiny.py`.

    python tests/golden/make_tiny_run.py            # with the seed that stands in tiny.py
    python tests/golden/make_tiny_run.py --search   # the first seed that would do, for tiny.py

It refuses a scene in which a decision is so close that float32 may take it differently, or in which two variants of a
part come to the same.
"""

import sys
from pathlib import Path

import numpy as np

sys.path[:0] = [str(folder) for folder in Path(__file__).resolve().parents[1:3]]

from statement import clouds, margins  # noqa: E402
from switches import BASES, CASES, SWITCHES, changed, items  # noqa: E402
from tiny import GROUPS, SEED, samples, state, thinned  # noqa: E402

FILE = Path(__file__).with_name("tiny_run.npz")


def faults(seed):
    """What speaks against a scene, one after the other; the likely ones first."""
    runs = {row.name: changed(row.base, row.config, row.statement) for row in SWITCHES}
    runs |= {name: map(items, base) for name, base in BASES.items()}
    runs |= {name: changed(*case) for name, case in CASES.items()}
    for name in sorted(runs, key=lambda name: not name.startswith("both")):
        for kind, gap in margins.too_small(state(tuple(runs[name])[1], seed).gaps).items():
            yield f"{name}: {kind} {gap:.1e} apart, needed are {margins.NEEDED[kind]:.1e}"
    found = [clouds.normalize(sample.points) for sample in samples(32, seed)]
    picks = [
        [clouds.farthest_points(*cloud, GROUPS.num_groups, variant=v) for cloud in found] for v in ("released", "paper")
    ]
    if np.array_equal(*picks):
        yield "both variants pick the same centres"
    for changes in ({}, {"variant": "paper", "point_norm": "checkpoint"}):
        salient = state(items(BASES["smooth"][1] | changes), seed).outcome.salient
        if ((salient @ salient.T).argmax(1) == np.arange(len(salient))).all():
            yield f"smooth {changes}: all are most similar to themselves, so the variants of re-scoring are one"


def main():
    if "--search" in sys.argv[1:]:
        seed = 0
        while (fault := next(faults(seed), None)) is not None:
            print(f"{seed}: {fault}")
            seed += 1
        print(f"{seed} would do")
        return
    found = list(faults(SEED))
    if found:
        sys.exit("\n".join([*found, "no file was written; look for another scene with --search"]))
    arrays = {}
    for name, case in CASES.items():
        stated = thinned(state(changed(*case)[1]).outcome)
        arrays |= {f"{name}/{key}": value.astype(np.float32) for key, value in stated.items()}
    np.savez_compressed(FILE, **arrays)
    print(f"{FILE}: {len(arrays)} arrays, {FILE.stat().st_size} bytes")


if __name__ == "__main__":
    main()
