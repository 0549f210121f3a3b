"""What a category is as a batch: which of its samples are taken, copies of each other, of odd sizes."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from musc_jax.data.dataset import Candidate, Dataset
from musc_jax.data.health import examine

# So many samples or groups are named.
_NAMED = 5
# More than this share of other sizes is no oddity.
_FEW = 0.25


def choose(found: Sequence[Candidate], limit: int | None, *, spread: bool) -> tuple[Candidate, ...]:
    """The samples that a limit leaves, in their order.

    Args:
        found: of a category.
        limit: how many; None: all.
        spread: take as many of each label as is its share, at least one of each, evenly over those of the label, as
            kinds of defects follow each other. Otherwise, and without labels, the first ones.
    """
    labels = [candidate.label for candidate in found]
    if limit is None or limit >= len(found) or not spread or limit < 2 or set(labels) != {0, 1}:
        return tuple(found[:limit])
    good, bad = ([i for i, label in enumerate(labels) if label == wanted] for wanted in (0, 1))
    of_bad = min(max(1, round(limit * len(bad) / len(found)), limit - len(good)), limit - 1, len(bad))
    chosen = [*_evenly(good, limit - of_bad), *_evenly(bad, of_bad)]
    return tuple(found[i] for i in sorted(chosen))


def _evenly(indices: Sequence[int], count: int) -> list[int]:
    return [indices[int(at)] for at in np.linspace(0, len(indices), count, endpoint=False)]


def lost_labels(category: str, found: Sequence[Candidate], taken: Sequence[Candidate]) -> list[str]:
    """A line where a limit leaves samples of one label only, of which no metric says anything."""
    if len(taken) == len(found):
        return []
    there, left = ({_label(candidate) for candidate in samples} for samples in (found, taken))
    if not there >= {0, 1} or left >= {0, 1} or None in left:
        return []
    kind = "good" if left == {0} else "defective"
    return [
        f"{category}: the limit leaves {len(taken)} of {len(found)} samples, all of them {kind}: no metric is defined "
        "then; raise it (--limit)"
    ]


def _label(candidate: Candidate) -> int | None:
    if candidate.label is not None or candidate.list_files is None:
        return candidate.label
    return candidate.list_files().label


def remark_on_copies(dataset: Dataset, labels: dict[str, dict[str, int | None]]) -> None:
    """Name copies of the same sample, in a warning and in the category's account.

    Args:
        dataset: gets them.
        labels: by category and name, those that are known.
    """
    for category in dataset.categories:
        groups = [[dataset.names(category)[i] for i in group] for group in dataset.copies(category)]
        if not groups:
            continue
        named = "; ".join(" = ".join([*group[:_NAMED], *["..."] * (len(group) > _NAMED)]) for group in groups[:_NAMED])
        more = f"; and {len(groups) - _NAMED} other groups" if len(groups) > _NAMED else ""
        copies = sum(map(len, groups)) - len(groups)
        effect = (
            "they count as one and never score each other (--copies=each changes that)"
            if dataset.copies_count_once
            else "they score each other as any others do, and lower each other's scores"
        )
        what = f"{copies} samples are copies of others" if copies > 1 else "1 sample is a copy of another"
        line = f"{category}: {what}: {named}{more}; {effect}"
        known = labels.get(category, {})
        torn = [group for group in groups if {known.get(name) for name in group} >= {0, 1}]
        if torn:
            line += f"; {len(torn)} of these groups are called both good and defective: {' = '.join(torn[0][:_NAMED])}"
        dataset.accounts[category].add("duplicates", groups)
        dataset.warnings.append(line)


def remark_on_sizes(dataset: Dataset) -> None:
    """Name pictures of another size than nearly all others of their category, as of another resolution.

    Those of other proportions are named where it is decided how pictures become square.
    """
    for category in dataset.categories:
        names = dataset.names(category)
        sizes = {name: size for name, size in zip(names, dataset.sizes(category), strict=True) if size is not None}
        counts = Counter(sizes.values()).most_common()
        if len(counts) < 2:
            continue
        (height, width), count = counts[0]
        odd = [name for name, (own, across) in sizes.items() if own != height and across * height == own * width]
        line = ""
        if odd and count > 1 and len(odd) <= max(1, _FEW * len(sizes)):
            shown = ", ".join(f"{name} is {sizes[name][1]} x {sizes[name][0]}" for name in odd[:_NAMED])
            more = f" and {len(odd) - _NAMED} more" if len(odd) > _NAMED else ""
            line = f"sizes: {len(odd)} of {len(sizes)} pictures are not {width} x {height} as the others: {shown}{more}"
        dataset.accounts[category].add("sizes", {f"{across} x {own}": n for (own, across), n in counts}, line)


def examine_health(dataset: Dataset) -> None:
    """Find out what is odd about each category as a batch, for its `health` and its account."""
    for category in dataset.categories:
        looks = [entry.look for entry in dataset.entries(category)]
        known = [look for look in looks if look is not None]
        if len(known) < len(looks):
            continue
        found = examine(known, dataset.names(category), dataset.copies(category))
        dataset.health[category] = found
        dataset.accounts[category].add("health", [finding.facts() for finding in found])
