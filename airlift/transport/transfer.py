"""A download over several attempts: which range to ask for, and whether what comes continues what came."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Protocol

from airlift.errors import FetchError, IntegrityError
from airlift.transport import answers, urls


class Sink(Protocol):
    """Takes the bytes of one download, in order."""

    @property
    def written(self) -> int:
        """Bytes taken so far; a download goes on from here."""

    def write(self, data: bytes) -> object:
        """Take the next bytes."""


class Transfer:
    """One download over all its attempts: which range to ask for, and whether what comes continues it."""

    def __init__(self, url: str, sink: Sink, size: int | None, subject: str) -> None:
        self._sink = sink
        self._size = size
        self._where = f"{subject}: {urls.shown(url)}"
        self._etag: str | None = None
        self._total: int | None = size

    def headers(self, given: Mapping[str, str]) -> dict[str, str]:
        """Return what to send now."""
        headers = dict(given)
        if self._sink.written:
            headers["Range"] = f"bytes={self._sink.written}-"
            if self._etag is not None:
                headers["If-Range"] = self._etag
        return headers

    def begin(self, headers: Mapping[str, str], status: int) -> int:
        """Look at an answer's headers and return how many bytes of it the sink already has."""
        start = self._sink.written
        etag = answers.strong_etag(headers)
        if start and self._etag is not None and etag is not None and etag != self._etag:
            raise IntegrityError(
                self._where, expected="the same content throughout", actual="other content after a cut"
            )
        self._etag = self._etag or etag
        total = answers.content_length(headers)
        skip = start
        if status == HTTPStatus.PARTIAL_CONTENT:
            got = answers.content_range(headers)
            if got is None or got[0] != start:
                raise FetchError(
                    f"{self._where}: asked for bytes from {start}, got {headers.get('Content-Range') or 'no range'!r}"
                )
            total, skip = got[2], 0
        if total is not None and self._total is not None and total != self._total:
            raise IntegrityError(self._where, expected=f"{self._total} bytes", actual=f"{total} bytes")
        self._total = total if self._total is None else self._total
        return skip

    def end(self) -> None:
        """Check that all of it came."""
        if self._total is not None and self._sink.written < self._total:
            raise FetchError(
                f"{self._where}: the connection was cut after {self._sink.written} of {self._total} bytes",
                temporary=True,
            )
