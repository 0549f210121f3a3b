"""What `launch.score` makes of a person's verdicts on its samples: who scores no others, and which rule decides."""

from collections.abc import Mapping
from typing import NamedTuple

from launch import command, score_flags
from launch.command import say
from musc_jax import decisions
from musc_jax.config import ConfigError
from musc_jax.copies import representatives
from musc_jax.data import Dataset
from musc_jax.data.verdicts import read_verdicts
from musc_jax.storage.paths import readable

# Of so few the lowest share is one, whatever it is.
_FEW = 4


class Verdicts(NamedTuple):
    """What a person has said of a product's samples."""

    of: Mapping[str, int]
    """By sample: 1 defective, 0 good."""
    silent: frozenset[str]
    """Samples that are scored and score no others: those called defective, and of copies the one that takes part."""
    rule: str
    """The rule that decides."""


def verdicts_on(dataset: Dataset) -> Verdicts:
    """--verdicts, if it is given, and --threshold.

    Raises:
        DataError: see `read_verdicts`.
        ConfigError: they are on several products, contradict each other on copies, leave nobody to score the others,
            or are to decide and are of one kind only.
    """
    rule, file = score_flags.THRESHOLD.value, score_flags.VERDICTS.value
    if file is None:
        return Verdicts({}, frozenset(), rule)
    if len(dataset.categories) != 1:
        raise ConfigError(f"--verdicts: are on one product, received {len(dataset.categories)}; score that one alone")
    (category,) = dataset.categories
    path, names = command.path("verdicts", file), dataset.names(category)
    found = read_verdicts(path, names, left_out=dataset.skipped[category])
    silent = _silent(dataset, category, found)
    both = set(found.values()) == {0, 1}
    if rule == decisions.BY_VERDICTS and not both:
        raise ConfigError(f"--threshold=verdicts: expected both good and defective ones in {readable(path)}; add some")
    if both and not score_flags.THRESHOLD.present and score_flags.THRESHOLD_FROM.value is None:
        rule = decisions.BY_VERDICTS
    count = {word: sum(verdict == value for verdict in found.values()) for value, word in enumerate(("good", "bad"))}
    line = f"verdicts: {count['good']} good, {count['bad']} defective; the latter are scored and score no others"
    facts = {
        "file": readable(path),
        "good": count["good"],
        "defective": count["bad"],
        "score_no_others": sorted(silent),
    }
    dataset.accounts[category].add("verdicts", facts, line)
    say(f"{category}: {line}")
    return Verdicts(found, silent, rule)


def _silent(dataset: Dataset, category: str, found: Mapping[str, int]) -> frozenset[str]:
    names = dataset.names(category)
    copies = dataset.copies(category) if dataset.copies_count_once else ()
    silent = {name for name, verdict in found.items() if verdict}
    for group in copies:
        said = {names[i]: found[names[i]] for i in group if names[i] in found}
        if len(set(said.values())) > 1:
            first, second = (next(name for name, verdict in said.items() if verdict == value) for value in (0, 1))
            raise ConfigError(
                f"--verdicts: {first} is called good and {second} defective, but they are copies; keep one"
            )
        if 1 in said.values():
            silent.add(names[min(group)])
    taking_part = {names[i] for i in representatives(copies, len(names))}
    left = len(taking_part - silent)
    if left < 2:
        raise ConfigError(
            f"--verdicts: {left} of {len(taking_part)} samples are not called defective, and only these score others; "
            "at least 2 are needed"
        )
    if left < _FEW:
        say(f"warning: {category}: only {left} samples are not called defective, and only these score others")
    return frozenset(silent & taking_part)
