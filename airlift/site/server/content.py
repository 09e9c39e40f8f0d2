"""Answers with a blob: the file itself by sendfile, whole or a range, never changed on its way.

Every answer names the content by its digest (ETag), so a client that has it is told so, and a client that has half
of it can go on with the other half.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Mapping
from typing import Any, BinaryIO, Final
from urllib.parse import quote

from aiohttp import web

from airlift import fs
from airlift.errors import StoreError
from airlift.site.catalog import Catalog
from airlift.site.listing import Held

_RANGE: Final = re.compile(r"bytes=([0-9]{0,19})-([0-9]{0,19})", re.IGNORECASE)


async def blob_response(
    request: web.Request,
    catalog: Catalog,
    held: Held,
    *,
    headers: Mapping[str, str] | None = None,
    filename: str | None = None,
) -> web.StreamResponse:
    """Send the content of `held`.

    Args:
        request: GET or HEAD; ``Range``, ``If-Range`` and ``If-None-Match`` are honoured.
        catalog: where the file is.
        held: what to send.
        headers: added to the answer; ``Content-Type`` and ``ETag`` replace ours.
        filename: what a browser is to save it as.

    Raises:
        StoreError: the file cannot be read, or is not whole.
    """
    answer = {"Content-Type": held.media_type, "ETag": f'"{held.digest}"', **(headers or {})}
    answer["Accept-Ranges"] = "bytes"
    if filename is not None:
        answer["Content-Disposition"] = f"attachment; filename*=UTF-8''{quote(filename, safe='')}"
    if is_known(request, answer["ETag"]):
        return web.Response(status=304, headers={key: answer[key] for key in answer if key != "Content-Type"})
    try:
        file = catalog.path(held.digest).open("rb")
    except OSError as error:
        raise fs.store_error("serving", error) from None
    with file:
        # Of a shorter file the answer would end early, and the next one on this connection be taken for its rest.
        if (size := os.fstat(file.fileno()).st_size) != held.size:
            raise StoreError(f"serving {held.digest}: the store has {size} of its {held.size} bytes")
        start, end = 0, held.size
        wanted = _range(request, answer["ETag"], held.size)
        if wanted is not None:
            start, end = wanted
            if start >= end:
                bound = {"Content-Range": f"bytes */{held.size}"}
                return web.Response(status=416, headers=bound, text="no such range\n")
            answer["Content-Range"] = f"bytes {start}-{end - 1}/{held.size}"
        response = web.StreamResponse(status=200 if wanted is None else 206, headers=answer)
        response.content_length = end - start
        await response.prepare(request)
        if request.method != "HEAD" and end > start:
            await _send(request, file, start, end - start)
        await response.write_eof()
        return response


def is_known(request: web.Request, etag: str) -> bool:
    """Say whether the client has the content with this ETag, or any (``If-None-Match``)."""
    known = request.if_none_match
    return known is not None and any(item.value in (etag.strip('"'), "*") for item in known)


def json_response(
    value: Any, *, status: int = 200, headers: Mapping[str, str] | None = None, content_type: str = "application/json"
) -> web.Response:
    """Send `value`; a HEAD gets the same headers."""
    # As a body, not as text: that would add a charset, which is no part of these types.
    body = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    return web.Response(body=body, status=status, headers={**(headers or {}), "Content-Type": content_type})


async def _send(request: web.Request, file: BinaryIO, offset: int, count: int) -> None:
    transport = request.transport
    if transport is None:
        raise ConnectionResetError("the client is gone")
    await asyncio.get_running_loop().sendfile(transport, file, offset, count)


def _range(request: web.Request, etag: str, size: int) -> tuple[int, int] | None:
    """Return first and behind-last byte; None for the whole. An empty range is one that does not exist."""
    text = request.headers.get("Range")
    if text is None or request.method == "HEAD" or request.headers.get("If-Range", etag) != etag:
        return None
    match = _RANGE.fullmatch(text.strip())
    if match is None or not (match[1] or match[2]):
        # Several ranges, or another unit: a server may always send the whole (RFC 9110, 14.2).
        return None
    if not match[1]:
        return max(0, size - int(match[2])), size
    start = int(match[1])
    end = min(size, int(match[2]) + 1) if match[2] else size
    if match[2] and int(match[2]) < start:
        return None
    return start, end
