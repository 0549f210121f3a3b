"""--explain: what is asked about which samples, answered once they are scored, and drawn."""

import difflib
import re
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from launch.evaluation import feature_store
from launch.explain_pictures import Ask, Drawn, to_square
from launch.output import saved_file
from launch.progress import ProgressBar
from musc_jax import pipeline
from musc_jax.config import ConfigError
from musc_jax.copies import representatives
from musc_jax.data import DataError, Dataset, SampleError
from musc_jax.execution import voting
from musc_jax.execution.programs import Programs
from musc_jax.execution.scoring import plan_for
from musc_jax.execution.voting import Inquiry, Question, Vote
from musc_jax.predictions import Predictions
from musc_jax.resolved import Resolved
from musc_jax.storage.paths import readable

WORST = 10
"""So many of the worst samples are explained in the page."""


def parse(values: Sequence[str], names: Collection[str]) -> list[Ask]:
    """What the flag holds: SAMPLE or SAMPLE:x,y, several of them after commas or in flags of their own.

    Args:
        values: Of the flag.
        names: Of the samples, which may have commas and colons in them.
    """
    asks = []
    for value in values:
        if _ask(value).sample in names:
            asks.append(_ask(value))
            continue
        # A comma between two numbers after a colon is within a place.
        kept = re.sub(r":(\d+),(\d+)(?=,|$)", ":\\1\0\\2", value)
        asks += [_ask(text.replace("\0", ",")) for text in kept.split(",")]
    return list(dict.fromkeys(asks))


def _ask(text: str) -> Ask:
    found = re.fullmatch(r"(.+):(\d+),(\d+)", text.strip(), re.S)
    return Ask(found[1], (int(found[2]), int(found[3]))) if found else Ask(text.strip(), None)


class Explanations:
    """What is asked about a run's samples.

    Args:
        dataset: Has them.
        values: Of the flag.
        resolved: How they are scored.
        k: How many matches are shown on either side.
        worst: Whether the worst samples are asked about, too.

    Raises:
        ConfigError: No such sample, or a pixel that is not in its picture.
    """

    def __init__(self, dataset: Dataset, values: Sequence[str], resolved: Resolved, *, k: int, worst: bool) -> None:
        self._dataset, self._resolved, self._k, self._worst = dataset, resolved, k, worst
        self._asks: dict[str, list[tuple[Ask, Question | None]]] = {name: [] for name in dataset.categories}
        self._first = {name: _first_of_copies(dataset, name) for name in dataset.categories}
        for ask in parse(values, {name for category in dataset.categories for name in dataset.names(category)}):
            homes = [category for category in dataset.categories if ask.sample in dataset.names(category)]
            if not homes:
                raise ConfigError(f"--explain: {_unknown(ask.sample, dataset)}")
            for category in homes:
                self._asks[category].append((ask, self._located(category, ask)))

    def _located(self, category: str, ask: Ask) -> Question | None:
        """The place at the working size; None where scores will tell it."""
        if ask.pixel is None:
            return None
        index, side = self._dataset.names(category).index(ask.sample), self._resolved.size
        sample = self._dataset.load(category, index, size=side)
        (x, y), (height, width) = ask.pixel, sample.full_size or (side, side)
        where = f"--explain: {ask.sample}: ({x}, {y})"
        if not (x < width and y < height):
            raise ConfigError(f"{where} is outside of its picture of {width} x {height} pixels")
        found = to_square(x + 0.5, y + 0.5, (height, width), sample.fit)
        row, column = (int(np.floor(side * at)) for at in found[::-1])
        if not (0 <= row < side and 0 <= column < side):
            raise ConfigError(f"{where} is outside of what --fit={sample.fit} leaves of its picture")
        return Question(self._first[category][ask.sample], (row, column))

    def inquiry(self, category: str) -> Inquiry | None:
        """What to ask once samples are scored; None if nothing."""
        if not self._worst and not self._asks[category]:
            return None

        def questions(names: Sequence[str], scores: np.ndarray, maps: np.ndarray) -> list[Question]:
            rows = {name: i for i, name in enumerate(names)}
            worst = np.argsort(-np.asarray(scores), kind="stable") if self._worst else np.zeros(0, np.int64)
            hottest = list(dict.fromkeys(self._first[category][names[i]] for i in worst))[:WORST]
            own = [self._first[category][ask.sample] for ask, place in self._asks[category] if place is None]
            found = [_hottest(name, maps[rows[name]]) for name in (*hottest, *own) if name in rows]
            return list(dict.fromkeys([*found, *(place for _, place in self._asks[category] if place)]))

        return Inquiry(questions, self._k)

    def missing(self, category: str, results: pipeline.Results) -> list[Question]:
        """What is asked and not answered yet."""
        inquiry = self.inquiry(category)
        if inquiry is None:
            return []
        names = [sample.name for sample in results.samples]
        known = {vote.question for vote in results.votes if len(vote.lowest) >= min(self._k, vote.num_references)}
        asked = inquiry.questions(names, results.pred_scores, results.anomaly_maps)
        return [question for question in asked if question not in known and question.sample in names]

    def answer(
        self,
        category: str,
        questions: Sequence[Question],
        *,
        budget: int,
        cache_dir: Path,
        skip_bad: bool,
        programs: Programs,
        silent: Collection[str] = (),
    ) -> tuple[Vote, ...]:
        """Answers about samples that are scored: their features anew; those in `silent` scored no others."""
        dataset, config, mesh = self._dataset, self._resolved, pipeline.usual_mesh()
        copies = dataset.copies(category) if dataset.copies_count_once else ()
        own = representatives(copies, len(dataset.names(category))).tolist()
        plan = plan_for(config, len(own), budget, mesh)
        bar = ProgressBar(f"{category}: ")
        try:
            with feature_store(cache_dir, plan) as store:
                samples = dataset.samples(category, size=config.size, only=own)
                return voting.explain(
                    (replace(sample, vouches=sample.name not in silent) for sample in samples),
                    config,
                    questions,
                    programs,
                    k=self._k,
                    total=len(own),
                    plan=plan,
                    store=store,
                    mesh=mesh,
                    skip_bad=skip_bad,
                    progress=bar,
                )
        except SampleError as error:
            raise DataError(f"{category}: {error}") from None
        finally:
            bar.close()

    def drawn(self, category: str, predictions: Predictions) -> "Drawn":
        """The pictures of a category."""
        return Drawn(self._dataset, category, predictions, self._resolved, self._k, self._first[category])

    def lines(self, category: str, predictions: Predictions, place: Path) -> list[str]:
        """What is said of what the flag named, and where its pictures are below a folder."""
        drawn = self.drawn(category, predictions)
        return [
            f"{ask.sample} at {drawn.sentence(question, ask.pixel)}: {place / saved_file('explain', str(ask))}"
            for ask, question in self.asked(category, predictions)
        ]

    def asked(self, category: str, predictions: Predictions) -> list[tuple[Ask, Question]]:
        """What the flag named, with the places that are meant; without samples that were left out."""
        rows = {sample.name: i for i, sample in enumerate(predictions)}
        return [
            (
                ask,
                place
                or _hottest(self._first[category][ask.sample], predictions.results.anomaly_maps[rows[ask.sample]]),
            )
            for ask, place in self._asks[category]
            if ask.sample in rows
        ]


def _hottest(name: str, anomaly_map: np.ndarray) -> Question:
    row, column = divmod(int(np.argmax(anomaly_map)), anomaly_map.shape[1])
    return Question(name, (row, column))


def _first_of_copies(dataset: Dataset, category: str) -> dict[str, str]:
    """Which sample took part for each."""
    names = dataset.names(category)
    groups = dataset.copies(category) if dataset.copies_count_once else ()
    return {name: name for name in names} | {names[i]: names[min(group)] for group in groups for i in group}


def _unknown(name: str, dataset: Dataset) -> str:
    names = [one for category in dataset.categories for one in dataset.names(category)]
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.3) or names[:3]
    return f"no sample {name!r}; there are {len(names)}, such as {', '.join(map(readable, near))}"
