from __future__ import annotations

import contextlib
import gzip
import unicodedata
from collections.abc import Iterable

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airlift.errors import IntegrityError
from airlift.kinds import chart_archive, chart_index, chart_pack, chart_yaml, charts, podspecs, semver
from tests.support.charts import chart

pytestmark = pytest.mark.property

_SEED = gzip.decompress(chart("app", "1.0.0", {"templates/a.yaml": "a: 1", "charts/b.tgz": chart("b")}))
_PART = st.text("abcXY.-_é", min_size=1, max_size=8).filter(
    lambda part: part not in (".", "..") and part == part.strip()
)
_PATH = st.lists(_PART, min_size=1, max_size=4).map("/".join)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_chart_or_an_integrity_error(data: bytes) -> None:
    for attempt in (data, gzip.compress(data)):
        with pytest.raises(IntegrityError):
            charts.read_archive(attempt, subject="x")


@settings(max_examples=300)
@given(st.integers(0, len(_SEED) - 1), st.integers(1, 255))
def test_a_flipped_byte_gives_a_chart_or_an_integrity_error(position: int, change: int) -> None:
    data = bytearray(_SEED)
    data[position] ^= change
    with contextlib.suppress(IntegrityError):
        charts.read_archive(chart_pack.stored_gzip(bytes(data)), subject="x")


def _folders(paths: Iterable[str]) -> set[str]:
    return {path[:end] for path in paths for end, char in enumerate(path) if char == "/"}


@given(st.dictionaries(_PATH, st.binary(max_size=2000), max_size=8))
def test_what_is_packed_is_read_back(files: dict[str, bytes]) -> None:
    files = {**files, "Chart.yaml": b"apiVersion: v2\nname: app\nversion: 1.0.0\n"}
    data = chart_pack.pack("app", files)
    assert data == chart_pack.pack("app", dict(reversed(files.items())))
    folded = {unicodedata.normalize("NFC", path).casefold() for path in files}
    folders = {path[:end] for path in folded for end, char in enumerate(path) if char == "/"}
    if len(folded) < len(files) or folded & folders or len(folders) < len(_folders(files)):
        with pytest.raises(IntegrityError, match="distinct names on every disk"):
            chart_archive.read(data, subject="x", budget=chart_archive.Budget())
    else:
        assert chart_archive.read(data, subject="x", budget=chart_archive.Budget()) == ("app", files)


@given(st.binary(max_size=300_000))
def test_stored_gzip_is_gzip(data: bytes) -> None:
    assert gzip.decompress(chart_pack.stored_gzip(data)) == data


@given(st.text("0123456789.x*v-+ ,<>=~^!|abc", max_size=40), st.text("0123456789.v-+ab", max_size=20))
def test_any_text_is_a_range_or_refused(wanted: str, version: str) -> None:
    with contextlib.suppress(ValueError):
        _ = semver.parse_version(version) in semver.parse_range(wanted)


@given(st.binary(max_size=300) | st.text("abc:- {}[]&*<!\"'\n#|>", max_size=200).map(str.encode))
def test_any_bytes_are_yaml_or_an_integrity_error(data: bytes) -> None:
    for read in (
        lambda: chart_yaml.load(data, subject="x", limit=1000),
        lambda: podspecs.find(data, subject="x"),
    ):
        with contextlib.suppress(IntegrityError):
            read()


_TEXT = st.text("ab: -#'\"\n{}[]&*|>%@", max_size=30)
_RELEASE = st.fixed_dictionaries(
    {"version": st.from_regex(r"[0-9]\.[0-9]\.[0-9]", fullmatch=True), "description": _TEXT},
    optional={"keywords": st.lists(_TEXT, max_size=3), "annotations": st.dictionaries(_TEXT, _TEXT, max_size=2)},
)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(
    st.dictionaries(
        st.sampled_from(["app", "app-extra", "web", "entries"]), st.lists(_RELEASE, min_size=1, max_size=3)
    ),
    st.booleans(),
    st.sampled_from([40, 80, 10_000]),
)
def test_a_charts_own_lines_say_what_the_whole_index_says(
    charts_of: dict[str, list[dict[str, object]]], flow: bool, width: int
) -> None:
    entries = {name: [{**item, "name": name} for item in items] for name, items in charts_of.items()}
    text = yaml.safe_dump(
        {"apiVersion": "v1", "entries": entries, "z": "end"}, width=width, allow_unicode=flow
    ).encode()
    for name in entries:
        cut = chart_index._cut(text, name)
        assert cut is None or cut == chart_index._whole(text, name, "x")
