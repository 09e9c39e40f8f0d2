"""What a server's answer says beside its content: how long to wait, which range came, what went wrong."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)")
_EXCERPT = 500
_DISK = ("no space left on device", "disk quota exceeded", "read-only file system")


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that ``Retry-After`` asks for, given as seconds or as a date, or None.

    A date is compared with the answer's own ``Date``: the server's clock decides, not ours.
    """
    value = (headers.get("Retry-After") or "").strip()
    if re.fullmatch(r"[0-9]{1,9}", value):
        return float(value)
    try:
        until, sent = parsedate_to_datetime(value), parsedate_to_datetime(headers.get("Date") or "")
        return max(0.0, (until - sent).total_seconds())
    except (ValueError, TypeError):
        return None


def content_range(headers: Mapping[str, str]) -> tuple[int, int, int | None] | None:
    """Return first byte, last byte and total (None for ``*``) of ``Content-Range``, or None when absent or odd."""
    match = _RANGE.fullmatch((headers.get("Content-Range") or "").strip())
    if match is None:
        return None
    first, last, total = match.groups()
    return int(first), int(last), None if total == "*" else int(total)


def content_length(headers: Mapping[str, str]) -> int | None:
    """Return ``Content-Length``, or None when it is absent or odd."""
    value = (headers.get("Content-Length") or "").strip()
    return int(value) if re.fullmatch(r"[0-9]{1,18}", value) else None


def strong_etag(headers: Mapping[str, str]) -> str | None:
    """Return the ``ETag`` when it is a strong one."""
    value = (headers.get("ETag") or "").strip()
    return value if value.startswith('"') else None


def excerpt(body: bytes) -> str:
    """Return what the server itself says is wrong, in one short line, or nothing.

    Understands the error documents of registries (``errors[].code, .message``) and of plain JSON services.
    """
    return line(_said(body))


def disk_fault(body: bytes) -> str | None:
    """Return what the server says is wrong with its disk (full, over quota, read-only), or None."""
    said = _said(body).lower()
    return next((words for words in _DISK if words in said), None)


def _said(body: bytes) -> str:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        text = body[:_EXCERPT].decode("utf-8", "replace")
        return "" if text.lstrip().startswith("<") else text
    if isinstance(value, dict):
        errors = value.get("errors")
        if isinstance(errors, list):
            return "; ".join(_error(item) for item in errors[:3])
        for key in ("error_description", "message", "details", "error", "detail"):
            if isinstance(value.get(key), str):
                return str(value[key])
    return ""


def _error(item: object) -> str:
    if not isinstance(item, dict):
        return str(item)
    words = [str(item[key]) for key in ("code", "message") if item.get(key)]
    detail = item.get("detail")
    if isinstance(detail, dict):
        # Quay's own words are there, and the message is the same for all.
        inner = detail.get("message")
        detail = inner if isinstance(inner, str) else _of_storage(detail.get("Enclosed"))
    if isinstance(detail, str) and detail:
        words.append(f"({detail})")
    return " ".join(words)


def _of_storage(cause: object) -> str:
    """Return what docker-registry gives of a failed call of its storage: the call, the path, the error's number."""
    if not isinstance(cause, dict) or not isinstance(cause.get("Err"), int) or not 0 < cause["Err"] < 1000:  # noqa: PLR2004 - errno
        return ""
    return f"{os.strerror(cause['Err']).lower()}: {cause.get('Op')} {cause.get('Path')}"


def line(text: str) -> str:
    """Return what a server said, in one short line without control characters."""
    printable = "".join(c if c.isprintable() else " " for c in text)
    return " ".join(printable.split())[:_EXCERPT]
