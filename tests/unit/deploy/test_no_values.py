"""A release whose drop has no values: Helm keeps those of the revision before unless it is given one."""

from __future__ import annotations

import json

import pytest
import yaml

from airlift.errors import DeployError
from airlift.site.deploy import values
from airlift.site.deploy.helmchart import MANIFESTS
from tests.support.charts import chart
from tests.support.drops import Drops
from tests.support.helm_records import record

SHOWS = {"templates/all.yaml": "kind: ConfigMap\napiVersion: v1\ndata: {v: {{ toJson .Values | quote }}}\n"}


@pytest.mark.parametrize(
    ("defaults", "said"),
    [
        ("a: 1\nb: 2\n", {"a": 1}),
        ("\ufeffa: x\n", {"a": "x"}),
        ("off:\nb: {c: null, d: {e: '010'}, f: 1}\n", {"b": {"f": 1}}),
        ("list: [1, {a: 2}]\nempty: {}\n", {"list": [1, {"a": 2}]}),
        ("empty: {}\n", {"empty": {}}),
        ("x: &x {w: 010}\nz: {<<: *x, q: 2}\n", {"x": {"w": 8}}),
        ("q: 1\n<<: {q: 2}\n", None),
        ("on: 1\n", {"true": 1}),
        ("at: 1:30\n", {"at": "1:30"}),
        ("a: 1\na: 2\n", {"a": 2}),
        ("a: null\n", None),
        ("# nothing\n", None),
        ("", None),
    ],
)
def test_one_default_of_the_chart_is_said_again_and_changes_nothing(defaults: str, said: object) -> None:
    archive = chart("app", files={"values.yaml": defaults, **SHOWS})
    text = values.said_again(defaults.removeprefix("\ufeff").encode(), release="web")

    assert (text != "") == (said is not None)
    made = record(archive, text)
    assert (made.get("config") or {}) == (said or {})
    assert made["manifest"] == record(archive)["manifest"]


@pytest.mark.parametrize("files", [{}, {"v.yaml": b"{}\n"}, {"v.yaml": b"# none\n", "w.yaml": b"{}"}])
def test_the_manifest_has_it_where_no_file_has_a_value(drops: Drops, deploy, root, files: dict[str, bytes]) -> None:
    drops.chart("site", "1.0.0", [], archive=chart("site", "1.0.0", {"values.yaml": "replicas: 3\nb: 1\n"}))
    drops.release("site", **files)

    deploy()

    spec = yaml.safe_load((root / MANIFESTS / "airlift-site.yaml").read_text())["spec"]
    assert spec["valuesContent"] == (
        "# The drop has no values. Helm would then keep those of the revision before: this is a default of the chart.\n"
        "replicas: 3\n"
    )


def test_a_chart_without_defaults_gets_none(drops: Drops, deploy, root) -> None:
    drops.chart("site", "1.0.0", [])
    drops.release("site")

    deploy()

    assert "valuesContent" not in (root / MANIFESTS / "airlift-site.yaml").read_text()


def test_defaults_that_are_no_mapping_are_refused(drops: Drops, deploy, root) -> None:
    drops.chart("site", "1.0.0", [], archive=chart("site", "1.0.0", {"values.yaml": json.dumps([1])}))
    drops.release("site")

    with pytest.raises(DeployError, match=r"site: values file values\.yaml is not a mapping"):
        deploy()
    assert not root.exists()


def test_defaults_that_are_named_again_and_again_are_refused_in_bounded_time() -> None:
    lines = ["a0: &a0 {x: {}}", *(f"a{n}: &a{n} {{p: *a{n - 1}, q: *a{n - 1}}}" for n in range(1, 60))]

    with pytest.raises(DeployError, match=r"^web: values\.yaml takes more than 100000 steps to read$"):
        values.said_again("\n".join(lines).encode(), release="web")
