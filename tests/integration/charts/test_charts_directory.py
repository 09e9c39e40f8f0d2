from __future__ import annotations

import io
import os
import shutil
import tarfile
from pathlib import Path

import pytest

from airlift import digest
from airlift.connected.source import Settings
from airlift.connected.sources.charts import ChartSource
from airlift.errors import IntegrityError, ResolveError
from airlift.kinds import charts
from airlift.lock import LockedEntry
from airlift.manifest import Chart
from tests.components import require
from tests.support.chart_servers import helm, nginx
from tests.support.charts import chart, pod
from tests.support.registry import running_registry
from tests.support.sources import Taken, settings

_HEAD = "apiVersion: v2\nname: {}\nversion: {}\n"


@pytest.fixture
def here(tmp_path: Path) -> Settings:
    require("helm")
    return settings(tmp_path, environment={"PATH": os.environ["PATH"]})


def _write(root: Path, name: str, version: str = "1.0.0", more: str = "", **files: str | bytes) -> Path:
    whole = {"Chart.yaml": _HEAD.format(name, version) + more, **files}
    for path, content in whole.items():
        place = root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content.encode() if isinstance(content, str) else content)
    return root


def _resolve(here: Settings, path: str = "site") -> LockedEntry:
    return ChartSource(here).resolve(Chart.model_validate({"path": path}), None)


def _content(here: Settings, entry: LockedEntry) -> bytes:
    assert here.cache is not None
    return here.cache.read(entry.artifacts[0].large[0].digest)


def _names(data: bytes) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return tar.getnames()


def test_a_directory_is_packed_put_into_the_cache_and_packed_again_alike(here: Settings, tmp_path: Path) -> None:
    _write(tmp_path / "site", "site", **{"templates/p.yaml": pod("web:1")})
    entry = _resolve(here)
    item = entry.artifacts[0]
    assert (entry.name, entry.source, item.artifact.name) == ("site", "local", "charts/site:1.0.0")
    data = _content(here, entry)
    sink = Taken()
    ChartSource(here).fetch(entry, item.large[0], sink)
    assert bytes(sink.data) == data
    assert _resolve(here) == entry
    assert str(tmp_path) not in repr(entry)


def test_a_transfer_that_was_cut_goes_on_where_it_stopped(here: Settings, tmp_path: Path) -> None:
    _write(tmp_path / "site", "site")
    entry = _resolve(here)
    sink = Taken()
    sink.write(_content(here, entry)[:100])
    ChartSource(here).fetch(entry, entry.artifacts[0].large[0], sink)
    assert bytes(sink.data) == _content(here, entry)


def test_dependencies_come_from_a_path_a_repository_and_a_registry_with_their_bytes(
    here: Settings, tmp_path: Path
) -> None:
    web, common = chart("web", "1.4.0", {"templates/p.yaml": pod("quay.io/o/web:1")}), chart("common", "2.0.0")
    root = tmp_path / "repo"
    root.mkdir()
    (root / "web-1.4.0.tgz").write_bytes(web)
    helm("repo", "index", root)
    (tmp_path / "common-2.0.0.tgz").write_bytes(common)
    _write(tmp_path / "lib/near", "near", "0.1.0", **{"templates/p.yaml": pod("ghcr.io/o/near:1")})
    with nginx(root, tmp_path / "nginx") as url, running_registry(tmp_path / "registry") as registry:
        helm("push", tmp_path / "common-2.0.0.tgz", f"oci://{registry.host}/charts", "--plain-http")
        more = f"""dependencies:
  - {{name: near, version: '>=0', repository: 'file://../lib/near'}}
  - {{name: web, version: ^1, repository: '{url}'}}
  - {{name: common, version: 2.x, repository: 'oci://{registry.host}/charts'}}
"""
        _write(tmp_path / "site", "site", more=more)
        entry = _resolve(here)
        data = _content(here, entry)
        shutil.rmtree(here.cache.root / "blobs")  # type: ignore[union-attr]
        sink = Taken()
        ChartSource(here).fetch(entry, entry.artifacts[0].large[0], sink)
        assert bytes(sink.data) == data
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert tar.extractfile("site/charts/web-1.4.0.tgz").read() == web  # type: ignore[union-attr]
        assert tar.extractfile("site/charts/common-2.0.0.tgz").read() == common  # type: ignore[union-attr]
    facts = entry.artifacts[0].artifact.facts
    assert [item["image"] for item in facts["images"]] == ["ghcr.io/o/near:1", "quay.io/o/web:1"]
    assert facts["dependencies"] == [
        {"name": "common", "version": "2.0.0"},
        {"name": "near", "version": "0.1.0"},
        {"name": "web", "version": "1.4.0"},
    ]
    assert entry.components[0].depends_on == ("pkg:helm/common@2.0.0", "pkg:helm/near@0.1.0", "pkg:helm/web@1.4.0")
    assert [item.purl for item in entry.components[1:]] == list(entry.components[0].depends_on)
    (tmp_path / "packed.tgz").write_bytes(data)
    assert "near" in helm("dependency", "list", tmp_path / "packed.tgz")
    assert "missing" not in helm("dependency", "list", tmp_path / "packed.tgz")


def test_chart_lock_decides_and_what_the_index_got_since_does_not(here: Settings, tmp_path: Path) -> None:
    root = tmp_path / "repo"
    root.mkdir()
    (root / "web-1.4.0.tgz").write_bytes(chart("web", "1.4.0"))
    helm("repo", "index", root)
    with nginx(root, tmp_path / "nginx") as url:
        _write(tmp_path / "site", "site", more=f"dependencies: [{{name: web, version: ^1, repository: '{url}'}}]\n")
        helm("dependency", "update", tmp_path / "site")
        shutil.rmtree(tmp_path / "site/charts")
        (root / "web-1.5.0.tgz").write_bytes(chart("web", "1.5.0"))
        helm("repo", "index", root)
        assert "site/charts/web-1.4.0.tgz" in _names(_content(here, _resolve(here)))
        (tmp_path / "site/Chart.lock").unlink()
        assert "site/charts/web-1.5.0.tgz" in _names(_content(here, _resolve(here)))


def test_what_lies_in_charts_is_taken_as_it_is(here: Settings, tmp_path: Path) -> None:
    inner = chart("web", "1.4.0")
    more = "dependencies: [{name: web, version: ^1, repository: 'https://unreachable.invalid'}]\n"
    _write(tmp_path / "site", "site", more=more, **{"charts/web-1.4.0.tgz": inner})
    assert "site/charts/web-1.4.0.tgz" in _names(_content(here, _resolve(here)))


def test_an_older_archive_in_charts_is_replaced(here: Settings, tmp_path: Path) -> None:
    root = tmp_path / "repo"
    root.mkdir()
    (root / "web-2.0.0.tgz").write_bytes(chart("web", "2.0.0"))
    helm("repo", "index", root)
    with nginx(root, tmp_path / "nginx") as url:
        more = f"dependencies: [{{name: web, version: ^2, repository: '{url}'}}]\n"
        _write(tmp_path / "site", "site", more=more, **{"charts/web-1.4.0.tgz": chart("web", "1.4.0")})
        names = _names(_content(here, _resolve(here)))
    assert [name for name in names if "charts/" in name] == ["site/charts/web-2.0.0.tgz"]


@pytest.mark.parametrize(
    ("dependency", "said"),
    [
        ("{name: web, version: ^1}", "dependency web ^1 is missing: it is not in charts/, and no repository"),
        ("{name: web, version: ^1, repository: '@stable'}", "is a name of helm's configuration"),
        ("{name: web, version: ^1, repository: 'file://../gone'}", "no chart is there"),
        ("{name: web, version: ^9, repository: 'file://../web'}", "has web 1.0.0, and web ^9 is asked for"),
        ("{name: site, version: ^1, repository: 'file://../site'}", "dependencies lead in a circle"),
        ("{name: web, version: ^1, repository: 'http://u:p@127.0.0.1:1'}", "has a login in it"),
        ("{name: web, version: ^1, repository: 'http://u:p@127.0.0.1:1'}", "chart site, dependency web: "),
    ],
)
def test_a_dependency_that_cannot_be_had_is_refused(here: Settings, tmp_path: Path, dependency: str, said: str) -> None:
    _write(tmp_path / "web", "web")
    _write(tmp_path / "site", "site", more=f"dependencies: [{dependency}]\n")
    with pytest.raises(ResolveError) as caught:
        _resolve(here)
    assert said in str(caught.value)


def test_a_lock_that_does_not_fit_is_refused(here: Settings, tmp_path: Path) -> None:
    more = "dependencies: [{name: web, version: ^2, repository: 'https://unreachable.invalid'}]\n"
    lock = "dependencies: [{name: web, version: 1.4.0, repository: 'https://unreachable.invalid'}]\n"
    _write(tmp_path / "site", "site", more=more, **{"Chart.lock": lock})
    with pytest.raises(ResolveError, match=r"Chart.lock has web 1.4.0 for the dependency web \^2") as caught:
        _resolve(here)
    assert caught.value.hint == "run helm dependency update in the chart's directory"


def test_an_archive_is_carried_as_it_is_with_its_signature(here: Settings, tmp_path: Path) -> None:
    data = chart("app", "1.0.0+b1")
    (tmp_path / "app.tgz").write_bytes(data)
    signed = f"-----BEGIN PGP SIGNED MESSAGE-----\nfiles:\n  app.tgz: {digest.of(data)}\n".encode()
    (tmp_path / "app.tgz.prov").write_bytes(signed)
    entry = _resolve(here, "app.tgz")
    item = entry.artifacts[0]
    assert item.artifact.name == "charts/app:1.0.0_b1"
    assert entry.components[0].purl == "pkg:helm/app@1.0.0%2Bb1"
    for blob, content in zip(item.large, (data, signed), strict=True):
        sink = Taken()
        ChartSource(here).fetch(entry, blob, sink)
        assert bytes(sink.data) == content
    (tmp_path / "app.tgz.prov").write_bytes(signed.replace(b"sha256:", b"sha256:0")[:-2] + b"\n")
    with pytest.raises(IntegrityError, match="provenance"):
        _resolve(here, "app.tgz")


def test_a_path_that_is_not_there_is_said(here: Settings) -> None:
    with pytest.raises(ResolveError, match="chart gone: not there"):
        _resolve(here, "gone")


def test_ours_and_helms_package_hold_the_same_files(here: Settings, tmp_path: Path) -> None:
    helm("create", tmp_path / "site")
    (tmp_path / "site/.git").mkdir()
    (tmp_path / "site/.git/config").write_text("x")
    (tmp_path / "site/templates/.hidden.yaml").write_text("x")
    helm("package", tmp_path / "site", "-d", tmp_path)
    ours, theirs = _content(here, _resolve(here)), (tmp_path / "site-0.1.0.tgz").read_bytes()
    assert sorted(_names(ours)) == sorted(_names(theirs))
    assert charts.read_archive(ours, subject="x").metadata == charts.read_archive(theirs, subject="x").metadata


@pytest.mark.parametrize(
    "rules",
    [
        "*.md\n",
        "/*.md\n",
        "docs/\n",
        "docs\n",
        "docs/*.md\n",
        "*/a.md\n",
        "[a-b].md\n",
        "[^a].md\n",
        "?.md\n",
        "\\*.md\n",
        "  docs/  \n# *.yaml\n",
        "templates/a.*\n",
        ".helmignore\n",
        "/docs/deep\n",
    ],
)
def test_helmignore_leaves_out_what_helm_leaves_out(here: Settings, tmp_path: Path, rules: str) -> None:
    names = ["a.md", "b.md", "long.md", "docs/a.md", "docs/deep/a.md", "deep/docs/b.md", "templates/a.yaml", ".dot"]
    _write(tmp_path / "site", "site", **{".helmignore": rules, **dict.fromkeys(names, "# x\n")})
    helm("package", tmp_path / "site", "-d", tmp_path)
    assert sorted(_names(_content(here, _resolve(here)))) == sorted(_names((tmp_path / "site-1.0.0.tgz").read_bytes()))


@pytest.mark.parametrize("rules", ["!a.md\n", "!templates/\n", "*\n"])
def test_rules_that_leave_out_the_chart_itself_are_refused_by_helm_and_by_us(
    here: Settings, tmp_path: Path, rules: str
) -> None:
    _write(tmp_path / "site", "site", **{".helmignore": rules, "a.md": "x"})
    with pytest.raises(AssertionError, match=r"Chart\.yaml"):
        helm("package", tmp_path / "site", "-d", tmp_path)
    with pytest.raises(IntegrityError, match=r"no Chart\.yaml in it"):
        _resolve(here)
