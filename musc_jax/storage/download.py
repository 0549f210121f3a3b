"""Files from an address: resumed where they were interrupted, checked, and whole or not there at all."""

import hashlib
import http.client
import json
import os
import shutil
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from filelock import FileLock

from musc_jax._text import shown
from musc_jax.storage.signatures import START, is_page

Progress = Callable[[str, int, int | None], None]
"""Called with what is done, how many bytes of it, and how many there are in all, where that is known."""

_PART = 1 << 18
_TIMEOUT = 30.0
_ATTEMPTS = 6
_MOST = 16 << 30
_AGENT = "musc-jax"


class DownloadError(ValueError):
    """A file that did not arrive; one line that names the address and the way out."""


class _Again(Exception):
    """Something that may be different next time."""


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to other web addresses, but not from an encrypted one to one that is not."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):  # type: ignore[no-untyped-def]
        if urlsplit(newurl).scheme not in ("https", urlsplit(req.full_url).scheme):
            raise urllib.error.URLError(f"redirected to {shown(newurl)}, which is not safe to follow")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def download(
    url: str,
    target: Path,
    *,
    sha256: str | None = None,
    progress: Progress | None = None,
    timeout: float = _TIMEOUT,
    attempts: int = _ATTEMPTS,
    pause: float = 1.0,
    most: int = _MOST,
) -> Path:
    """Brings a file to disk.

    What arrived is kept in `target`.part, so that the next attempt - or the next run - goes on from there, as long as
    the server says it is still the same file. Several processes may ask for the same file at once: one fetches it.

    Args:
        url: http or https.
        target: Where the file will be.
        sha256: Its digest, where it is known.
        progress: Told how far it is.
        timeout: Seconds without a byte after which an attempt has failed.
        attempts: Attempts without progress after which it is given up.
        pause: Seconds before the second attempt, doubled before each further one.
        most: Bytes; a longer file is refused.

    Returns:
        `target`.

    Raises:
        DownloadError: Not found, not reachable, another digest, a web page instead; names the address.
    """
    if urlsplit(url).scheme not in ("http", "https"):
        raise DownloadError(f"{shown(url)}: expected a web address")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.with_name(f".{target.name}.lock")):
            if not target.exists():
                _Download(url, target, sha256, progress or (lambda *_: None), timeout, most).run(attempts, pause)
    except OSError as error:
        raise DownloadError(f"{target}: cannot be written ({error.strerror or error})") from None
    return target


class _Download:
    def __init__(
        self, url: str, target: Path, sha256: str | None, progress: Progress, timeout: float, most: int
    ) -> None:
        self._most = most
        self._url, self._target, self._sha256 = url, target, sha256
        self._progress, self._timeout = progress, timeout
        self._part = target.with_name(target.name + ".part")
        self._state = target.with_name(target.name + ".part.json")
        self._opener = urllib.request.build_opener(_SafeRedirects())

    def run(self, attempts: int, pause: float) -> None:
        left, wait = attempts, pause
        while True:
            before = self._have()
            try:
                self._fetch()
                break
            except _Again as problem:
                if self._have() > before:
                    left, wait = attempts, pause
                left -= 1
                if left <= 0:
                    kept = f"; {self._have()} bytes are kept, the same command goes on from there"
                    raise DownloadError(
                        f"{self._url}: {problem}, given up after {attempts} attempts{kept if self._have() else ''}"
                    ) from None
                time.sleep(wait)
                wait = min(2 * wait, 30.0)
        self._finish()

    def _have(self) -> int:
        return self._part.stat().st_size if self._part.exists() else 0

    def _fetch(self) -> None:
        """One attempt."""
        have, validator = self._have(), self._validator()
        headers = {"User-Agent": _AGENT, "Accept-Encoding": "identity"}
        if have and (validator or self._sha256):  # a digest would notice if it were another file by now
            headers["Range"] = f"bytes={have}-"
            if validator:
                headers["If-Range"] = validator
        try:
            with self._opener.open(
                urllib.request.Request(self._url, headers=headers), timeout=self._timeout
            ) as response:
                self._receive(response, have)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 416:  # what is kept is as long as the file, or longer: it cannot be trusted
                self._discard()
                raise _Again("the server has a shorter file than before") from None
            if error.code in (408, 425, 429) or error.code >= 500:
                raise _Again(f"the server answered {error.code}") from None
            raise DownloadError(f"{self._url}: the server answered {error.code} ({shown(error.reason)})") from None
        except urllib.error.URLError as error:
            reason = error.reason
            if isinstance(reason, TimeoutError | ConnectionResetError):
                raise _Again(_why(reason)) from None
            raise DownloadError(f"{self._url}: cannot be reached ({_why(reason)})") from None
        except (TimeoutError, ConnectionError, ssl.SSLError, http.client.HTTPException) as error:
            raise _Again(_why(error)) from None

    def _validator(self) -> str | None:
        """What says that the file on the server is the one that was begun; None if nothing does."""
        try:
            state = json.loads(self._state.read_text(encoding="utf-8"))
            return state["validator"] if state["url"] == self._url else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _receive(self, response: IO[bytes] | http.client.HTTPResponse, have: int) -> None:
        assert isinstance(response, http.client.HTTPResponse)
        resumed = response.status == 206 and (response.headers.get("Content-Range") or "").startswith(f"bytes {have}-")
        length = response.headers.get("Content-Length")
        total = int(length) + (have if resumed else 0) if length and length.isdecimal() else None
        if total is not None and total > self._most:
            raise DownloadError(f"{self._url}: {total} bytes, more than the {self._most} expected; fetch it by hand")
        if not resumed:
            have = 0
            self._discard()
        self._check_space(total, have)
        tag = response.headers.get("ETag") or ""
        # A weak tag does not say that two files are the same byte for byte.
        validator = tag if tag.startswith('"') else response.headers.get("Last-Modified")
        self._state.write_text(json.dumps({"url": self._url, "validator": validator}), encoding="utf-8")
        name = self._target.name
        self._progress(name, have, total)
        with self._part.open("ab" if resumed else "wb") as file:
            while True:
                # One read of the socket at a time: a slow server shows as slow, not as hanging.
                part = response.read1(_PART)
                if not part:
                    break
                file.write(part)
                have += len(part)
                if have > self._most:
                    raise DownloadError(f"{self._url}: does not come to an end; fetch it by hand")
                self._progress(name, have, total)
        if total is not None and have != total:
            raise _Again(f"the connection ended after {have} of {total} bytes")

    def _check_space(self, total: int | None, have: int) -> None:
        free = shutil.disk_usage(self._target.parent).free
        if total is not None and total - have > free:
            raise DownloadError(
                f"{self._target.parent}: {(total - have) >> 20} MB needed for {self._url}, {free >> 20} MB free; make "
                f"room or pass another folder"
            )

    def _finish(self) -> None:
        """Checks what arrived and gives it its name."""
        with self._part.open("rb") as file:
            page = is_page(file.read(START))
        if page:
            self._discard()
            raise DownloadError(f"{self._url}: a web page, not a file; open it in a browser to see what it says")
        if self._sha256 is not None:
            with self._part.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            if digest != self._sha256:
                self._discard()
                raise DownloadError(
                    f"{self._url}: another file than expected, removed (SHA-256 {digest}, expected {self._sha256})"
                )
        os.replace(self._part, self._target)
        self._state.unlink(missing_ok=True)

    def _discard(self) -> None:
        self._part.unlink(missing_ok=True)
        self._state.unlink(missing_ok=True)


def _why(reason: object) -> str:
    if isinstance(reason, TimeoutError):
        return "no answer in time"
    if isinstance(reason, socket.gaierror):
        return "its name is not known, is there a network?"
    if isinstance(reason, OSError) and reason.strerror:
        return shown(reason.strerror)
    return shown(reason) or type(reason).__name__
