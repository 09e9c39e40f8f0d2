"""Values as Helm reads them: compared with what the real one keeps in its record."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airlift.errors import DeployError
from airlift.site.deploy import content, helm_values
from tests.support.charts import chart
from tests.support.helm_records import record

CHART = chart("app", files={"templates/_x.tpl": "x"})
SCALARS = """\
yes y No n on OFF tRue ~ null Null 010 -010 00 0777 0o17 0O17 0o9 0x1F -0x1F 0X1f 0x 0b101 0B11 0b2 08 1:30 190:20:30
1e3 1e+3 1e-7 1e400 1. .5 +.5 +12 1.0 0.1 1e e3 1_000 1__0 _1 1_ 0_7 1_e3 .5_ ._5 .1_2e3 .1__2 .0_ 0x_1 1,000 2024-01-01 = <<
2001-12-14t21:59:43.10-05:00 9223372036854775808 -9223372036854775808 12345678901234567890 99999999999999999999
0xFFFFFFFFFFFFFFFFF "yes" '010' "5" !!str|yes !!str|5 !!int|"5" !!float|3 !!binary|aGVsbG8= !x|yes é
"""
DOCUMENTS = [
    "1: a\n1.5: b\ntrue: c\n0x10: d\nyes: e\n012: f\n1e3: g\n1e21: h\n",
    "az: &q {b: 1}\nbb: {<<: *q, c: 2}\nbc: *q\n",
    "bm: {<<: {a: 1}, a: 2}\n",
    "bn: {a: 2, <<: [{a: 1, b: 3}, {b: 4, c: 5}]}\n",
    "a: 1\na: 2\n",
    "bd: [1, yes, {n: no}]\nempty:\nlist: []\nmap: {}\ntext: |\n  yes\n",
    "# nothing\n",
]


def same(text: str) -> None:
    assert list(helm_values.differing(helm_values.read(text, subject="x"), record(CHART, text).get("config", {}))) == []


def test_every_scalar_is_read_as_helm_reads_it() -> None:
    same("".join(f"k{number}: {text.replace('|', ' ')}\n" for number, text in enumerate(SCALARS.split())))


@pytest.mark.parametrize("text", DOCUMENTS)
def test_every_document_is_read_as_helm_reads_it(text: str) -> None:
    same(text)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.text("0123456789_xXoObBeE.+-:tTrRuUnNyYsS~", min_size=1, max_size=8), min_size=40, max_size=80))
def test_what_looks_like_a_number_or_a_word_is_read_as_helm_reads_it(scalars: list[str]) -> None:
    plain = [text for text in scalars if not text.startswith(("-", ":")) and ":" not in text and text.strip("-.")]
    same("".join(f"k{number}: {text}\n" for number, text in enumerate(plain)))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[1]\n", "x: not a mapping"),
        ("a: {\n", "x: not YAML: "),
        ("? [1]\n: 2\n", "x: a key is not plain text"),
        ("? ~\n: 2\n", "x: a key is null"),
        ("a: {<<: 1}\n", "x: << merges something that is no mapping"),
        ("a: " + "[" * 150 + "]" * 150 + "\n", "x: the values are nested too deeply"),
        (
            "a: &a [0,0,0,0,0,0,0,0,0,0]\n"
            + "".join(f"{new}: &{new} [{','.join([f'*{old}'] * 10)}]\n" for old, new in pairwise("abcdef")),
            "or add up to too much",
        ),
    ],
)
def test_what_is_no_values_is_refused(text: str, said: str) -> None:
    with pytest.raises(DeployError) as caught:
        helm_values.read(text, subject="x")

    assert said in caught.value.message


@pytest.mark.parametrize(
    ("one", "other", "paths"),
    [
        ({"a": {"b": [1, 2]}}, {"a": {"b": [1, 3]}}, ["a.b[1]"]),
        ({"a": {"b": [1, 2]}}, {"a": {"b": [1]}}, ["a.b"]),
        ({"a": True}, {"a": 1}, ["a"]),
        ({"a": None}, {}, ["a"]),
        ({"a": {"b": None}}, {"a": {}}, ["a.b"]),
        ({"a": None}, {"a": None}, []),
        ({"a": 1}, {"a": 1.0}, []),
        ({"a": {}}, {"a": "x", "b": 2}, ["a", "b"]),
    ],
)
def test_differences_are_named_by_path(one: dict[str, Any], other: dict[str, Any], paths: list[str]) -> None:
    assert list(helm_values.differing(one, other)) == paths


def test_a_later_document_wins_as_in_helm() -> None:
    base, over = {"a": {"b": 1, "c": [1]}, "d": 1}, {"a": {"c": [2]}, "d": {"e": 1}}

    assert helm_values.merged(base, over) == {"a": {"b": 1, "c": [2]}, "d": {"e": 1}}


def test_a_charts_archive_and_helms_record_of_it_have_the_same_content() -> None:
    files: dict[str, bytes | str] = {
        "templates/a.yaml": b"\xef\xbb\xbf# {{ .Values.a }}",
        "templates/tests/t.yaml": "# t",
        "templates/NOTES.txt": "hi",
        "crds/c.yaml": "# c",
        "values.yaml": "a: 010\nb: {c: null}\n",
        "values.schema.json": "{}",
        "README.md": "x",
        "LICENSE": "",
        ".helmignore": "README.md",
        "Chart.lock": "dependencies: []\ndigest: sha256:0\ngenerated: '2024-01-01T00:00:00Z'\n",
    }
    archive = chart("app", files=files)
    found = content.of_archive(archive, subject="x")

    assert list(found.differing(content.of_record(record(archive), subject="x"))) == []
    assert set(found.files) == set(files) - {"values.yaml", "values.schema.json", "Chart.lock"}


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        ("appVersion: '1'\n", "appVersion: '2'\n", "Chart.yaml: appVersion"),
        ("annotations: {a: b}\n", "", "Chart.yaml: annotations"),
        (
            "dependencies: [{name: sub, version: 1.0.0, repository: ''}]\n",
            "dependencies: [{name: sub, version: ^1, repository: ''}]\n",
            "Chart.yaml: dependency sub",
        ),
    ],
)
def test_what_a_chart_says_of_itself_counts_too(one: str, other: str, said: str) -> None:
    inner = {"charts/sub/Chart.yaml": "apiVersion: v2\nname: sub\nversion: 1.0.0\n"}
    first, second = (chart("app", files=inner, more=more) for more in (one, other))
    wanted = content.of_archive(first, subject="x")

    assert list(wanted.differing(content.of_record(record(first), subject="x"))) == []
    assert list(wanted.differing(content.of_record(record(second), subject="x"))) == [said]
