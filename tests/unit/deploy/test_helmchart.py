from __future__ import annotations

import re
import stat

import pytest
import yaml

from airlift.errors import DeployError
from airlift.site.deploy import helmchart
from airlift.site.deploy.helmchart import CHARTS, MANIFESTS
from tests.support.charts import chart
from tests.support.drops import Drops, bare_chart, drops_at


def manifest(root, stem):
    return yaml.safe_load((root / MANIFESTS / f"{stem}.yaml").read_text())


@pytest.fixture
def site(drops: Drops) -> Drops:
    drops.chart("site", "1.0.0", [])
    return drops


def test_a_release_is_a_helmchart_that_aborts_rather_than_uninstalls(site: Drops, deploy, root) -> None:
    site.release("site", namespace="vision", release="web")

    deploy()

    (archive,) = (root / CHARTS).iterdir()
    assert manifest(root, "airlift-web") == {
        "apiVersion": "helm.cattle.io/v1",
        "kind": "HelmChart",
        "metadata": {"name": "web", "namespace": "kube-system"},
        "spec": {
            "chart": f"https://%{{KUBERNETES_API}}%/static/charts/{archive.name}",
            "targetNamespace": "vision",
            "createNamespace": True,
            "failurePolicy": "abort",
            "forceConflicts": True,
        },
    }


def test_a_manifest_says_what_to_do_after_an_abort(site: Drops, deploy, root) -> None:
    site.release("site", namespace="vision", release="web")

    deploy()

    text = (root / MANIFESTS / "airlift-web.yaml").read_text()
    assert "waits for a person" in text
    assert "helm -n vision status web" in text


def test_a_chart_has_version_and_digest_in_its_name_and_new_content_gets_a_new_one(
    site: Drops, deploy, root, tmp_path
) -> None:
    site.release("site")
    deploy()
    (first,) = (root / CHARTS).iterdir()
    following = drops_at(tmp_path / "next")
    following.chart("site", "1.0.0", [], archive=chart("site", "1.0.0", {"templates/more.yaml": "a: 1\n"}))
    following.release("site")

    deploy(following)

    assert re.fullmatch(r"site-1\.0\.0-[0-9a-f]{16}\.tgz", first.name)
    assert first.read_bytes() == bare_chart("site", "1.0.0")
    (second,) = set((root / CHARTS).iterdir()) - {first}
    assert manifest(root, "airlift-site")["spec"]["chart"].endswith(second.name)


def test_charts_are_written_before_the_manifests_that_name_them(site: Drops, plan) -> None:
    site.image("docker.io/library/redis:7.4")
    site.preload = ["redis:7.4"]
    site.chart("other", "2.0.0", [])
    site.release("site")
    site.release("other")

    folders = [str(item.path.parent).removeprefix("var/lib/rancher/k3s/") for item in plan().files]

    assert folders == [
        "agent/images",
        "etc/rancher/k3s",
        "server/static/charts",
        "server/static/charts",
        "server/manifests",
        "server/manifests",
    ]


def test_two_releases_of_one_chart_share_its_archive(site: Drops, deploy, root) -> None:
    site.release("site", release="a")
    site.release("site", release="b")

    deploy()

    assert len(list((root / CHARTS).iterdir())) == 1
    assert [path.name for path in sorted((root / MANIFESTS).iterdir())] == ["airlift-a.yaml", "airlift-b.yaml"]


def test_one_values_file_is_carried_as_it_is(site: Drops, deploy, root) -> None:
    text = b"# kept\nimage: {tag: 010}\nat: 1:30\n"
    site.release("site", **{"values/site.yaml": text})

    deploy()

    assert manifest(root, "airlift-site")["spec"]["valuesContent"] == text.decode()


def test_several_values_files_are_merged_as_helm_does(site: Drops, deploy, root) -> None:
    site.release(
        "site",
        **{
            "a.yaml": b"a: {keep: 010, change: 1, drop: x}\nlist: [1, 2]\nat: 1:30\n",
            "empty.yaml": b"# nothing\n",
            "b.yaml": b"a: {change: yes, drop: null, new: '3.10'}\nlist: [3]\n",
        },
    )

    deploy()

    content = manifest(root, "airlift-site")["spec"]["valuesContent"]
    assert "keep: 010" in content
    assert "at: 1:30" in content
    assert "change: yes" in content
    assert "new: '3.10'" in content
    assert yaml.safe_load(content)["list"] == [3]
    assert yaml.safe_load(content)["a"]["drop"] is None


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"- a\n", "site: values file v.yaml is not a mapping"),
        (b"a: [\n", "site: values file v.yaml is not YAML: "),
        (b"\xff", "site: values file v.yaml is not YAML: "),
        (b"a: " + b"x" * 1_000_001, "site: the values have 1000004 bytes, at most 1000000 fit into a release"),
    ],
)
def test_values_that_helm_could_not_take_are_refused(site: Drops, deploy, root, data: bytes, message: str) -> None:
    site.release("site", **{"v.yaml": data})

    with pytest.raises(DeployError) as caught:
        deploy()

    assert str(caught.value).startswith(message)
    assert not root.exists()


def test_values_that_hold_themselves_are_refused_where_they_are_merged(site: Drops, plan) -> None:
    site.release("site", **{"a.yaml": b"a: &a {b: *a}\n", "b.yaml": b"a: &a {b: *a}\n"})

    with pytest.raises(DeployError, match=r"^site: b\.yaml is nested too deeply$"):
        plan()


def test_merging_values_that_multiply_themselves_stops(site: Drops, plan) -> None:
    bomb = "a0: &a0 {x: {y: 1}}\n" + "".join(
        f"a{n}: &a{n} {{{', '.join(f'k{m}: *a{n - 1}' for m in range(9))}}}\n" for n in range(1, 9)
    )
    site.release("site", **{"a.yaml": bomb.encode(), "b.yaml": bomb.encode()})

    with pytest.raises(DeployError, match="takes more than 100000 steps to merge"):
        plan()


def test_equal_release_names_are_refused(site: Drops, plan) -> None:
    site.release("site")
    site.release("site", namespace="other")

    with pytest.raises(DeployError) as caught:
        plan()

    assert str(caught.value) == "release site is deployed twice; a cluster has each name once"


@pytest.mark.parametrize("name", sorted(helmchart.K3S_RELEASES))
def test_names_of_k3s_itself_are_refused(site: Drops, plan, name: str) -> None:
    site.release("site", release=name)

    with pytest.raises(DeployError) as caught:
        plan()

    assert str(caught.value) == f"release {name}: the name belongs to K3s itself"


@pytest.mark.parametrize("addon", sorted(helmchart.K3S_ADDONS))
def test_no_file_of_ours_has_the_name_of_an_addon_of_k3s(site: Drops, deploy, root, addon: str) -> None:
    site.release("site", release=addon if addon != "traefik" else "traefik2")

    deploy()

    (path,) = (root / MANIFESTS).iterdir()
    stem = path.name.partition(".")[0]
    assert stem not in helmchart.K3S_ADDONS
    assert path.name == f"{stem}.yaml"
    assert re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", stem)
    assert len(stem) <= 63


@pytest.mark.parametrize("name", ["a.b", "a_b", "Web", "-a", "a" * 51, ""])
def test_a_release_name_that_is_no_label_is_refused(site: Drops, plan, name: str) -> None:
    site.release("site", release=name)
    if not name:
        assert plan().files  # no name means the chart's
        return

    with pytest.raises(DeployError, match="is no name for a release"):
        plan()


def test_a_release_name_is_as_long_as_the_job_of_k3s_allows(site: Drops, plan) -> None:
    site.release("site", release="a" * 50)

    assert plan().files


@pytest.mark.parametrize(
    "other", ["airlift-site.v1.yaml", "sub/airlift-site.yaml", "airlift-site.yml", "AIRLIFT-site.json"]
)
def test_another_file_with_the_same_name_before_the_first_dot_is_refused(site: Drops, deploy, root, other: str) -> None:
    site.release("site")
    path = root / MANIFESTS / other
    path.parent.mkdir(parents=True)
    path.write_text("kind: List")

    with pytest.raises(DeployError) as caught:
        deploy()

    assert str(caught.value) == (
        f"two files under server/manifests would have one AddOn name\n  {path} and airlift-site.yaml"
    )


def test_a_manifest_that_somebody_edited_is_not_overwritten(site: Drops, deploy, root) -> None:
    site.release("site")
    deploy()
    path = root / MANIFESTS / "airlift-site.yaml"
    path.write_text(path.read_text() + "---\nkind: Namespace\n")

    with pytest.raises(DeployError, match="was edited after airlift wrote it; it is not overwritten"):
        deploy()


def test_no_manifest_shrinks_when_a_release_is_no_longer_deployed(site: Drops, deploy, root, tmp_path) -> None:
    site.release("site")
    deploy()
    path = root / MANIFESTS / "airlift-site.yaml"
    before = path.read_bytes()
    following = drops_at(tmp_path / "next")
    following.chart("other", "1.0.0", [])
    following.release("other")

    made = deploy(following)

    assert path.read_bytes() == before
    assert made.kept == (MANIFESTS / "airlift-site.yaml",)


def test_a_later_drop_replaces_a_manifest_by_one_that_names_the_same_object(
    site: Drops, deploy, root, tmp_path
) -> None:
    site.release("site")
    deploy()
    before = manifest(root, "airlift-site")
    following = drops_at(tmp_path / "next")
    following.chart("site", "2.0.0", [])
    following.release("site")

    deploy(following)

    after = manifest(root, "airlift-site")
    assert after["metadata"] == before["metadata"]
    assert after["spec"]["chart"] != before["spec"]["chart"]


def test_manifests_are_readable_by_root_alone_since_values_may_be_private(site: Drops, deploy, root) -> None:
    site.release("site")

    deploy()

    assert stat.S_IMODE((root / MANIFESTS / "airlift-site.yaml").stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("wanted", "found"), [("absent", "no chart"), ("site", "more than one chart"), ("charts/site:1.0.0", None)]
)
def test_a_deploy_entry_names_exactly_one_chart(site: Drops, plan, wanted: str, found: str | None) -> None:
    site.chart("site", "2.0.0", [])
    site.release(wanted, release="web")
    if found is None:
        assert plan().files
        return

    with pytest.raises(DeployError) as caught:
        plan()

    assert str(caught.value) == (
        f"vision, deploy[0]: {found} of the drop is {wanted!r}; it has charts/site:1.0.0, charts/site:2.0.0"
    )


@pytest.mark.parametrize("name", ["../../etc/passwd", ".hidden", "a/b", ""])
def test_a_chart_whose_name_is_no_file_name_is_refused(drops: Drops, deploy, root, name: str) -> None:
    drops.chart(name, "1.0.0", [], at="charts/odd:1.0.0")
    drops.release("charts/odd:1.0.0", release="odd")

    with pytest.raises(DeployError, match="is no chart name"):
        deploy()

    assert not root.exists()


CONFIG = """\
apiVersion: helm.cattle.io/v1
kind: HelmChartConfig
metadata: {name: site, namespace: kube-system}
spec: {valuesContent: "a: 1"%s}
"""


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (CONFIG % "", "HelmChartConfig site has failurePolicy reinstall"),
        (CONFIG % ", failurePolicy: retry", "HelmChartConfig site has failurePolicy retry"),
        ("a: 1\n---\n" + CONFIG % "", "HelmChartConfig site has failurePolicy reinstall"),
        (
            "kind: List\nitems:\n- " + (CONFIG % "").replace("\n", "\n  "),
            "HelmChartConfig site has failurePolicy reinstall",
        ),
        (CONFIG.replace("HelmChartConfig", "HelmChart") % "", "another HelmChart site"),
    ],
)
def test_a_manifest_of_others_that_would_change_our_release_is_refused(
    site: Drops, deploy, root, text: str, problem: str
) -> None:
    site.release("site")
    path = root / MANIFESTS / "theirs.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(text)

    with pytest.raises(DeployError) as caught:
        deploy()

    assert str(caught.value) == f"other manifests would change releases of the drop\n  {path}: {problem}"
    assert [item.name for item in root.rglob("*") if item.is_file()] == ["theirs.yaml"]


@pytest.mark.parametrize(
    "text",
    [
        CONFIG % ", failurePolicy: abort",
        (CONFIG % "").replace("name: site", "name: other"),
        (CONFIG % "").replace("kube-system", "elsewhere"),
        "not: [yaml",
        "\xff",
        "- list",
        "",
    ],
)
def test_other_manifests_of_others_are_left_alone(site: Drops, deploy, root, text: str) -> None:
    site.release("site")
    path = root / MANIFESTS / "theirs.yaml"
    path.parent.mkdir(parents=True)
    path.write_bytes(text.encode("latin-1"))

    deploy()

    assert path.read_bytes() == text.encode("latin-1")
