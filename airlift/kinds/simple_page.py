"""Project pages of a package index: HTML (PEP 503, 592, 658, 714) and JSON (PEP 691, 700), read without a network.

What a page does not say is None; an index may leave out sizes, digests, Requires-Python and METADATA.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any, Final
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

from airlift import digest as digests
from airlift import limits
from airlift.digest import Digest
from airlift.errors import IntegrityError

ACCEPT: Final = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"
_HEX = re.compile(r"[0-9a-fA-F]{64}")
_UPLOAD_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]{8,18}Z")


@dataclass(frozen=True, slots=True)
class IndexFile:
    """One distribution file of a project, as its page says.

    Attributes:
        filename: its name.
        url: absolute, without fragment.
        sha256: digest of the file.
        size: in bytes.
        requires_python: as written.
        yanked: the reason (maybe empty), or None when it is not yanked.
        upload_time: as written.
        has_metadata: whether ``<url>.metadata`` is announced.
        metadata: digest of that.
    """

    filename: str
    url: str = field(repr=False)
    sha256: Digest | None = None
    size: int | None = None
    requires_python: str | None = None
    yanked: str | None = None
    upload_time: str | None = None
    has_metadata: bool = False
    metadata: Digest | None = None


def parse_page(body: bytes, content_type: str, url: str, *, subject: str) -> tuple[IndexFile, ...]:
    """Read a project's page.

    Args:
        body: the page.
        content_type: as the server said it.
        url: where it came from at last, for relative addresses.
        subject: for messages.

    Raises:
        IntegrityError: it is no such page.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if kind in ("application/vnd.pypi.simple.v1+json", "application/json"):
        found = _from_json(body, url, subject)
    elif kind in ("application/vnd.pypi.simple.v1+html", "text/html", "application/xhtml+xml", ""):
        found = _from_html(body, url)
    else:
        raise IntegrityError(subject, expected="a project page (JSON or HTML)", actual=kind[:100])
    files = tuple(item for item in found if item.filename and "/" not in item.filename)
    if len(files) > limits.ARTIFACTS:
        raise IntegrityError(subject, expected=f"at most {limits.ARTIFACTS} files", actual=f"{len(files)}")
    return files


def _from_json(body: bytes, url: str, subject: str) -> Iterator[IndexFile]:
    try:
        page = json.loads(body)
        version = str(page["meta"]["api-version"])
        files = page["files"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise IntegrityError(subject, expected="a project page in JSON", actual=repr(body[:40])) from None
    if version.partition(".")[0] != "1" or not isinstance(files, list):
        raise IntegrityError(subject, expected="a project page of API version 1", actual=version[:40])
    for item in files:
        if not isinstance(item, dict) or not all(isinstance(item.get(key), str) for key in ("filename", "url")):
            raise IntegrityError(subject, expected="files with filename and url", actual=repr(item)[:100])
        yield _json_file(item, url)


def _json_file(item: Mapping[str, Any], url: str) -> IndexFile:
    hashes = item.get("hashes")
    size, yanked, core = item.get("size"), item.get("yanked"), item.get("core-metadata")
    reason = yanked if isinstance(yanked, str) else ""
    return IndexFile(
        item["filename"],
        urldefrag(urljoin(url, item["url"])).url,
        _digest(hashes.get("sha256")) if isinstance(hashes, dict) else None,
        size if isinstance(size, int) and not isinstance(size, bool) and 0 <= size <= limits.BLOB else None,
        _text(item.get("requires-python")),
        _text(reason, empty="") if yanked not in (None, False) else None,
        _time(item.get("upload-time")),
        core not in (None, False),
        _digest(core.get("sha256")) if isinstance(core, dict) else None,
    )


def _from_html(body: bytes, url: str) -> Iterator[IndexFile]:
    reader = _Links()
    reader.feed(body.decode("utf-8", "replace"))
    reader.close()
    base = urljoin(url, reader.base) if reader.base else url
    for attributes in reader.links:
        address, fragment = urldefrag(urljoin(base, attributes["href"] or ""))
        name, _, value = fragment.partition("=")
        core = attributes.get("data-core-metadata", attributes.get("data-dist-info-metadata"))
        has_core = core is not None and core.lower() != "false"
        yield IndexFile(
            unquote(urlsplit(address).path.rpartition("/")[2]),
            address,
            _digest(value) if name == "sha256" else None,
            None,
            _text(attributes.get("data-requires-python")),
            _text(attributes["data-yanked"], empty="") if "data-yanked" in attributes else None,
            None,
            has_core,
            _digest((core or "").removeprefix("sha256=")) if has_core else None,
        )


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.base: str | None = None
        self.links: list[dict[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take anchors, and the first base."""
        found = dict(attrs)
        if tag == "a" and found.get("href"):
            self.links.append(found)
        elif tag == "base" and self.base is None:
            self.base = found.get("href")


def _digest(value: object) -> Digest | None:
    if not isinstance(value, str) or _HEX.fullmatch(value) is None:
        return None
    return digests.from_hex(value.lower())


def _text(value: object, *, empty: str | None = None) -> str | None:
    text = " ".join(value.split())[: limits.NAME] if isinstance(value, str) else ""
    # JSON can spell lone surrogates, which have no UTF-8.
    return text.encode("utf-8", "replace").decode() or empty


def _time(value: object) -> str | None:
    return value if isinstance(value, str) and _UPLOAD_TIME.fullmatch(value) else None
