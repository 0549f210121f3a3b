"""Models from the Hugging Face hub, through huggingface_hub: its cache, its offline mode, its tokens."""

import contextlib
import logging
import re
import socket
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from musc_jax._text import shown
from musc_jax.storage.paths import UnsafeNameError, below
from weights.errors import WeightsError
from weights.files import FOLDER_FILES, Checkpoint, locate

_DIGEST = re.compile(r"[0-9a-f]{64}")


class HubFile(NamedTuple):
    """A model out of the hub's cache: the checkpoint, the SHA-256 of its file, where it comes from."""

    checkpoint: Checkpoint
    digest: str
    label: str


class HubError(Exception):
    """Why a model could not be had, in a few words."""


def fetch(repository: str, revision: str) -> HubFile:
    """A model's checkpoint and config.json, out of the hub's cache or, if they are not there, from the network.

    Args:
        repository: Such as "facebook/dino-vitb8".
        revision: A commit, or the name of a branch or tag.

    Raises:
        HubError: No network and not in the cache, no such model, no permission, a revision that is no name.
        WeightsError: What is in the cache is damaged and cannot be replaced.
    """
    from huggingface_hub import constants, hf_hub_download

    try:
        below(Path(), revision)  # the hub's library makes it a file in its cache
    except UnsafeNameError as error:
        raise HubError(f"revision {error}") from None
    get = partial(hf_hub_download, repository, revision=revision)
    offline = bool(constants.HF_HUB_OFFLINE)
    with _quiet():
        try:
            file = _first(get, local_files_only=True)
        except HubError:
            if offline:
                raise HubError("not in the cache of Hugging Face, and HF_HUB_OFFLINE is set") from None
            problem = _unreachable(constants.ENDPOINT)
            if problem is not None:
                raise HubError(f"not in the cache of Hugging Face, and {problem}") from None
            file = _first(get, local_files_only=False)
        digest = _verified(file, partial(get, file.name))
        if not (file.parent / "config.json").is_file():
            _settings(get, local_files_only=offline or _unreachable(constants.ENDPOINT) is not None)
    label = f"huggingface.co/{repository}@{file.parent.name}/{file.name}"
    return HubFile(_locate(file), digest, label)


def _locate(file: Path) -> Checkpoint:
    """A model in the hub's cache; unlike a user's folder it may have no config.json."""
    return locate(file.parent if (file.parent / "config.json").is_file() else file)


def _first(get: partial, *, local_files_only: bool) -> Path:
    """The first of the files a model may be published as."""
    from huggingface_hub.errors import (
        EntryNotFoundError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    for name in FOLDER_FILES:
        try:
            return Path(get(name, local_files_only=local_files_only))
        except LocalEntryNotFoundError as error:
            if not local_files_only:  # no answer: the next name would get none either
                raise HubError(_why(error)) from None
        except EntryNotFoundError:
            continue  # the repository has it under the other name
        except RevisionNotFoundError:
            raise HubError(f"it has no revision {shown(get.keywords['revision'])}") from None
        except RepositoryNotFoundError:
            raise HubError("no such model, or one that needs permission (log in, or set HF_TOKEN)") from None
        except Exception as error:  # noqa: BLE001 - the hub's own, httpx's, requests': the next source is tried
            raise HubError(_why(error)) from None
    raise HubError(f"it has neither {' nor '.join(FOLDER_FILES)}")


def _verified(file: Path, get: partial) -> str:
    """The file's digest; large files lie in the cache under the name of theirs, and a damaged one is fetched again."""
    named = file.resolve().name
    digest = Checkpoint(file, None).file_digest()
    if not _DIGEST.fullmatch(named) or digest == named:
        return digest
    try:
        get(force_download=True)
    except Exception as error:  # noqa: BLE001 - see above
        raise WeightsError(
            f"{file}: damaged in the cache of Hugging Face and cannot be fetched again ({_why(error)}); delete "
            f"{file.resolve()}"
        ) from None
    if Checkpoint(file, None).file_digest() != named:
        raise WeightsError(f"{file}: not what the hub says it is, even when fetched again; try later")
    return named


def _settings(get: partial, *, local_files_only: bool) -> None:
    """Brings config.json beside the file; some models have none."""
    from huggingface_hub.errors import EntryNotFoundError

    try:
        get("config.json", local_files_only=local_files_only)
    except EntryNotFoundError as error:
        if not local_files_only and isinstance(error, OSError):  # no answer, which does not mean that there is none
            raise HubError(f"config.json: {_why(error)}") from None
    except Exception as error:  # noqa: BLE001 - see above
        raise HubError(f"config.json: {_why(error)}") from None


def _unreachable(endpoint: str) -> str | None:
    """Why the hub cannot be reached; asking its library would take half a minute and print ten lines."""
    address = urlsplit(endpoint)
    host = address.hostname or ""
    if address.scheme in urllib.request.getproxies() and not urllib.request.proxy_bypass(host):
        return None
    try:
        socket.getaddrinfo(host, address.port or 443)
    except OSError:
        return f"{host} cannot be reached"
    return None


def _why(error: object) -> str:
    return shown((str(error).strip() or type(error).__name__).splitlines()[0])


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the library's retries off the terminal; what comes of them is said once."""
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
