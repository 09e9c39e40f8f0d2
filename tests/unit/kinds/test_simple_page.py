from __future__ import annotations

import json
from typing import Any

import pytest

from airlift.errors import IntegrityError
from airlift.kinds.simple_page import IndexFile, parse_page

URL = "https://index.example/simple/acme/"
HEX = "a" * 64
JSON = "application/vnd.pypi.simple.v1+json"


def html(body: str, *, url: str = URL) -> tuple[IndexFile, ...]:
    return parse_page(body.encode(), "text/html; charset=utf-8", url, subject="acme")


def page(*files: Any, version: str = "1.1") -> tuple[IndexFile, ...]:
    body = json.dumps({"meta": {"api-version": version}, "name": "acme", "files": files}).encode()
    return parse_page(body, JSON, URL, subject="acme")


def test_relative_and_absolute_addresses_are_resolved() -> None:
    found = html(
        f'<a href="../../f/acme-1%2Bcpu-py3-none-any.whl#sha256={HEX}">x</a><A HREF="https://cdn.example/b-1.tar.gz">y</A>'
    )
    assert [(file.filename, file.url) for file in found] == [
        ("acme-1+cpu-py3-none-any.whl", "https://index.example/f/acme-1%2Bcpu-py3-none-any.whl"),
        ("b-1.tar.gz", "https://cdn.example/b-1.tar.gz"),
    ]
    assert found[0].sha256 == f"sha256:{HEX}"
    assert found[1].sha256 is None


def test_a_base_address_counts() -> None:
    assert html('<base href="https://cdn.example/x/"><a href="a-1.whl">a</a>')[0].url == "https://cdn.example/x/a-1.whl"


def test_what_html_attributes_say_is_taken() -> None:
    (file,) = html(
        f'<a href="a-1.whl#sha256={HEX.upper()}" data-requires-python="&gt;=3.9" data-yanked="bad &amp; old"'
        f' data-dist-info-metadata="sha256={HEX}">a</a>'
    )
    assert file == IndexFile(
        "a-1.whl", URL + "a-1.whl", f"sha256:{HEX}", None, ">=3.9", "bad & old", None, True, f"sha256:{HEX}"
    )
    (bare,) = html('<a href="a-1.whl" data-yanked data-core-metadata="true">a</a>')
    assert (bare.yanked, bare.has_metadata, bare.metadata) == ("", True, None)
    (none,) = html('<a href="a-1.whl#md5=abc" data-core-metadata="false">a</a>')
    assert (none.yanked, none.has_metadata, none.sha256) == (None, False, None)


def test_what_json_says_is_taken() -> None:
    (file,) = page(
        {
            "filename": "a-1.whl",
            "url": "../../f/a-1.whl",
            "hashes": {"sha256": HEX, "md5": "x"},
            "size": 3,
            "requires-python": ">=3.9",
            "yanked": "bad",
            "upload-time": "2026-01-02T03:04:05.678Z",
            "core-metadata": {"sha256": HEX},
        }
    )
    assert file == IndexFile(
        "a-1.whl",
        "https://index.example/f/a-1.whl",
        f"sha256:{HEX}",
        3,
        ">=3.9",
        "bad",
        "2026-01-02T03:04:05.678Z",
        True,
        f"sha256:{HEX}",
    )


@pytest.mark.parametrize(
    "said",
    [{"size": -1}, {"size": True}, {"size": "7"}, {"hashes": {"sha256": "xyz"}}, {"hashes": None},
     {"upload-time": "yesterday"}, {"yanked": False}, {"core-metadata": False}, {"requires-python": None}],
)  # fmt: skip
def test_what_makes_no_sense_is_as_if_it_were_not_said(said: dict[str, Any]) -> None:
    (file,) = page({"filename": "a-1.whl", "url": "a-1.whl", **said})
    assert file == IndexFile("a-1.whl", URL + "a-1.whl")


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"<html>", JSON),
        (b"[]", JSON),
        (b'{"meta": {"api-version": "2.0"}, "files": []}', JSON),
        (b'{"meta": {"api-version": "1.0"}, "files": {}}', JSON),
        (b'{"meta": {"api-version": "1.0"}, "files": [{"filename": "x"}]}', JSON),
        (b'{"meta": {"api-version": "1.0"}, "files": [7]}', JSON),
        (b"[" * 100000, JSON),
        (b"\x89PNG", "image/png"),
    ],
)
def test_what_is_no_project_page_is_refused(body: bytes, kind: str) -> None:
    with pytest.raises(IntegrityError, match=r"^acme: expected "):
        parse_page(body, kind, URL, subject="acme")
