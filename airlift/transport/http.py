"""The one HTTP client of airlift.

Faults that may pass are retried, everything else is said at once. A server that was silent twice when it was asked for
the same thing is not asked any more. What always holds of a single request is said in `airlift.transport.wire`.
"""

from __future__ import annotations

import contextlib
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import partial
from typing import Final

from airlift import limits
from airlift.errors import FetchError
from airlift.progress import Progress, Silent
from airlift.transport import answers, urls
from airlift.transport.settings import HttpSettings
from airlift.transport.transfer import Sink, Transfer
from airlift.transport.wire import Auth, Authorizer, HttpStatusError, Response, SilentError, Wire

__all__ = ["Auth", "Authorizer", "HttpClient", "HttpSettings", "HttpStatusError", "Response", "Sink"]

_MAX_WAIT_S: Final = 120.0
_UNAUTHORIZED: Final = 401
_SILENCES: Final = 2
"""How often in a row a server may leave the same request without an answer."""

_CLIENTS: Final[weakref.WeakSet[HttpClient]] = weakref.WeakSet()
_GUARD: Final = threading.Lock()


def give_up_all() -> None:
    """Break off every request of this process: it is to end now. Safe to call from any thread."""
    with _GUARD:
        clients = list(_CLIENTS)
    for client in clients:
        client.give_up()


class HttpClient:
    """Asks servers. Safe to use from many threads; connections are pooled.

    Args:
        settings: certificates, proxies, time-outs.
        progress: told when a wait is long.
        sleep: how to wait between attempts; None for a wait that `give_up` ends.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        settings: HttpSettings,
        progress: Progress | None = None,
        *,
        sleep: Callable[[float], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = settings
        self._progress = progress or Silent()
        self._sleep = sleep or self._rest
        self._is_given_up = threading.Event()
        self._wire = Wire(settings, clock)
        self._lock = threading.Lock()
        self._silences: Counter[tuple[str, str]] = Counter()
        self._silent: dict[tuple[str, str, int], SilentError] = {}
        with _GUARD:
            _CLIENTS.add(self)

    def close(self) -> None:
        """Close idle connections."""
        self._wire.close()

    def give_up(self) -> None:
        """Break off the requests and the waits between attempts, of every thread, and begin no request any more."""
        self._is_given_up.set()
        self._wire.break_off()

    def get_bytes(
        self,
        url: str,
        *,
        limit: int,
        headers: Mapping[str, str] | None = None,
        auth: Auth = None,
        plain_http: bool = False,
        subject: str | None = None,
    ) -> Response:
        """Return a small document.

        Args:
            url: where it is.
            limit: the most bytes that are accepted.
            headers: to send.
            auth: for the URL's own origin.
            plain_http: allow http to another machine.
            subject: what it is, for messages.

        Raises:
            HttpStatusError: the server answered with an error.
            FetchError: it cannot be reached, or does not answer.
            IntegrityError: it is larger than `limit`.
        """
        return self.exchange(
            "GET", url, limit=limit, headers=headers, auth=auth, plain_http=plain_http, subject=subject
        )

    def head(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        auth: Auth = None,
        plain_http: bool = False,
        subject: str | None = None,
        accept: Collection[int] = (),
    ) -> Response:
        """Ask without taking the content; see `get_bytes`. Statuses in `accept` are returned instead of raised."""
        return self.exchange(
            "HEAD", url, limit=0, headers=headers, auth=auth, plain_http=plain_http, subject=subject, accept=accept
        )

    def exchange(
        self,
        method: str,
        url: str,
        *,
        limit: int,
        body: bytes | Iterable[bytes | memoryview] | None = None,
        headers: Mapping[str, str] | None = None,
        auth: Auth = None,
        plain_http: bool = False,
        subject: str | None = None,
        accept: Collection[int] = (),
        timeout_s: float | None = None,
        retries: int | None = None,
        is_followed: bool = True,
    ) -> Response:
        """Send a request and return its whole answer.

        Args:
            method: GET, HEAD, POST, PUT, PATCH or DELETE.
            url: where to.
            limit: the most bytes of a good answer's body that are accepted.
            body: what to send; anything but bytes must have a length, is sent once, and the request is not repeated.
            headers: to send.
            auth: for the URL's own origin.
            plain_http: allow http to another machine.
            subject: what it is about, for messages.
            accept: statuses that are returned although they are no success.
            timeout_s: how long the answer may take to begin, where the server has much to do.
            retries: instead of the settings'.
            is_followed: go where a redirect leads.

        Raises:
            HttpStatusError: the server answered with an error.
            FetchError: it cannot be reached, or does not answer.
            IntegrityError: the answer is larger than `limit`.
        """
        name = subject or urls.shown(url)
        repeatable = body is None or isinstance(body, bytes)

        def attempt() -> Response:
            with (
                self._heard(method, url, name),
                self._wire.open(
                    method,
                    url,
                    headers or {},
                    auth,
                    body,
                    plain_http=plain_http,
                    subject=name,
                    timeout_s=timeout_s,
                    is_followed=is_followed,
                ) as raw,
            ):
                status = raw.status_code
                is_good = 200 <= status < 300  # noqa: PLR2004 - HTTP's success
                if not is_good and status not in accept:
                    raise _meant(self._wire.error(raw, method, name), auth)
                data = b"".join(self._wire.read(raw, name, limit if is_good else limits.ERROR_BODY, strict=is_good))
                return Response(b"" if method == "HEAD" else data, raw.headers, raw.url, status)

        return self._retry(
            attempt, retries=(self.settings.retries if retries is None else retries) if repeatable else 0
        )

    def download(
        self,
        url: str,
        sink: Sink,
        *,
        size: int | None = None,
        headers: Mapping[str, str] | None = None,
        auth: Auth = None,
        plain_http: bool = False,
        subject: str | None = None,
    ) -> Response:
        """Stream content into `sink`, from byte ``sink.written`` on; after a cut it goes on where it stopped.

        A server that does not know ranges sends everything again; then what the sink already has is passed over. The
        content is not verified here: that is the sink's part.

        Args:
            url: where it is.
            sink: takes the bytes.
            size: the whole content's size, when it is known.
            headers: to send.
            auth: for the URL's own origin.
            plain_http: allow http to another machine.
            subject: what it is, for messages.

        Raises:
            HttpStatusError: the server answered with an error.
            FetchError: it cannot be reached, or stops answering.
            IntegrityError: the server's content has another size, or changed between two ranges.
        """
        name = subject or urls.shown(url)
        transfer = Transfer(url, sink, size, name)
        bound = limits.BLOB if size is None else size
        failures = 0
        while True:
            before = sink.written
            try:
                with (
                    self._heard("GET", url, name, is_going_on=partial(_has_come_on, sink, before)),
                    self._wire.open(
                        "GET", url, transfer.headers(headers or {}), auth, None, plain_http=plain_http, subject=name
                    ) as raw,
                ):
                    if raw.status_code not in (200, 206):
                        raise _meant(self._wire.error(raw, "GET", name), auth)
                    skip = transfer.begin(raw.headers, raw.status_code)
                    for chunk in self._wire.read(raw, name, bound - sink.written + skip, strict=True):
                        passed = min(skip, len(chunk))
                        skip -= passed
                        if passed < len(chunk):
                            sink.write(chunk[passed:])
                    transfer.end()
                    return Response(b"", raw.headers, raw.url, raw.status_code)
            except FetchError as error:
                if _has_come_on(sink, before):
                    failures = 0
                failures += 1
                self._wait(error, failures, self.settings.retries)
                if size is not None and 0 < size == sink.written:
                    return Response(b"", {}, url, 200)

    def _retry(self, attempt: Callable[[], Response], *, retries: int) -> Response:
        failures = 0
        while True:
            try:
                return attempt()
            except FetchError as error:
                failures += 1
                self._wait(error, failures, retries)

    @contextlib.contextmanager
    def _heard(
        self, method: str, url: str, name: str, is_going_on: Callable[[], bool] = lambda: False
    ) -> Iterator[None]:
        """Make a request, unless it is of no use any more; notice when nobody answers it."""
        if self._is_given_up.is_set():
            raise FetchError(f"{name}: given up")
        key, origin = (method, name), urls.origin(url)
        with self._lock:
            silent = self._silent.get(origin)
        if silent is not None:
            raise SilentError(silent.message, hint=silent.hint, is_last=True)
        try:
            yield
        except SilentError as error:
            with self._lock:
                self._silences[key] = 1 if is_going_on() else self._silences[key] + 1
                if self._silences[key] >= _SILENCES:
                    error.is_last = True
                    self._silent[origin] = error
            raise
        except HttpStatusError:
            self._forget_silence(key)
            raise
        self._forget_silence(key)

    def _forget_silence(self, key: tuple[str, str]) -> None:
        with self._lock:
            del self._silences[key]

    def _rest(self, seconds: float) -> None:
        self._is_given_up.wait(seconds)

    def pause(self, failures: int, url: str) -> None:
        """Wait as long as is due after so many failures of a server; not for one that is not asked any more."""
        with self._lock:
            is_over = urls.origin(url) in self._silent
        if not is_over:
            self._sleep(_backoff(failures))

    def _wait(self, error: FetchError, failures: int, retries: int) -> None:
        """Wait before attempt number `failures` + 1, or raise `error` when there is to be none."""
        is_last = isinstance(error, SilentError) and error.is_last
        if not error.temporary or is_last or failures > retries:
            raise error
        asked = answers.retry_after(error.headers) if isinstance(error, HttpStatusError) else None
        if asked is not None and asked > _MAX_WAIT_S:
            error.hint = f"the server asks to wait {asked:.0f} seconds; run the same command again after that"
            raise error
        pause = _backoff(failures) if asked is None else asked
        if pause >= 5:  # noqa: PLR2004 - seconds that a person notices
            self._progress.note(f"{error.message}; waiting {pause:.0f} s")
        self._sleep(pause)
        if self._is_given_up.is_set():
            raise error


def _meant(error: HttpStatusError, auth: Auth) -> FetchError:
    """Return what to raise for an answer: of a 401 the authorizer may know more."""
    if error.status != _UNAUTHORIZED or auth is None or isinstance(auth, str):
        return error
    return auth.refused(error)


def _has_come_on(sink: Sink, before: int) -> bool:
    return sink.written - before >= limits.CHUNK


def _backoff(failures: int) -> float:
    return min(30.0, 0.5 * 2.0 ** (failures - 1))
