from __future__ import annotations

import json
from pathlib import Path

import pytest

from airlift.errors import IntegrityError, ResolveError
from airlift.kinds import chart_index
from tests.support.chart_servers import helm
from tests.support.charts import chart

_HELM = b"""# a comment
apiVersion: v1
entries:
  app:
  - apiVersion: v2
    created: "2024-01-02T03:04:05Z"
    description: |-
      several lines

      with: colons
    # a comment
    name: app
    urls:
    - https://example.com/app-1.1.0.tgz
    version: 1.1.0
  - name: app
    urls: [app-1.0.0.tgz]
    version: 1.0.0
  app-extra:
  - name: app-extra
    version: 9.0.0
  zoo:
  - name: zoo
    version: 3.0.0
generated: "2024-01-02T03:04:05Z"
"""


def _both(data: bytes, name: str) -> tuple[dict[str, object] | None, dict[str, object]]:
    cut = chart_index._cut(data, name)
    whole = chart_index._whole(data, name, "x")
    return cut if cut is None else {e["version"]: e for e in cut}, {e["version"]: e for e in whole}


@pytest.mark.parametrize("name", ["app", "app-extra", "zoo"])
@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
def test_a_charts_own_lines_say_what_the_whole_says(name: str, newline: bytes) -> None:
    cut, whole = _both(_HELM.replace(b"\n", newline), name)
    assert cut == whole
    assert list(chart_index.releases(_HELM, name, subject="x")) == list(whole)


def test_what_helm_writes_is_cut(tmp_path: Path) -> None:
    for name, version in (("app", "1.0.0"), ("app", "1.1.0"), ("web", "2.0.0")):
        more = "description: 'long text: with - dashes and\n  entries:\n  app: and more'\n"
        (tmp_path / f"{name}-{version}.tgz").write_bytes(chart(name, version, more=more))
    helm("repo", "index", tmp_path)
    cut, whole = _both((tmp_path / "index.yaml").read_bytes(), "app")
    assert cut == whole
    assert set(whole) == {"1.0.0", "1.1.0"}


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({"apiVersion": "v1", "entries": {"app": [{"name": "app", "version": "1.0.0"}]}}),
        "apiVersion: v1\nentries: {app: [{name: app, version: 1.0.0}]}\n",
        'apiVersion: v1\nentries:\n  "app":\n    - name: app\n      version: 1.0.0\n',
        "apiVersion: v1\nentries:\n    app:\n      - {name: app, version: 1.0.0}\n",
        (
            "apiVersion: v1\nentries:\n  other:\n  - name: other\n    sub:\n      app:\n      - {name: app, version: 6.6.6}\n"
            "  app:\n  - {name: app, version: 1.0.0}\n"
        ),
    ],
)
def test_other_forms_are_read_too(text: str) -> None:
    assert list(chart_index.releases(text.encode(), "app", subject="x")) == ["1.0.0"]


def test_of_a_version_that_is_there_twice_the_first_counts() -> None:
    text = "apiVersion: v1\nentries:\n  app:\n" + "".join(
        f"  - {{name: app, version: 1.0.0, digest: '{d}'}}\n" for d in (1, 2)
    )
    assert chart_index.releases(text.encode(), "app", subject="x")["1.0.0"]["digest"] == "1"


def test_a_chart_that_is_not_there_is_refused_with_those_that_are_close() -> None:
    with pytest.raises(ResolveError) as caught:
        chart_index.releases(_HELM, "ap", subject="https://charts.example.com")
    assert str(caught.value) == "https://charts.example.com: no chart is called 'ap'"
    assert caught.value.hint == "there are app, app-extra"


@pytest.mark.parametrize("text", [b"", b"[]", b"entries:\n  app: []\n", b"apiVersion: v1\nentries: 3", b"\x00", b"{"])
def test_what_is_no_index_is_refused(text: bytes) -> None:
    with pytest.raises(IntegrityError, match=r"^index of x"):
        chart_index.releases(text, "app", subject="x")
