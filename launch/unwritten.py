"""Outcomes kept in the cache folder: what could not be written, and what another decision is made about later."""

import contextlib
import dataclasses
import json
import re
import time
from collections.abc import Sequence
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from launch.evaluation import Scored
from musc_jax.data import Dataset, SampleError
from musc_jax.execution.scoring import PatchScores
from musc_jax.execution.voting import Vote
from musc_jax.pipeline import Results
from musc_jax.storage import atomic

# Nobody came back for it.
_OLDEST_SECONDS = 30 * 24 * 3600
_OURS = re.compile(r"[0-9a-f]{32}\.scores")


class Unwritten:
    """Outcomes by what they were computed from.

    Args:
        cache_dir: The cache folder; a folder is made in it when there is something to keep.
        name: The folder's. What one command forgets when it has written it, another may still need.
    """

    def __init__(self, cache_dir: Path, name: str = "unwritten") -> None:
        self._folder = cache_dir / name

    def keep(self, identity: str, scored: Scored) -> Path | None:
        """Keeps an outcome; returns where, or None where that is not possible, either."""
        results = scored.results
        facts = {
            "samples": [sample.name for sample in results.samples],
            "skipped": [[error.name, error.problem] for error in results.skipped],
            "recurring": results.recurring,
            "metrics": scored.metrics,
            "seconds": scored.seconds,
            "votes": results.votes,
        }
        arrays = {
            "pred_scores": np.asarray(results.pred_scores),
            "max_scores": np.asarray(results.max_scores),
            "anomaly_maps": np.asarray(results.anomaly_maps),
            **({} if results.patch_scores.image is None else {"image": np.asarray(results.patch_scores.image)}),
            "facts": np.frombuffer(json.dumps(facts).encode(), np.uint8),
        }
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            atomic.sweep(self._folder)
            self._forget_old()
            atomic.write_arrays(self._path(identity), identity, arrays)
        except OSError:
            return None
        return self._path(identity)

    def recall(self, identity: str, dataset: Dataset, category: str, size: int) -> Scored | None:
        """An outcome that was kept, its samples read again; None where there is none."""
        kept = atomic.read_arrays(self._path(identity), identity)
        if kept is None:
            return None
        facts = json.loads(kept["facts"].tobytes())
        place = {name: i for i, name in enumerate(dataset.names(category))}
        results = Results(
            # Tokens of all of them would take what scoring took.
            [
                dataclasses.replace(dataset.load(category, place[name], size=size), tokens=None)
                for name in facts["samples"]
            ],
            kept["pred_scores"],
            kept["max_scores"],
            kept["anomaly_maps"],
            PatchScores(jnp.asarray(kept["image"]) if "image" in kept else None, None),
            tuple(SampleError(*error) for error in facts["skipped"]),
            tuple(map(Vote.of, facts.get("votes", []))),
            tuple(map(tuple, facts["recurring"])),
        )
        return Scored(results, facts["metrics"], facts["seconds"])

    def forget(self, identities: Sequence[str]) -> None:
        """Removes what has been written."""
        for identity in identities:
            with contextlib.suppress(OSError):
                self._path(identity).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self._folder.rmdir()

    def _path(self, identity: str) -> Path:
        return self._folder / f"{identity[:32]}.scores"

    def _forget_old(self) -> None:
        for path in self._folder.glob("*.scores"):
            # The cache folder may be one that somebody keeps scores of another kind in.
            if _OURS.fullmatch(path.name) and path.stat().st_mtime < time.time() - _OLDEST_SECONDS:
                path.unlink(missing_ok=True)
