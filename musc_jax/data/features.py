"""Tokens of samples from a folder, one file a sample, written by any program."""

import dataclasses
import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.spatial import cKDTree

from musc_jax.data.assembly import shortened
from musc_jax.data.dataset import Dataset, Entry
from musc_jax.data.feature_notes import NOTES, FeatureNotes, read_notes
from musc_jax.data.formats.files import FileFault
from musc_jax.data.formats.tokens import ENDINGS, TokenFile, read_tokens
from musc_jax.data.sample import DataError, Sample, SampleTokens
from musc_jax.models import GivenTokens
from musc_jax.storage.atomic import MARKER
from musc_jax.storage.paths import readable
from musc_jax.storage.prefetch import map_ahead

Progress = Callable[[str, int, int], None]

# So many names of a kind are listed.
_NAMED = 5


class _Known(NamedTuple):
    """A file that was read once: what it holds, without the arrays."""

    path: Path
    digest: str
    shapes: dict[str, tuple[tuple[int, ...], ...]]
    embedding: tuple[int, ...] | None


class FeatureFolder:
    """Files of tokens that were all looked into, by group and sample; a group is a category's folder.

    Attributes:
        root: The folder.
        image: What a config needs to know of the tokens of images; None where there are none.
        points: The same of points.
        size: Side in pixels of the point maps that groups lie in; None where nobody says.
        warnings: Files that were left out.
    """

    def __init__(
        self, root: Path, files: Mapping[str, Mapping[str, _Known]], notes: FeatureNotes, warnings: Sequence[str] = ()
    ) -> None:
        self.root, self.warnings, self.size = root, list(warnings), notes.image_size
        self._files, self._grid = files, notes.grid
        first = next(iter(next(iter(files.values())).values()))
        content = [[group, name, known.digest] for group, own in files.items() for name, known in own.items()]
        digest = hashlib.sha256(json.dumps([content, notes[:-1]], sort_keys=True).encode()).hexdigest()
        kept = {"rgb": ("image",), "points": ("points",)}.get(notes.modality or "", ("image", "points"))
        self.image, self.points = (
            GivenTokens(
                shapes[0][0],
                tuple(channels for _, channels in shapes),
                image_size=notes.image_size or 224,
                aggregated=notes.aggregated,
                embedded=first.embedding is not None,
                name=notes.backbone_of(kind),
                source=f"features in {readable(root)}",
                digest=digest,
                random=notes.random,
            )
            if (shapes := first.shapes[kind]) and kind in kept
            else None
            for kind in ("image", "points")
        )

    @property
    def modality(self) -> str:
        """What there are tokens of: "rgb", "points" or "rgb+points"."""
        found = [name for name, one in (("rgb", self.image), ("points", self.points)) if one is not None]
        return "+".join(found)

    def join(self, dataset: Dataset, *, whole: bool = True, skip_bad: bool = False) -> Dataset:
        """The same samples with their tokens, which are read with them.

        Args:
            dataset: Samples by category. Where there is one category its files may lie in the root, too.
            whole: Whether these are all its samples, so that other files are worth a word.
            skip_bad: Leave out samples without a file of tokens.

        Returns:
            The dataset, with a warning for files of no sample and for samples that were left out.

        Raises:
            DataError: Samples that have no file, in one report; when they are read, a file that has changed meanwhile.
        """
        entries, skipped, lines, faults = {}, dict(dataset.skipped), list(dataset.warnings), []
        for category in dataset.categories:
            others = [other for other in dataset.categories if other != category]
            place, files = self._of(category, others)
            own = dataset.entries(category)
            entries[category] = [self._with_tokens(entry, files[entry.name]) for entry in own if entry.name in files]
            if missing := [entry.name for entry in own if entry.name not in files]:
                line = f"{len(missing)} of {len(own)} samples have no file of tokens: {_listed(missing)}"
                if not skip_bad or len(entries[category]) < 2:
                    way_out = (
                        f"expected {missing[0]}{ENDINGS[0]} and so on, by the samples' names as scores.csv has them, "
                        "or in folders as the pictures are"
                    )
                    faults.append(f"{readable(place)}: {line}; {way_out}; --skip_bad leaves such samples out")
                skipped[category] = (*skipped[category], *missing)
                lines.append(f"{readable(place)}: {line}")
            if whole and (extra := sorted(files.keys() - {entry.name for entry in own})):
                count = "1 file belongs" if len(extra) == 1 else f"{len(extra)} files belong"
                lines.append(f"{readable(place)}: {count} to no sample: {_listed(extra)}")
        if faults:
            raise DataError("\n".join(faults))
        joined = Dataset(
            dataset.name,
            entries,
            skipped=skipped,
            warnings=lines,
            accounts=dataset.accounts,
            copies_count_once=dataset.copies_count_once,
            health=dataset.health,
        )
        joined.warnings += self.warnings
        return joined

    def _with_tokens(self, entry: Entry, known: _Known) -> Entry:
        """The sample's digest stays: what the tokens are belongs to the config."""

        def read(size: int) -> Sample:
            sample = entry.read(size)
            try:
                found = read_tokens(known.path, grid=self._grid)
            except FileFault as fault:
                raise DataError(fault.of_own_file) from None
            if found.digest != known.digest:
                raise DataError(f"{readable(known.path)}: has changed since the run began; start it again")
            return dataclasses.replace(sample, tokens=_placed(found, sample))

        # Of equal pictures other tokens may be given.
        return dataclasses.replace(entry, read=read, content=entry.content and f"{entry.content} {known.digest}")

    def _of(self, category: str, others: Sequence[str]) -> tuple[Path, dict[str, _Known]]:
        """(folder, file by sample) of a category: what lies in folders further below is called as such pictures are."""
        for top in (category, *(() if others else ("",))):
            files: dict[str, _Known] = {}
            for group, own in self._files.items():
                if not _is_in(group, top) or any(_is_in(group, other) and _is_in(other, top) for other in others):
                    continue
                inner = [part for part in group[len(top) :].split("/") if part]
                for name, known in own.items():
                    called = "_".join([*inner, name])
                    if called in files:
                        there, again = readable(files[called].path), readable(known.path)
                        raise DataError(f"{again}: {there} would be called {called}, too; rename one of them")
                    files[called] = known
            if files:
                return self.root.joinpath(*filter(None, top.split("/"))), files
        return self.root.joinpath(*category.split("/")), {}


def open_features(
    root: Path,
    *,
    categories: Sequence[str] | None = None,
    skip_bad: bool = False,
    workers: int = 2,
    progress: Progress | None = None,
) -> FeatureFolder:
    """Reads every file of tokens in a folder once: ROOT/CATEGORY/SAMPLE.safetensors or .npy, or ROOT/SAMPLE.... alone.

    Args:
        root: The folder. `features.json` in it or in a category's folder says what arrays cannot say.
        categories: Whose folders are looked into; default, and where there are none, all.
        skip_bad: Leave out files that cannot be used, instead of refusing all.
        workers: Threads.
        progress: Told how many files are read.

    Returns:
        The files.

    Raises:
        DataError: No files; in one report all files that are damaged, or hold tokens of another shape than most.
    """
    found = _list_files(root, categories)
    faults: list[str] = []
    notes = _common_notes(root, found, faults)
    jobs = [(group, name, path) for group, paths in found.items() for name, path in paths]
    known: dict[str, dict[str, _Known]] = {}
    for done, ((group, name, path), read) in enumerate(
        zip(jobs, map_ahead(lambda job: _look(job[2], notes.grid), jobs, workers=workers), strict=True), start=1
    ):
        if isinstance(read, str):
            faults.append(read)
        elif name in known.get(group, {}):
            other = known[group][name].path
            faults.append(f"{readable(path)}: {other.name} has the same sample's tokens; remove one of them")
        else:
            known.setdefault(group, {})[name] = read
        if progress:
            progress("check features", done, len(jobs))
    faults += _odd_ones(known, notes)
    known = {group: own for group, own in known.items() if own}
    if faults and not (skip_bad and known):
        head = f"{len(faults)} problems in the features {readable(root)} (--skip_bad leaves such files out):\n  "
        raise DataError((head if len(faults) > 1 else "") + "\n  ".join(shortened(faults)))
    return FeatureFolder(root, known, notes, faults)


def _look(path: Path, grid: int | None) -> _Known | str:
    try:
        read = read_tokens(path, grid=grid)
    except FileFault as fault:
        return fault.of_own_file
    embedding = read.tokens.embedding
    return _Known(path, read.digest, read.shapes, None if embedding is None else embedding.shape)


def _list_files(root: Path, categories: Sequence[str] | None) -> dict[str, list[tuple[str, Path]]]:
    """(sample, file) by group, in order."""
    if not root.is_dir():
        raise DataError(f"{readable(root)}: is no folder; pass --features=DIR with a file of tokens for each sample")
    found: dict[str, list[tuple[str, Path]]] = {}
    for folder, inner, names in os.walk(root):
        inner.sort()
        inner[:] = [name for name in inner if not name.startswith(MARKER)]
        group = Path(folder).relative_to(root).as_posix()
        group = "" if group == "." else group
        own = [Path(folder) / name for name in sorted(names) if not name.startswith(MARKER)]
        files = [(path.name.removesuffix(path.suffix), path) for path in own if path.suffix in ENDINGS]
        if files:
            found[group] = files
    if not found:
        wanted = "SAMPLE.safetensors or SAMPLE.npy, in a folder for each category"
        raise DataError(f"{readable(root)}: holds no tokens; expected {wanted}")
    wanted_ones = {group: own for group, own in found.items() if any(_is_in(group, one) for one in categories or ())}
    return wanted_ones or found


def _common_notes(root: Path, groups: Iterable[str], faults: list[str]) -> FeatureNotes:
    """What is said of all groups: by the nearest file of notes above each."""
    said: dict[str, FeatureNotes] = {}
    for group in groups:
        folder = root / group
        own = next((f for f in (folder, *folder.parents) if (f / NOTES).exists() or f == root), root)
        try:
            said[group] = read_notes(own / NOTES)
        except FileFault as fault:
            faults.append(fault.of_own_file)
    if not said:
        raise DataError(faults[0])
    first = next(iter(said))
    for group, notes in said.items():
        for field, value, other in zip(notes._fields[:-1], notes, said[first], strict=False):
            if value != other:
                line = f"{field} is {value!r}, and {other!r} in {first or root.name}; score them one by one"
                faults.append(f"{readable(root / group / NOTES)}: {line}")
    return said[first]


def _odd_ones(known: Mapping[str, dict[str, _Known]], notes: FeatureNotes) -> list[str]:
    """Takes out files with tokens of other shapes than most, and returns what is wrong with them."""
    files = [one for own in known.values() for one in own.values()]
    if not files:
        return []
    shapes = Counter(_form(one) for one in files)
    usual, _ = shapes.most_common(1)[0]
    faults = []
    for own in known.values():
        for name, one in list(own.items()):
            if _form(one) != usual:
                faults.append(f"{readable(one.path)}: holds {_form(one)}, but most others {usual}; make them alike")
                del own[name]
    example = next(one for one in files if _form(one) == usual)
    for kind, stages in example.shapes.items():
        if stages and notes.stages not in (None, len(stages)):
            line = f"has {len(stages)} stages of {kind} tokens, and {NOTES} says {notes.stages}; correct either"
            faults.append(f"{readable(example.path)}: {line}")
    wanted = {"rgb": ["image"], "points": ["points"], "rgb+points": ["image", "points"]}.get(notes.modality or "", [])
    lacking = [kind for kind in wanted if not example.shapes[kind]]
    if lacking:
        line = f"has no {lacking[0]} tokens, and {NOTES} says modality {notes.modality}; correct either"
        faults.append(f"{readable(example.path)}: {line}")
    return faults


def _form(one: _Known) -> str:
    """The shapes of what a file holds, in words."""
    parts = [f"{kind} {', '.join(map(str, stages))}" for kind, stages in one.shapes.items() if stages]
    return " and ".join(parts + ([f"embedding {one.embedding}"] if one.embedding else []))


def _placed(found: TokenFile, sample: Sample) -> SampleTokens:
    """Tokens whose groups lie at pixels: where there are only centres, at the pixels of the nearest points."""
    tokens = found.tokens
    if not tokens.points or len(tokens.pixels) or found.centers is None or sample.points is None:
        return tokens
    points = sample.points.reshape(-1, 3)
    valid = np.flatnonzero((points != 0).all(axis=1))
    if not len(valid):
        return tokens
    _, nearest = cKDTree(points[valid]).query(found.centers)
    return dataclasses.replace(tokens, pixels=valid[nearest].astype(np.int32))


def _is_in(group: str, top: str) -> bool:
    """Whether a folder is another one or lies in it; all lie in the root, which is ""."""
    return not top or group == top or group.startswith(f"{top}/")


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_NAMED])
    return shown if len(names) <= _NAMED else f"{shown} and {len(names) - _NAMED} more"
