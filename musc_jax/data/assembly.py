"""From what a reader found to a dataset whose samples are checked: one report with all that is wrong."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from musc_jax.data.account import Account
from musc_jax.data.batch_remarks import choose, lost_labels
from musc_jax.data.dataset import Candidate, Checked, Dataset, Entry, Fault, Progress, Remark
from musc_jax.data.sample import DataError
from musc_jax.storage.paths import UnsafeNameError, below
from musc_jax.storage.prefetch import map_ahead

# Explanations above so many characters are not repeated.
_LONG = 120
# So many files of a kind are named.
_NAMED = 5


def assemble(
    name: str,
    candidates: Mapping[str, Sequence[Candidate]],
    *,
    faults: Sequence[Fault] = (),
    warnings: Sequence[str] = (),
    accounts: Mapping[str, Account] | None = None,
    limit: int | None = None,
    spread: bool = False,
    skip_bad: bool = False,
    copies_count_once: bool = False,
    workers: int = 2,
    progress: Progress | None = None,
) -> Dataset:
    """Check every sample that will be used and make the dataset of those that are sound.

    Args:
        name: the dataset's.
        candidates: by category, in the order of their indices.
        faults: what was found before, of whole categories.
        warnings: oddities found before.
        accounts: by category, what its files are read as; what checking finds out is added.
        limit: take only so many samples of each category, sound or not.
        spread: take them from all labels in proportion, not the first ones.
        skip_bad: leave faulty samples out and list them instead of refusing the dataset.
        copies_count_once: see `Dataset`.
        workers: threads that check.
        progress: told how many samples are checked.

    Raises:
        DataError: one report with all that is wrong with all categories.
        ValueError: `limit` is less than 1.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1, received {limit}")
    taken = {category: choose(found, limit, spread=spread) for category, found in candidates.items()}
    jobs = [candidate for found in taken.values() for candidate in found]
    results = iter(_check_all(jobs, workers, progress))
    report, notes = [*faults, *_unsafe_categories(name, taken)], list(warnings)
    entries: dict[str, list[Entry]] = {}
    skipped: dict[str, list[str]] = {}
    accounts = {category: (accounts or {}).get(category) or Account() for category in taken}
    for category, found in taken.items():
        sound: list[Entry] = []
        bad: list[Fault] = []
        remarks: list[Remark] = []
        skipped[category] = []
        for position, candidate in enumerate(found):
            checked = next(results)
            notes.extend(checked.warnings)
            remarks.extend(checked.remarks)
            if checked.entry is not None:
                sound.append(checked.entry)
                continue
            skipped[category].append(candidate.name)
            bad.extend(Fault(category, position, line) for line in checked.faults)
        entries[category] = sound
        notes.extend(_shared(remarks, accounts[category]))
        if skip_bad and len(sound) >= 2:
            notes.extend(f"skipped {category} {fault.line}" for fault in bad)
            if names := skipped[category]:
                some = ", ".join(names[:_NAMED]) + ", ..." * (len(names) > _NAMED)
                line = f"left out: {len(names)} of {len(found)} samples, whose files are counted all the same ({some})"
                accounts[category].add("left_out", list(names), line)
            continue
        report.extend(bad)
        if len(sound if skip_bad else found) < 2:
            report.append(Fault(category, -1, _too_few(name, category, len(sound), limit)))
    if report:
        # The oddities, too: a file that belongs to no sample may be the one that a sample lacks, misnamed.
        raise DataError(_text(name, report, warnings, way_out=not skip_bad))
    notes += [line for category, found in candidates.items() for line in lost_labels(category, found, taken[category])]
    return Dataset(
        name, entries, skipped=skipped, warnings=notes, accounts=accounts, copies_count_once=copies_count_once
    )


def _shared(remarks: Sequence[Remark], account: Account) -> Iterator[str]:
    """A warning for each kind of remark, naming some of its files; the account has all of them."""
    topics: dict[str, dict[str, list[Path]]] = {}
    for topic, path, text in remarks:
        topics.setdefault(topic, {}).setdefault(text, []).append(path)
    for topic, texts in topics.items():
        account.add(topic, {text: [str(path) for path in paths] for text, paths in texts.items()})
        for text, (first, *others) in texts.items():
            if not others:
                yield f"{first}: {text}"
                continue
            named = ", ".join("/".join(path.parts[-2:]) for path in others[:_NAMED])
            more = f" and {len(others) - _NAMED} others" if len(others) > _NAMED else ""
            yield f"{first}: {text}; the same of {named}{more}"


def _check_all(jobs: Sequence[Candidate], workers: int, progress: Progress | None) -> list[Checked]:
    # All of them, although some may stop the run: the report names every fault at once.
    if progress is not None:
        progress("check samples", 0, len(jobs))
    results: list[Checked] = []
    for checked in map_ahead(_check, jobs, workers=workers, ahead=4 * workers):
        results.append(checked)
        if progress is not None:
            progress("check samples", len(results), len(jobs))
    return results


def _check(candidate: Candidate) -> Checked:
    """Check a sample; one whose name cannot be a file's is not looked into, since its results are called so."""
    try:
        below(Path(), candidate.name)
    except UnsafeNameError as error:
        return Checked(None, (f"sample {error}; rename its files",))
    if "/" in candidate.name:
        return Checked(None, (f"sample {candidate.name!r}: expected a name without slashes; rename its files",))
    return candidate.check()


def _unsafe_categories(name: str, categories: Iterable[str]) -> Iterator[Fault]:
    """Categories that a dataset has under names that are no folders' below another one."""
    for category in categories:
        try:
            below(Path(), category)
        except UnsafeNameError as error:
            yield Fault(category, -1, f"{name}: category {error}; rename it")


def _too_few(name: str, category: str, count: int, limit: int | None) -> str:
    way_out = "add samples" if limit is None or limit >= 2 else "raise the limit"
    samples = "1 sample" if count == 1 else f"{count} samples"
    return (
        f"{name} {category}: {samples} to score, but samples score each other, so a category "
        f"needs at least 2; {way_out} or leave the category out"
    )


def shortened(lines: Sequence[str]) -> list[str]:
    """The lines of a report, "PATH: what is wrong"; a long explanation is given once and then referred to."""
    seen: set[str] = set()
    short = []
    for line in lines:
        path, _, text = line.partition(": ")
        short.append(f"{path}: the same" if text in seen and len(text) > _LONG else line)
        seen.add(text)
    return short


def _text(name: str, report: Sequence[Fault], oddities: Sequence[str], *, way_out: bool) -> str:
    lines = shortened([fault.line for fault in sorted(report)])
    notes = [f"  note: {line}" for line in oddities]
    if len(lines) == 1:
        return "\n".join([lines[0], *notes])
    head = f"{len(lines)} problems in dataset {name}{' (skip_bad leaves faulty samples out)' if way_out else ''}:"
    return "\n".join([head, *(f"  {line}" for line in lines), *notes])
