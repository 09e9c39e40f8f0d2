"""A Python package index that takes uploads: the form that twine posts, and the pages that pip reads.

The form is PyPI's legacy upload API (devpi, pypiserver, Nexus and Artifactory take the same), the pages are the simple
repository API. An index has no drafts: what was uploaded is seen by its clients at once, and most
never let a file of the same name be replaced.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from email import message_from_string
from email.policy import compat32
from typing import Final
from urllib.parse import urlsplit

from airlift import digest as digests
from airlift import limits
from airlift.digest import Digest
from airlift.errors import DeliveryError, FetchError
from airlift.kinds.simple_page import ACCEPT, IndexFile, parse_page
from airlift.transport import urls
from airlift.transport.credentials import Credentials
from airlift.transport.http import HttpClient, HttpStatusError
from airlift.transport.upload import Whole

_NOT_FOUND: Final = 404
_SLOWEST: Final = 10 * limits.MIB
"""Bytes a second that an index is expected to settle at the end of an upload."""

_FIELDS: Final = {"classifier": "classifiers", "project_url": "project_urls"}
"""Where the form's name of a METADATA field is not the field's own in lower case (twine, `PackageMetadata`)."""

_HINTS: Final = {
    401: "give python.username and python.password_file in site.yaml, or mend them: a password may have changed",
    403: "the account may not upload there, or the index does not let a file be replaced",
    404: "python.upload in site.yaml is the address that twine would upload to",
    405: "python.upload in site.yaml is the address that twine would upload to, not the one that pip reads",
    413: "the index, or a proxy in front of it, limits the size of requests",
}


@dataclass(frozen=True, slots=True)
class Wheel:
    """A wheel that is to be uploaded.

    Attributes:
        project: its normalised name.
        version: its version.
        filename: its name.
        digest: of its bytes.
        size: in bytes.
    """

    project: str
    version: str
    filename: str
    digest: Digest
    size: int


class PackageIndex:
    """One index.

    Args:
        upload: where files are posted.
        pages: below it lie the pages of the projects.
        http: the connections.
        credentials: shown to both, as Basic.
    """

    def __init__(self, upload: str, pages: str, *, http: HttpClient, credentials: Credentials | None) -> None:
        self.name = urlsplit(upload).netloc
        self._upload = upload
        self._pages = pages.rstrip("/")
        self._http = http
        self._auth = None if credentials is None else urls.basic(credentials.username, credentials.password)

    def give_up(self) -> None:
        """See `HttpClient.give_up`."""
        self._http.give_up()

    def files(self, project: str) -> tuple[IndexFile, ...]:
        """Return what the index has of a project.

        Raises:
            DeliveryError: it does not answer, or not with a page.
        """
        page = f"{self._pages}/{project}/"
        with self._delivering():
            try:
                answer = self._http.get_bytes(
                    page,
                    limit=limits.PROJECT_PAGE,
                    headers={"Accept": ACCEPT},
                    auth=self._auth_of(page),
                    plain_http=True,
                    subject=f"{self.name}, {project}",
                )
            except HttpStatusError as error:
                if error.status == _NOT_FOUND:
                    return ()
                raise
            return parse_page(
                answer.body, answer.headers.get("Content-Type", ""), answer.url, subject=f"{self.name}, {project}"
            )

    def upload(self, wheel: Wheel, metadata: bytes, chunks: Callable[[], Iterable[bytes | memoryview]]) -> None:
        """Give a wheel to the index; nothing when it has it already.

        Args:
            wheel: what it is.
            metadata: its METADATA, checked; the form repeats it.
            chunks: yields its bytes from the beginning; called again for another attempt.

        Raises:
            DeliveryError: the index refuses.
            IntegrityError: the chunks are not `wheel.size` bytes.
        """
        failures = 0
        while True:
            try:
                with self._delivering():
                    self._post(wheel, metadata, chunks())
            except DeliveryError as error:
                # After a lost answer it may be there, and that is what counts.
                if self._has(wheel):
                    return
                failures += 1
                if not error.temporary or failures > self._http.settings.retries:
                    raise
                self._http.pause(failures, self._upload)
            else:
                return

    def _has(self, wheel: Wheel) -> bool:
        with contextlib.suppress(DeliveryError):
            return any(
                file.filename == wheel.filename and file.sha256 == wheel.digest for file in self.files(wheel.project)
            )
        return False

    def _post(self, wheel: Wheel, metadata: bytes, chunks: Iterable[bytes | memoryview]) -> None:
        boundary = f"airlift-{digests.hex_of(wheel.digest)}"
        fields = [
            (":action", "file_upload"),
            ("protocol_version", "1"),
            ("filetype", "bdist_wheel"),
            ("pyversion", wheel.filename.removesuffix(".whl").split("-")[-3]),
            ("sha256_digest", digests.hex_of(wheel.digest)),
            *form_fields(metadata),
        ]
        head = "".join(_part(boundary, f'name="{name}"', value) for name, value in fields)
        head += f'--{boundary}\r\nContent-Disposition: form-data; name="content"; filename="{wheel.filename}"\r\n'
        before = f"{head}Content-Type: application/octet-stream\r\n\r\n".encode()
        after = f"\r\n--{boundary}--\r\n".encode()
        name = f"{self.name}, {wheel.filename}"
        self._http.exchange(
            "POST",
            self._upload,
            limit=limits.ERROR_BODY,
            body=Whole(name, len(before) + wheel.size + len(after), itertools.chain([before], chunks, [after])),
            headers={"Content-Type": f"multipart/form-data; boundary={boundary}"},
            auth=self._auth,
            plain_http=True,
            subject=name,
            timeout_s=max(120, self._http.settings.timeout_s) + wheel.size / _SLOWEST,
        )

    def _auth_of(self, page: str) -> str | None:
        return self._auth if urls.origin(page) == urls.origin(self._upload) else None

    @contextlib.contextmanager
    def _delivering(self) -> Iterator[None]:
        try:
            yield
        except FetchError as error:
            hint = _HINTS.get(error.status, error.hint) if isinstance(error, HttpStatusError) else error.hint
            raise DeliveryError(error.message, mirror=self.name, temporary=error.temporary, hint=hint) from None


def form_fields(metadata: bytes) -> Iterator[tuple[str, str]]:
    """Yield METADATA's fields as the form has them, the description last.

    Args:
        metadata: the file (core metadata specification; UTF-8).
    """
    message = message_from_string(metadata.decode("utf-8", "replace"), policy=compat32)
    for name, value in message.raw_items():
        key = name.lower().replace("-", "_")
        yield _FIELDS.get(key, key), str(value)
    body = message.get_payload()
    if isinstance(body, str) and body.strip():
        yield "description", body


def _part(boundary: str, disposition: str, value: str) -> str:
    return f"--{boundary}\r\nContent-Disposition: form-data; {disposition}\r\n\r\n{value}\r\n"
