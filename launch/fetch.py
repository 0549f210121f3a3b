"""Fetches a published dataset and unpacks it safely, or compares one on disk with what was published.

    python -m launch.fetch --list
    python -m launch.fetch --dataset=btad --data_dir=DIR --accept_license
    python -m launch.fetch --dataset=eyecandies --data_dir=DIR --archive=CandyCane.tar --accept_license
    python -m launch.fetch --dataset=btad --data_dir=DIR --check

The licence is shown first. Datasets behind a form or a share page come with instructions instead; what was downloaded
by hand goes to --archive. An interrupted download goes on where it stopped when the same command is given again.
Archives are checked before they are unpacked, and are unpacked completely or not at all.

Exit code of --check: 0 if all that was asked for (--categories; default every category) is there as published, 3 if
some categories are and the others are absent altogether, 2 if anything else is wrong. Otherwise 2 is bad input.
"""

import hashlib
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

# Before JAX starts: its notes about what hardware it did not find are not this program's messages.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from filelock import FileLock, Timeout

from launch import command
from launch.own_flags import OwnFlags
from launch.progress import ProgressBar
from musc_jax.data import DataError
from musc_jax.data.datasets import published_datasets
from musc_jax.data.published.layout_check import Finding, check_layout
from musc_jax.data.spec import Archive, Source
from musc_jax.storage.archives import MOST_BYTES, ArchiveError, Inventory, extract, inspect
from musc_jax.storage.download import DownloadError, download
from musc_jax.storage.paths import below

_STORE = ".download"
SOME_ABSENT = 3
"""Exit code for a tree of which some categories are complete and the others not there."""
_INTERRUPTED = "interrupted; the same command goes on where it stopped"


class FetchError(ValueError):
    """A dataset that was not fetched; the message says what to do."""


@dataclass(frozen=True)
class Order:
    """What the flags ask for.

    Attributes:
        dataset, data_dir, accept_license, check, categories, url, sha256, archives, keep_archive: see the flags.
    """

    dataset: str | None
    data_dir: Path | None
    accept_license: bool = False
    check: bool = False
    categories: Sequence[str] | None = None
    url: str | None = None
    sha256: str | None = None
    archives: Sequence[Path] = ()
    keep_archive: bool = False


flags = OwnFlags()
flags.DEFINE_enum("dataset", None, list(published_datasets()), "Dataset.")
flags.DEFINE_string("data_dir", None, "Folder it is unpacked into, or lies in.")
flags.DEFINE_bool("accept_license", False, "You have read the dataset's licence and keep to it.")
flags.DEFINE_bool("check", False, "Fetch nothing; list what is missing or odd in --data_dir.")
flags.DEFINE_bool("list", False, "Show the datasets, their sizes and licences.")
flags.DEFINE_list("categories", None, "Comma-separated categories that are compared; default all.")
flags.DEFINE_string("url", None, "Another address of the archive (a mirror, a link that changed); also file://.")
flags.DEFINE_string("sha256", None, "Digest the archive must have; default the published one, where there is one.")
flags.DEFINE_multi_string("archive", [], "Archive downloaded by hand, instead of fetching; may be repeated.")
flags.DEFINE_bool("keep_archive", False, f"Leave the fetched archive in DATA_DIR/{_STORE}.")


def _order() -> Order:
    given = flags.FLAGS
    return Order(
        dataset=given.dataset,
        data_dir=None if given.data_dir is None else command.path("data_dir", given.data_dir),
        accept_license=given.accept_license,
        check=given.check,
        categories=given.categories,
        url=given.url,
        sha256=given.sha256,
        archives=[command.path("archive", path) for path in given.archive],
        keep_archive=given.keep_archive,
    )


def show_list() -> None:
    """Prints a table of all datasets."""
    rows = [("dataset", "categories", "test good", "test defective", "fetched", "licence")]
    for name, source in published_datasets().items():
        counts = source.categories.values()
        good, defective = sum(c.good for c in counts), sum(c.defective for c in counts)
        how = "directly" if source.archives else "by hand"
        rows.append((name, str(len(counts)), str(good), str(defective), how, source.licence))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
    for row in rows:
        print("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths)), row[-1]]))
    print("\nby hand: the command says where and how; directly: with --accept_license")
    for name, source in published_datasets().items():
        print(f"{name}: {source.home}" + (f" ({source.remark})" if source.remark else ""))


def carry_out(order: Order) -> int:
    """Fetches, unpacks and compares.

    Returns:
        The exit code.

    Raises:
        FetchError: something the user can change.
        ArchiveError, DataError: likewise, out of unpacking and comparing.
    """
    if order.dataset is None:
        raise FetchError("--dataset is needed; --list shows them")
    if order.data_dir is None:
        raise FetchError("--data_dir is needed: the folder the dataset is unpacked into, or lies in")
    _check_order(order)
    name, source, root = order.dataset, published_datasets()[order.dataset], order.data_dir
    if order.check:
        return _compare(order, name, source, root)
    remark = f" ({source.remark})" if source.remark else ""
    command.say(f"{source.title}, {source.home}\nlicence: {source.licence}{remark}")
    if not order.accept_license:
        raise FetchError("nothing was fetched; read the licence, then pass --accept_license")
    own = bool(order.archives or order.url)
    if not own and root.is_dir() and not _problems(check_layout(name, root, categories=order.categories)):
        print(f"{root} has all of {name}; nothing was fetched")
        return 0
    if not own and not source.archives:
        raise FetchError(_recipe(name, source, root))
    made = not root.exists()
    try:
        (root / _STORE).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FetchError(f"{root}: cannot be made ({error.strerror}); choose another --data_dir") from None
    try:
        _fetch_all(order, source, root)
    finally:
        if made:
            with suppress(OSError):  # it has what was fetched
                root.rmdir()
    code = _compare(order, name, source, root)
    # Archives that come by hand may be one for each category.
    return 0 if own and code == SOME_ABSENT else code


def _check_order(order: Order) -> None:
    if order.url and order.archives:
        raise FetchError("--url and --archive exclude each other")
    if order.sha256 is not None:
        if not re.fullmatch("[0-9a-fA-F]{64}", order.sha256):
            raise FetchError(f"--sha256: expected 64 hexadecimal digits, received {order.sha256!r}")
        if len(order.archives) > 1:
            raise FetchError("--sha256 goes with one archive; unpack them one by one")
    for path in order.archives:
        if not path.is_file():
            raise FetchError(f"--archive: {path} is no file")


def _fetch_all(order: Order, source: Source, root: Path) -> None:
    store = root / _STORE
    lock = FileLock(store / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise FetchError(f"{root}: another launch.fetch works there; wait for it, or choose another folder") from None
    try:
        known = source.archives[0].sha256 if len(source.archives) == 1 else None
        digest = (order.sha256 or known or "").lower() or None
        local = list(order.archives)
        if order.url and urlsplit(order.url).scheme == "file":
            local = [_local_path(order.url)]
        for path in local:
            _require_digest(path, digest, given=order.sha256 is not None)
            _unpack(path, order, source, root)
        if not local:
            archives = [_mirror(order.url, digest)] if order.url else list(source.archives)
            for archive in archives:
                _fetch(archive, archive.sha256 if order.sha256 is None else digest, order, source, root)
    finally:
        with suppress(OSError):
            (store / "lock").unlink()
        lock.release()
        with suppress(OSError):  # what is kept, or half there, stays
            store.rmdir()


def _fetch(archive: Archive, digest: str | None, order: Order, source: Source, root: Path) -> None:
    place = below(root / _STORE, archive.name)
    arrived = place.exists()
    bar = ProgressBar(in_bytes=True)
    try:
        download(archive.url, place, sha256=digest, progress=bar, most=MOST_BYTES)
    except DownloadError as error:
        steps = "; ".join(source.recipe)
        hint = f"; {steps} ({source.home}); then pass --archive=PATH, or another address with --url=URL"
        raise FetchError(f"{error}{hint if not order.url else ''}") from None
    finally:
        bar.close()
        with suppress(OSError):  # ours is the only command in this folder
            place.with_name(f".{place.name}.lock").unlink()
    if arrived:  # by an earlier command, which need not have known the digest
        _require_digest(place, digest, given=order.sha256 is not None)
    _unpack(place, order, source, root, fetched=True)
    if order.keep_archive:
        command.say(f"kept {place}")
    else:
        place.unlink()


def _unpack(path: Path, order: Order, source: Source, root: Path, *, fetched: bool = False) -> None:
    bar = ProgressBar(in_bytes=True)
    try:
        try:
            inventory = inspect(path, progress=bar)
            target = _target(inventory, path, order, source, root)
        except ArchiveError:
            if fetched:  # the same command shall not find the same broken archive again
                path.unlink()
            raise
        extract(path, target, progress=bar, inventory=inventory)
    finally:
        bar.close()
    print(f"unpacked {len(inventory.members)} files and folders of {path.name} into {target}")


def _target(inventory: Inventory, path: Path, order: Order, source: Source, root: Path) -> Path:
    """Where an archive belongs: most begin with the categories or around them, some within one."""
    if _STORE in inventory.tops:
        raise ArchiveError(f"{path}: holds {_STORE}, which is this program's; it is no archive of the dataset")
    if not source.bare_top or source.bare_top not in inventory.tops:
        return root
    categories = source.categories
    named = [name for name in categories if path.name.lower().startswith(name.lower())]
    named = named or [name for name in order.categories or () if name in categories]
    if len(named) != 1:
        raise ArchiveError(
            f"{path}: does not say which category it is; name the file by its category, as in "
            f"{next(iter(categories))}.tar, or pass --categories=NAME"
        )
    return root / named[0]


def _mirror(url: str, digest: str | None) -> Archive:
    last = unquote(urlsplit(url).path).rsplit("/", 1)[-1]
    name = re.sub(r"[^\w.-]", "_", last).lstrip(".")[-100:] or "archive"
    # Two addresses may end alike and hold different files.
    return Archive(f"{hashlib.sha256(url.encode()).hexdigest()[:8]}_{name}", url, digest)


def _local_path(url: str) -> Path:
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost"):
        raise FetchError(f"--url: {url} names another machine; expected file:///path")
    path = Path(url2pathname(parts.path))
    if not path.is_file():
        raise FetchError(f"--url: {path} is no file")
    return path


def _require_digest(path: Path, digest: str | None, *, given: bool) -> None:
    if digest is None:
        return
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise FetchError(f"{path}: cannot be read ({error.strerror}); make it readable") from None
    if found != digest:
        expected = "--sha256 says" if given else "published is"
        raise FetchError(
            f"{path}: another file than expected, not unpacked (its SHA-256 is {found}, {expected} {digest}); download "
            f"it again, or pass --sha256={found} if this very file is meant"
        )


def _recipe(name: str, source: Source, root: Path) -> str:
    end = f"then: python -m launch.fetch --dataset={name} --data_dir={root} --archive=PATH --accept_license"
    return "\n  ".join([f"{name} cannot be fetched by a program; by hand:", *source.recipe, end])


def _problems(findings: Sequence[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.problem]


def _compare(order: Order, dataset: str, source: Source, root: Path) -> int:
    findings = check_layout(dataset, root, categories=order.categories)
    absent = {finding.category for finding in findings if finding.absent}
    # In one line, where it is not all of them and nobody asked for these.
    together = bool(absent) and len(absent) < len(source.categories) and order.categories is None
    for finding in findings:
        if not (together and finding.absent):
            print(finding if finding.problem else f"note: {finding}")
    problems = [problem for problem in _problems(findings) if not (together and problem.absent)]
    if together:
        broken = {problem.category for problem in problems}
        there = [name for name in source.categories if name not in absent]
        print(
            f"{root}: {len(there)} of {len(source.categories)} categories of {dataset} are there: "
            + ", ".join(f"{name} (see above)" if name in broken else name for name in there)
            + f"; absent: {', '.join(name for name in source.categories if name in absent)}"
        )
    if problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise FetchError(f"{root}: {count}, {dataset} is not as published (see above)")
    if together:
        return SOME_ABSENT
    number = len(set(order.categories or source.categories))
    categories = "1 category" if number == 1 else f"{number} categories"
    print(f"{root}: all test samples of {dataset} are there ({categories})")
    return 0


def _run() -> int:
    if flags.FLAGS.list:
        show_list()
        return 0
    return carry_out(_order())


BAD_INPUT = (FetchError, ArchiveError, DataError)


def main(argv: list[str]) -> int:
    """The whole program; returns the exit code."""
    return command.execute(argv, _run, BAD_INPUT, interrupted=_INTERRUPTED, own=(flags,), about=__doc__)


if __name__ == "__main__":
    command.run(main)
