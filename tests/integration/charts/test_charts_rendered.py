from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from airlift import helm
from airlift.connected.source import Settings
from airlift.connected.sources.charts import ChartSource
from airlift.errors import ResolveError
from airlift.kinds import charts
from airlift.manifest import Chart
from tests.components import require
from tests.support.charts import chart, pod
from tests.support.sources import Talk, settings

_HOOK = pod("hook:1").replace("metadata: {", "metadata: {annotations: {helm.sh/hook: pre-install}, ")
_TEST = pod("probe:1").replace("metadata: {", "metadata: {annotations: {helm.sh/hook: test}, ")


@pytest.fixture
def here(tmp_path: Path) -> Settings:
    require("helm")
    return settings(tmp_path, environment={"PATH": os.environ["PATH"]})


def _images(here: Settings, data: bytes, **more: object) -> list[str] | None:
    (here.base / "app.tgz").write_bytes(data)
    entry = ChartSource(here).resolve(Chart.model_validate({"path": "app.tgz", **more}), None)
    images = entry.artifacts[0].artifact.facts["images"]
    return None if images is None else [item["image"] for item in images]


def _said(here: Settings) -> list[str]:
    assert isinstance(here.progress, Talk)
    return here.progress.said


def test_hooks_tests_and_crds_are_part_of_what_a_chart_shows(here: Settings) -> None:
    crd = "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: a.b}\nspec: {}\n"
    data = chart(
        files={
            "templates/a.yaml": pod("'{{ .Values.image }}'"),
            "templates/h.yaml": _HOOK,
            "templates/tests/t.yaml": _TEST,
            "crds/c.yaml": crd,
            "values.yaml": "image: main:1\n",
        }
    )
    assert _images(here, data) == [f"docker.io/library/{name}:1" for name in ("hook", "main", "probe")]
    assert _said(here) == []


def test_values_files_of_the_request_are_rendered_with(here: Settings) -> None:
    (here.base / "more.yaml").write_text("image: ghcr.io/other/one:2\n")
    data = chart(files={"templates/a.yaml": pod("'{{ .Values.image }}'"), "values.yaml": "image: main:1\n"})
    assert _images(here, data, values=["more.yaml"]) == ["ghcr.io/other/one:2"]
    with pytest.raises(ResolveError, match=r"values file gone.yaml: not there"):
        _images(here, data, values=["gone.yaml"])


def test_values_files_that_a_deployment_names_decide_what_a_chart_shows(here: Settings) -> None:
    (here.base / "own.yaml").write_text("image: own:1\n")
    (here.base / "east.yaml").write_text("image: east:1\n")
    (here.base / "west.yaml").write_text("image: west:1\n")
    data = chart(files={"templates/a.yaml": pod("'{{ .Values.image }}'"), "values.yaml": "image: main:1\n"})
    east, west = ("app", ("east.yaml",)), ("charts/app:1.0.0", ("west.yaml",))

    def shown(*deployed: tuple[str, tuple[str, ...]], values: tuple[str, ...] = ()) -> list[str]:
        images = _images(replace(here, deployed=deployed), data, values=list(values)) or []
        return [image.removeprefix("docker.io/library/") for image in images]

    assert shown(east) == ["east:1"]
    assert shown(east, west) == ["east:1", "west:1"]
    assert shown(east, values=("own.yaml",)) == ["east:1", "own:1"]
    assert shown(east, ("app", ())) == ["east:1", "main:1"]
    assert shown(("app", ()), values=("own.yaml",)) == ["own:1"]
    assert shown(("another", ("east.yaml",))) == ["main:1"]


def test_a_values_file_that_is_no_yaml_is_said_by_the_name_that_the_user_gave_it(here: Settings) -> None:
    (here.base / "odd, name.yaml").write_text("a: [")
    with pytest.raises(ResolveError, match=r"chart app 1\.0\.0 cannot be rendered: .*odd, name\.yaml"):
        _images(here, chart(), values=["odd, name.yaml"])


def test_a_required_value_that_is_missing_is_said_in_helms_words(here: Settings) -> None:
    data = chart(files={"templates/a.yaml": pod('{{ required "image.tag is required for the app" .Values.tag }}')})
    with pytest.raises(ResolveError) as caught:
        _images(here, data)
    assert "chart app 1.0.0 cannot be rendered" in str(caught.value)
    assert "image.tag is required for the app" in str(caught.value)
    assert str(here.work) not in str(caught.value)
    assert "under `values:`" in str(caught.value.hint)


@pytest.mark.parametrize("wanted", [">=1.20-0 <1.25-0", "~1.19", ">=1.36.3", "^1.22.0-0", ">= 1.16.0-0", "1.30.7"])
def test_a_chart_is_rendered_for_a_kubernetes_inside_its_range(here: Settings, wanted: str) -> None:
    image = "'app:{{ .Capabilities.KubeVersion.Minor }}'"
    data = chart(files={"templates/a.yaml": pod(image)}, more=f"kubeVersion: '{wanted}'\n")
    assert _images(here, data) is not None


def test_a_kubernetes_that_does_not_exist_is_refused(here: Settings) -> None:
    with pytest.raises(ResolveError, match=r"kubeVersion '>=7'"):
        _images(here, chart(more="kubeVersion: '>=7'\n"))


def test_the_kubernetes_version_does_not_come_from_the_helm_that_happens_to_be_there() -> None:
    assert helm.kube_version("", subject="x") == "1.36.3"
    assert helm.kube_version("<1.30-0", subject="x") == "1.29.20"


def test_a_chart_without_images_is_said_and_a_library_is_not_rendered(here: Settings) -> None:
    assert (
        _images(here, chart(files={"templates/c.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\n"})) == []
    )
    assert _said(here) == ["no image found in chart app 1.0.0; give it values files if it should have some"]
    here.progress.said.clear()  # type: ignore[attr-defined]
    assert _images(here, chart(more="type: library\n")) == []
    assert _said(here) == []


def test_what_is_no_image_reference_is_said_with_its_place(here: Settings) -> None:
    assert _images(here, chart(files={"templates/a.yaml": pod("'repo/app:'")})) == []
    assert "Pod/release-one: spec.containers[0]: 'repo/app:' is no image reference" in _said(here)[0]


def test_without_helm_images_are_unknown_and_that_is_said(here: Settings, tmp_path: Path) -> None:
    alone = replace(here, environment={"PATH": str(tmp_path)})
    assert _images(alone, chart(files={"templates/a.yaml": pod("a:1")})) is None
    assert "there is no helm on the PATH; deploy will refuse it" in _said(alone)[0]


def test_helm_reads_nothing_of_the_user_and_reaches_no_network(
    here: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    schema = '{"$ref": "http://schemas.example.com/x.json"}'
    data = chart(files={"values.schema.json": schema, "templates/a.yaml": pod("a:1"), "values.yaml": "a: 1"})
    with pytest.raises(ResolveError, match="cannot be rendered"):
        _images(here, data)
    assert _images(here, chart(files={"templates/a.yaml": pod('\'{{ len (lookup "v1" "Pod" "" "") }}:1\'')})) == [
        "docker.io/library/0:1"
    ]
    assert list(here.work.iterdir()) == []


def test_a_template_that_prints_without_end_is_stopped(here: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(helm, "_OUTPUT", 1024 * 1024)
    data = chart(files={"templates/a.yaml": 'a: "{{ range until 900 }}{{ repeat 5000 "x" }}{{ end }}"'})
    with pytest.raises(ResolveError, match=r"chart app 1\.0\.0: helm prints more than 1048576 bytes for it"):
        _images(here, data)


def test_a_helm_that_does_not_end_is_stopped(here: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(helm, "_TIMEOUT_S", 0.2)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/helm").write_text("#!/bin/sh\nexec sleep 60\n")
    (tmp_path / "bin/helm").chmod(0o755)
    found = helm.find({"PATH": f"{tmp_path}/bin:/bin:/usr/bin"}, here.work)
    assert found is not None
    data = chart()
    with pytest.raises(ResolveError, match="helm did not finish"):
        found.render(charts.read_archive(data, subject="x"), data, {})
