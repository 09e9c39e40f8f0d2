from __future__ import annotations

import contextlib
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packaging.utils import canonicalize_name

from airlift.errors import IntegrityError
from airlift.kinds.simple_page import parse_page
from airlift.kinds.wheels import check_members, parse_filename, parse_metadata, read_metadata
from airlift.site.simple_pages import HTML, JSON, choose, project
from tests.support.indexes import make_wheel

pytestmark = pytest.mark.property

NAME = parse_filename("acme-1.0-py3-none-any.whl")
WHEEL = make_wheel("acme", "1.0", requires=["x>=1"], payload=b"payload" * 50)


@given(st.text(max_size=60))
def test_any_text_is_a_wheel_name_or_refused(text: str) -> None:
    try:
        name = parse_filename(text)
    except IntegrityError:
        return
    assert name.filename == text
    assert "/" not in text
    assert name.project == canonicalize_name(name.project)


@given(st.lists(st.text(alphabet="aAbB./\\:\x00", max_size=6), max_size=6))
def test_accepted_members_stay_inside_and_apart(names: list[str]) -> None:
    try:
        check_members(names, subject="x")
    except IntegrityError:
        return
    for name in names:
        parts = name.rstrip("/").split("/")
        assert not {"", ".", ".."} & set(parts)
        assert "\\" not in name
    assert len({name.rstrip("/").casefold() for name in names}) >= len({name.rstrip("/") for name in names})


@settings(max_examples=300)
@given(st.data())
def test_a_damaged_wheel_is_read_right_or_refused(data: st.DataObject) -> None:
    damaged = bytearray(WHEEL)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        text = read_metadata(io.BytesIO(bytes(damaged)), wheel=NAME)
        parse_metadata(text, wheel=NAME)
    except IntegrityError:
        pass


@given(st.binary(max_size=200))
def test_any_bytes_are_metadata_or_refused(data: bytes) -> None:
    with contextlib.suppress(IntegrityError):
        parse_metadata(data, wheel=NAME)


@given(st.binary(max_size=300), st.sampled_from([JSON, HTML, "text/html", "application/json", "x/y"]))
def test_any_bytes_are_a_page_or_refused(body: bytes, kind: str) -> None:
    with contextlib.suppress(IntegrityError):
        parse_page(body, kind, "https://index.example/simple/acme/", subject="acme")


@given(st.text(max_size=100))
def test_any_accept_header_is_answered(text: str) -> None:
    assert choose(text) in (None, JSON, HTML, "text/html")


@given(st.text(st.characters(codec="utf-8"), max_size=40), st.text(st.characters(codec="utf-8"), max_size=40))
def test_what_a_page_carries_cannot_break_out_of_it(reason: str, python: str) -> None:
    value = {
        "digest": "sha256:" + "a" * 64,
        "filename": "acme-1.0-py3-none-any.whl",
        "size": 1,
        "version": "1.0",
        "metadata": "sha256:" + "b" * 64,
        "yanked": reason,
        "requires-python": python,
    }
    for kind in (JSON, HTML):
        (file,) = parse_page(project("acme", [value], kind), kind, "https://s.example/simple/acme/", subject="acme")
        assert file.sha256 == "sha256:" + "a" * 64
        assert file.yanked is not None
        assert file.yanked.split() == " ".join(reason.split())[:1024].split()
