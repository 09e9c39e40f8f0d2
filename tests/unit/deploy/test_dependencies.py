"""Charts with charts inside, against what the real helm keeps of them."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from airlift.site.deploy import content
from tests.support.charts import archive, chart
from tests.support.helm_records import record

SUB = {
    "charts/sub/Chart.yaml": "apiVersion: v2\nname: sub\nversion: 1.0.0\n",
    "charts/sub/values.yaml": "r: 1\ns: {t: 1, u: 2}\nexports: {out: {brought: 1}}\nglobal: {deep: 1}\n",
    "charts/sub/templates/x.yaml": "kind: ConfigMap\napiVersion: v1\n",
}
VALUES = "a: 1\nb: {c: 2, d: null}\nsub: {r: 3, s: {t: null}, new: [1]}\nglobal: {g: 1}\n"


def depending(values: str = VALUES, more: str = "", *, version: str = "1.0.0", **files: str) -> bytes:
    named = f"dependencies: [{{name: sub, version: {version}, repository: ''{more}}}]\n"
    return chart("app", files={**SUB, "values.yaml": values, **files}, more=named)


def differing(one: bytes, other: bytes, values: str = "") -> list[str]:
    """What a release that was made of another chart has that is not of one."""
    wanted, found = content.of_archive(one, subject="x"), content.of_record(record(other, values), subject="x")
    return list(wanted.differing(found))


@pytest.mark.parametrize(
    ("more", "values"),
    [
        ("", ""),
        ("", "a: 9\nb: null\nsub: {r: null, s: 5}\nglobal: {g: 7, h: 8}\nunknown: 1\n"),
        (", condition: sub.enabled", "sub: {enabled: false}\n"),
        (", condition: sub.enabled", "sub: {enabled: true}\n"),
        (", tags: [extra]", "tags: {extra: false}\n"),
        (", alias: other", ""),
        (", alias: other", "other: {r: 4}\n"),
        (", import-values: [out, {child: s, parent: b}]", ""),
    ],
)
def test_a_release_of_the_same_chart_is_the_same_whatever_its_values_switch(more: str, values: str) -> None:
    one = depending(more=more)

    assert differing(one, one, values) == []


def test_two_charts_of_one_kind_and_one_that_is_not_named_are_the_same_too() -> None:
    named = (
        "dependencies: [{name: sub, version: 1.0.0, alias: one}, {name: sub, version: 1.0.0, alias: two, tags: [t]}, "
        "{name: sub, version: 1.0.0}]\n"
    )
    inner = {
        "charts/more/Chart.yaml": "apiVersion: v2\nname: more\nversion: 1.0.0\n",
        "charts/more/values.yaml": "m: 1\n",
    }
    one = chart("app", files={**SUB, **inner, "values.yaml": f"{VALUES}two: {{r: 9}}\n"}, more=named)

    assert differing(one, one) == []
    assert differing(one, one, "tags: {t: false}\n") == []


def test_globals_that_reach_charts_inside_are_no_difference() -> None:
    one = depending("sub: {global: {deep: 2, g: 5}}\nglobal: {deep: 3}\n")

    assert differing(one, one) == []


def test_an_old_chart_names_its_dependencies_in_a_file_of_their_own() -> None:
    files = {
        "Chart.yaml": "apiVersion: v1\nname: app\nversion: 1.0.0\n",
        "requirements.yaml": "dependencies: [{name: sub, version: 1.0.0, alias: other, condition: other.on}]\n",
        "values.yaml": VALUES,
    }
    one = archive({**files, **SUB})

    assert differing(one, one) == []
    assert differing(one, one, "other: {on: false}\n") == []
    assert differing(one, archive({**files, **SUB, "values.yaml": "a: 1\n"})) == [
        "values.yaml: b",
        "values.yaml: global",
        "values.yaml: sub",
    ]


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (depending(VALUES.replace("a: 1", "a: 2")), ["values.yaml: a"]),
        (depending(VALUES.replace("a: 1", "a: 1\ngone: 1")), ["values.yaml: gone"]),
        (depending(VALUES.replace("r: 3", "r: 4")), ["values.yaml: sub.r"]),
        (depending(VALUES.replace("new: [1]", "new: [2]")), ["values.yaml: sub.new[0]"]),
        (depending(VALUES.replace("g: 1", "g: 2")), ["values.yaml: global.g"]),
        (depending(version="^1"), ["Chart.yaml: dependency sub"]),
        (depending(more=", alias: other"), ["Chart.yaml: dependency other", "Chart.yaml: dependency sub"]),
        (chart("app", files={**SUB, "values.yaml": VALUES}), ["Chart.yaml: dependency sub"]),
        (depending(**{"templates/more.yaml": "# more"}), ["templates/more.yaml"]),
    ],
)
def test_what_the_chart_itself_has_of_its_dependencies_and_defaults_is_compared(other: bytes, said: list[str]) -> None:
    found = differing(depending(), other)

    assert [line for line in found if not line.startswith("values.yaml: ") or line in said] == said


@pytest.mark.parametrize(
    ("more", "change", "said"),
    [
        (
            "",
            {"charts/sub/values.yaml": SUB["charts/sub/values.yaml"].replace("u: 2", "u: 3")},
            ["values.yaml: sub.s.u"],
        ),
        ("", {"charts/sub/values.yaml": "r: 1\ns: {t: 1, u: 2}\n"}, ["values.yaml: sub.exports"]),
        ("", {"values.yaml": VALUES.replace("r: 3", "r: 3, more: 1")}, ["values.yaml: sub.more"]),
        (
            ", alias: other",
            {"charts/sub/values.yaml": SUB["charts/sub/values.yaml"].replace("r: 1", "r: 2")},
            ["values.yaml: other.r"],
        ),
        (
            ", import-values: [out, {child: s, parent: b}]",
            {
                "charts/sub/values.yaml": SUB["charts/sub/values.yaml"]
                .replace("u: 2", "u: 3")
                .replace("brought: 1", "brought: 2")
            },
            [
                "values.yaml: b.u",
                "values.yaml: brought",
                "values.yaml: sub.exports.out.brought",
                "values.yaml: sub.s.u",
            ],
        ),
        (", import-values: [out]", {"values.yaml": VALUES.replace("a: 1", "a: 2")}, ["values.yaml: a"]),
        (", import-values: [out]", {"values.yaml": f"{VALUES}brought: 5\n"}, ["values.yaml: brought"]),
    ],
)
def test_defaults_of_charts_inside_and_what_is_imported_are_compared(
    more: str, change: Mapping[str, str], said: list[str]
) -> None:
    assert differing(depending(more=more), depending(more=more, **change)) == said
    # What somebody switches or sets when it is installed changes nothing about that.
    assert differing(depending(more=more), depending(more=more, **change), "sub: {r: 9}\nother: {r: 9}\na: 8\n") == said


def packed(**change: str) -> bytes:
    """The chart inside as an archive, with one of its own in a folder; values can switch that off."""
    deep = {
        "charts/deep/Chart.yaml": "apiVersion: v2\nname: deep\nversion: 0.1.0\n",
        "charts/deep/values.yaml": "x: 1\nexports: {up: {risen: 1}}\n",
        "charts/deep/templates/cm.yaml": "kind: ConfigMap\napiVersion: v1\nmetadata: {name: deep}\n",
    }
    named = "dependencies: [{name: deep, version: 0.1.0, repository: '', condition: deep.enabled}]\n"
    inner = chart("sub", files={**deep, "values.yaml": "r: 1\ns: {u: 2}\ndeep: {own: 1}\n", **change}, more=named)
    lock = "dependencies: [{name: sub, version: 1.0.0, repository: ''}]\ndigest: 'sha256:0'\n"
    files = {"charts/sub-1.0.0.tgz": inner, "Chart.lock": lock, "values.yaml": "a: 1\nsub: {r: 3}\n"}
    more = "dependencies: [{name: sub, version: 1.0.0, repository: '', import-values: [{child: s, parent: t}]}]\n"
    return chart("app", files=files, more=more)


@pytest.mark.parametrize(
    "values", ["", "sub: {deep: {enabled: false}}\n", "sub: {deep: {enabled: true, z: 1}, s: {u: 9}}\n"]
)
def test_a_chart_packed_inside_is_compared_whatever_is_switched_deeper_inside(values: str) -> None:
    one = packed()

    assert differing(one, one, values) == []
    assert differing(one, packed(**{"values.yaml": "r: 1\ns: {u: 7}\ndeep: {own: 1}\n"}), values) == [
        "values.yaml: sub.s.u",
        "values.yaml: t.u",
    ]
    assert differing(one, packed(**{"values.yaml": "r: 1\ns: {u: 2}\ndeep: {own: 2}\n"}), values) == [
        "values.yaml: sub.deep.own"
    ]


def test_what_chart_lock_pins_is_compared() -> None:
    pinned = "dependencies: [{name: sub, version: 1.0.0, repository: ''}]\ndigest: 'sha256:0'\n"
    one, same, other = (
        depending(version="^1", **({} if lock is None else {"Chart.lock": lock}))
        for lock in (pinned, f"{pinned}generated: '2026-01-01T00:00:00Z'\n", pinned.replace("1.0.0", "1.0.1"))
    )

    assert differing(one, same) == []
    assert differing(one, other) == ["Chart.lock: sub"]
    assert differing(one, depending(version="^1")) == ["Chart.lock: sub"]


def test_a_release_with_all_dependencies_off_keeps_the_defaults_of_the_chart_alone() -> None:
    inner = {
        "charts/more/Chart.yaml": "apiVersion: v2\nname: more\nversion: 1.0.0\n",
        "charts/more/values.yaml": "m: 1\n",
        "templates/cm.yaml": "kind: ConfigMap\napiVersion: v1\nmetadata: {name: own}\n",
    }
    one = depending(more=", condition: sub.enabled", **inner)

    assert differing(one, one, "sub: {enabled: false}\n") == []
    assert differing(one, one, "sub: {enabled: true}\n") == []


@pytest.mark.parametrize(
    "change",
    [
        {"charts/sub/templates/x.yaml": "kind: ConfigMap\napiVersion: v1\n# more\n"},
        {"charts/sub/values.yaml": SUB["charts/sub/values.yaml"].replace("global: {deep: 1}", "global: {deep: 2}")},
    ],
)
def test_what_helms_record_does_not_have_or_mixes_beyond_telling_is_not_compared(change: Mapping[str, str]) -> None:
    assert differing(depending(), depending(**change)) == []
