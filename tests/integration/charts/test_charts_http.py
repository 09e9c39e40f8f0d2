from __future__ import annotations

import base64
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from airlift import digest, oci
from airlift.connected.source import Settings
from airlift.connected.sources.charts import ChartSource
from airlift.errors import FetchError, IntegrityError, ResolveError
from airlift.kinds import charts
from airlift.lock import LockedEntry
from airlift.manifest import Chart
from tests.components import require
from tests.support.chart_servers import helm, nginx
from tests.support.charts import chart, pod
from tests.support.sources import Taken, settings


@pytest.fixture
def here(tmp_path: Path) -> Settings:
    require("helm")
    return settings(tmp_path, environment={"PATH": os.environ["PATH"]})


def _repository(folder: Path, *archives: tuple[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in archives:
        (folder / name).write_bytes(data)
    helm("repo", "index", folder)
    return folder


def _resolve(here: Settings, url: str, version: str, name: str = "app", **more: object) -> LockedEntry:
    return ChartSource(here).resolve(
        Chart.model_validate({"repo": url, "name": name, "version": version, **more}), None
    )


def _fetched(here: Settings, entry: LockedEntry, number: int = 0) -> bytes:
    blob = entry.artifacts[0].large[number]
    sink = Taken()
    ChartSource(here).fetch(entry, blob, sink)
    assert digest.of(bytes(sink.data)) == blob.digest
    return bytes(sink.data)


def test_a_chart_of_an_http_repository_is_pinned_with_its_bytes_and_fetched_again(
    here: Settings, tmp_path: Path
) -> None:
    data = chart("app", "1.2.3", {"templates/pod.yaml": pod("redis:7")}, more="annotations: {licenses: MIT}\n")
    root = _repository(tmp_path / "repo", ("app-1.2.3.tgz", data))
    with nginx(root, tmp_path / "nginx") as url:
        entry = _resolve(here, url, "^1")
        assert _fetched(here, entry) == data
    item = entry.artifacts[0]
    assert (entry.name, entry.source, item.artifact.name) == ("app", url, "charts/app:1.2.3")
    assert item.large[0].digest == digest.of(data)
    assert item.artifact.facts == {
        "name": "app",
        "version": "1.2.3",
        "images": [{"image": "docker.io/library/redis:7", "where": ["Pod/release-one: spec.containers[0]"]}],
        "dependencies": [],
    }
    component = entry.components[0]
    assert (component.purl, component.licence, component.digest) == ("pkg:helm/app@1.2.3", "MIT", digest.of(data))
    manifest = oci.parse_manifest(str(item.small[0].text).encode(), subject="x")
    assert manifest.descriptor == item.artifact.root
    assert charts.layers_of(manifest, subject="x")[0].digest == digest.of(data)


def test_a_second_resolve_is_the_same(here: Settings, tmp_path: Path) -> None:
    root = _repository(tmp_path / "repo", ("app-1.0.0.tgz", chart("app", "1.0.0", {"templates/p.yaml": pod("a:1")})))
    with nginx(root, tmp_path / "nginx") as url:
        assert _resolve(here, url, "*") == _resolve(here, url, "*")


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("^1.0.0", "v1.5.0"),
        (">=1", "2.0.0"),
        (">=1-0", "3.0.0-rc.1"),
        ("1.3.0", "1.3.0"),
        ("~1.3", "1.3.0"),
        ("1.0.0+b2", "1.0.0+b2"),
        ("<1.3", "1.0.0+b2"),
    ],
)
def test_ranges_pick_the_version_that_helm_picks(here: Settings, tmp_path: Path, wanted: str, found: str) -> None:
    versions = ["1.0.0+b1", "1.0.0+b2", "1.3.0", "v1.5.0", "2.0.0", "3.0.0-rc.1"]
    root = _repository(tmp_path / "repo", *((f"app-{v}.tgz", chart("app", v)) for v in versions))
    with nginx(root, tmp_path / "nginx") as url:
        entry = _resolve(here, url, wanted)
        assert entry.artifacts[0].artifact.facts["version"] == found
        if not wanted.startswith("<"):  # among equals helm takes any
            assert f"version: {found}" in helm("show", "chart", "app", "--repo", url, "--version", wanted)


def test_a_version_that_is_not_there_is_refused_with_those_that_are(here: Settings, tmp_path: Path) -> None:
    root = _repository(tmp_path / "repo", ("a.tgz", chart("app", "1.0.0-rc.1")))
    with nginx(root, tmp_path / "nginx") as url:
        with pytest.raises(ResolveError) as caught:
            _resolve(here, url, ">=1")
        assert str(caught.value) == f"chart app of {url}: no version is inside '>=1'; there are 1.0.0-rc.1"
        assert "only taken by a range that names one" in str(caught.value.hint)
        with pytest.raises(ResolveError, match="no chart is called 'ap'") as caught:
            _resolve(here, url, "*", name="ap")
        assert caught.value.hint == "there are app"
        with pytest.raises(ResolveError, match="'one' is not a version range"):
            _resolve(here, url, "one")


@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize(
    "address", ["files/app-1.0.0.tgz", "./files/app-1.0.0.tgz", "/charts/files/app-1.0.0.tgz", "{url}"]
)
def test_addresses_in_the_index_are_relative_or_absolute(
    here: Settings, tmp_path: Path, address: str, slash: str
) -> None:
    data = chart("app", "1.0.0")
    (tmp_path / "web/charts/files").mkdir(parents=True)
    (tmp_path / "web/charts/files/app-1.0.0.tgz").write_bytes(data)
    with nginx(tmp_path / "web", tmp_path / "nginx") as url:
        address = address.format(url=f"{url}/charts/files/app-1.0.0.tgz")
        _index(tmp_path / "web/charts", {"version": "1.0.0", "urls": [address]})
        entry = _resolve(here, f"{url}/charts{slash}", "1.0.0")
        assert _fetched(here, entry) == data


def _index(folder: Path, *releases: dict[str, object], name: str = "app") -> None:
    whole = [{"apiVersion": "v2", "name": name, **release} for release in releases]
    (folder / "index.yaml").write_text(json.dumps({"apiVersion": "v1", "entries": {name: whole}}))


def test_the_query_of_the_repository_is_kept(here: Settings, tmp_path: Path) -> None:
    data = chart("app", "1.0.0")
    root = tmp_path / "web"
    root.mkdir()
    (root / "app.tgz").write_bytes(data)
    _index(root, {"version": "1.0.0", "urls": ["app.tgz"]})
    with nginx(root, tmp_path / "nginx", 'if ($arg_key != "k1") { return 404; }') as url:
        assert _fetched(here, _resolve(here, f"{url}/?key=k1", "*")) == data


def test_a_wrong_digest_is_refused_with_both_and_other_spellings_pass(here: Settings, tmp_path: Path) -> None:
    data = chart("app", "1.0.0")
    root = tmp_path / "web"
    root.mkdir()
    (root / "app.tgz").write_bytes(data)
    right = digest.hex_of(digest.of(data))
    with nginx(root, tmp_path / "nginx") as url:
        for value in (right, right.upper(), f"sha256:{right}", "", None):
            _index(root, {"version": "1.0.0", "urls": ["app.tgz"], "digest": value})
            assert _resolve(here, url, "*").artifacts[0].large[0].digest == f"sha256:{right}"
        _index(root, {"version": "1.0.0", "urls": ["app.tgz"], "digest": "0" * 64})
        with pytest.raises(IntegrityError) as caught:
            _resolve(here, url, "*")
        assert caught.value.expected == "sha256:" + "0" * 64
        assert caught.value.actual == f"sha256:{right}"
        _index(root, {"version": "1.0.0", "urls": ["app.tgz"], "digest": "md5"})
        with pytest.raises(IntegrityError, match="the index's digest"):
            _resolve(here, url, "*")


def test_an_archive_of_another_chart_is_refused(here: Settings, tmp_path: Path) -> None:
    root = tmp_path / "web"
    root.mkdir()
    (root / "app.tgz").write_bytes(chart("other", "1.0.0"))
    _index(root, {"version": "1.0.0", "urls": ["app.tgz"]})
    with (
        nginx(root, tmp_path / "nginx") as url,
        pytest.raises(IntegrityError, match=r"expected app 1\.0\.0, got other 1\.0\.0"),
    ):
        _resolve(here, url, "*")


@pytest.mark.parametrize(
    "text",
    ["", "[]", "entries: {app: [}", "a: &a [1]\nb: *a\napiVersion: v1", "<html></html>", "apiVersion: v1\nentries: 3"],
)
def test_what_is_no_index_is_refused(here: Settings, tmp_path: Path, text: str) -> None:
    root = tmp_path / "web"
    root.mkdir()
    (root / "index.yaml").write_text(text)
    with nginx(root, tmp_path / "nginx") as url, pytest.raises(IntegrityError, match="index of http"):
        _resolve(here, url, "*")


def test_a_repository_without_an_index_or_an_archive_is_said(here: Settings, tmp_path: Path) -> None:
    root = tmp_path / "web"
    root.mkdir()
    with nginx(root, tmp_path / "nginx") as url:
        with pytest.raises(FetchError, match="index of"):
            _resolve(here, url, "*")
        _index(root, {"version": "1.0.0", "urls": ["gone.tgz"]})
        with pytest.raises(FetchError, match="404"):
            _resolve(here, url, "*")


def test_a_provenance_file_is_carried_and_a_page_that_answers_everything_is_none(
    here: Settings, tmp_path: Path
) -> None:
    data = chart("app", "1.0.0")
    root = tmp_path / "web"
    root.mkdir()
    (root / "app-1.0.0.tgz").write_bytes(data)
    _index(root, {"version": "1.0.0", "urls": ["app-1.0.0.tgz"]})
    signed = f"-----BEGIN PGP SIGNED MESSAGE-----\nfiles:\n  app-1.0.0.tgz: {digest.of(data)}\n".encode()
    with nginx(root, tmp_path / "nginx") as url:
        (root / "app-1.0.0.tgz.prov").write_bytes(signed)
        entry = _resolve(here, url, "*")
        assert [blob.media_type for blob in entry.artifacts[0].large] == [charts.CHART_LAYER, charts.PROVENANCE_LAYER]
        assert _fetched(here, entry, 1) == signed
        (root / "app-1.0.0.tgz.prov").write_text("<html>anything</html>")
        assert len(_resolve(here, url, "*").artifacts[0].large) == 1


def test_a_login_is_asked_for_and_comes_from_dockers_configuration(here: Settings, tmp_path: Path) -> None:
    data = chart("app", "1.0.0")
    root = _repository(tmp_path / "repo", ("app-1.0.0.tgz", data))
    (tmp_path / "htpasswd").write_text("alice:{PLAIN}s3cret\n")
    with nginx(root, tmp_path / "nginx", f'auth_basic "x"; auth_basic_user_file {tmp_path}/htpasswd;') as url:
        with pytest.raises(FetchError, match="401"):
            _resolve(here, url, "*")
        login = base64.b64encode(b"alice:s3cret").decode()
        known = replace(here, docker_config={"auths": {url.removeprefix("http://"): {"auth": login}}})
        entry = _resolve(known, url, "*")
        assert _fetched(known, entry) == data


def test_a_published_chart_without_its_dependencies_is_refused(here: Settings, tmp_path: Path) -> None:
    data = chart(
        "app", "1.0.0", more="dependencies: [{name: redis, version: ^1, repository: 'https://r.example.com'}]\n"
    )
    root = _repository(tmp_path / "repo", ("app-1.0.0.tgz", data))
    with (
        nginx(root, tmp_path / "nginx") as url,
        pytest.raises(ResolveError, match=r"missing in its charts/: redis \^1"),
    ):
        _resolve(here, url, "*")
