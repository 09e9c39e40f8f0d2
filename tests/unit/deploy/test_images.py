from __future__ import annotations

import tarfile

import pytest

from airlift.errors import DeployError, IntegrityError
from airlift.oci import Platform
from airlift.site.deploy.tarball import FOLDER
from tests.support.drops import AMD64, ARM64, Drops

REDIS = "docker.io/library/redis:7.4"


def test_every_missing_image_is_listed_with_where_it_is_used_and_nothing_is_written(drops: Drops, deploy, root) -> None:
    drops.image(REDIS)
    drops.chart(
        "site", "1.0.0", [REDIS, "docker.io/library/nginx:1", {"image": "ghcr.io/org/app:2", "where": ["Job/a"]}]
    )
    drops.release("site")
    drops.preload = ["docker.io/rancher/mirrored-pause:3.6", REDIS]

    with pytest.raises(DeployError) as caught:
        deploy()

    assert str(caught.value) == (
        "images that are to run are not in the drop\n"
        "  docker.io/rancher/mirrored-pause:3.6 (vision, k3s.preload)\n"
        "  docker.io/library/nginx:1 (charts/site:1.0.0, Deployment/web: spec.template.spec.containers[0])\n"
        "  ghcr.io/org/app:2 (charts/site:1.0.0, Job/a)"
    )
    assert (
        caught.value.hint
        == "the release engineer has to add them under `images:`, resolve and build again; import that bundle"
    )
    assert not root.exists()


def test_a_chart_whose_images_nobody_looked_for_is_refused(drops: Drops, deploy, root) -> None:
    drops.chart("site", "1.0.0", None)
    drops.release("site")

    with pytest.raises(DeployError, match="its images were not discovered") as caught:
        deploy()

    assert (
        caught.value.hint == "the release engineer has to resolve again with helm there, then build; import that bundle"
    )
    assert not root.exists()


def test_a_chart_that_is_not_deployed_may_have_unknown_images(drops: Drops, deploy) -> None:
    drops.chart("site", "1.0.0", None)

    assert deploy().files == ()


def test_an_image_by_digest_is_found_by_index_and_by_child_in_its_own_repository_only(drops: Drops, plan) -> None:
    image = drops.image(REDIS)
    child = drops.store.read(image.root.digest).split(b'"digest":"')[1][:71].decode()
    drops.chart("a", "1.0.0", [f"docker.io/library/redis@{image.root.digest}", f"{REDIS}@{child}"])
    drops.release("a")

    assert set(plan().pins.values()) == {image.root.digest}

    drops.chart("b", "1.0.0", [f"docker.io/other/redis@{image.root.digest}"])
    drops.release("b")
    with pytest.raises(DeployError, match=r"docker\.io/other/redis@sha256"):
        plan()


def test_a_tag_with_another_digest_than_the_drop_has_is_missing(drops: Drops, plan) -> None:
    drops.image(REDIS)
    drops.chart("site", "1.0.0", [f"{REDIS}@sha256:{'0' * 64}"])
    drops.release("site")

    with pytest.raises(DeployError, match="not in the drop"):
        plan()


def test_short_names_in_a_chart_mean_docker_io(drops: Drops, plan) -> None:
    drops.image(REDIS)
    drops.chart("site", "1.0.0", ["redis:7.4"])
    drops.release("site")

    assert list(plan().pins) == ["redis:7.4"]


def test_what_is_no_reference_is_listed_as_missing(drops: Drops, plan) -> None:
    drops.chart("site", "1.0.0", ["Not An Image"])
    drops.release("site")

    with pytest.raises(DeployError, match=r"  Not An Image .not an image reference"):
        plan()


def test_workloads_are_pinned_by_the_index_never_by_the_child(drops: Drops, plan) -> None:
    image = drops.image(REDIS)
    drops.preload = [REDIS]

    assert plan().pins == {REDIS: image.root.digest}


def test_a_tarball_for_a_platform_that_the_image_lacks_is_refused(drops: Drops, plan) -> None:
    drops.image(REDIS, platforms=None)
    drops.preload = [REDIS]

    with pytest.raises(DeployError) as caught:
        plan(platform=ARM64)

    assert str(caught.value) == f"{REDIS}: not for linux/arm64; the drop has it for linux/amd64"


def test_a_platform_that_the_index_names_and_the_drop_does_not_carry_is_not_there(drops: Drops, plan) -> None:
    drops.image(REDIS)
    drops.preload = [REDIS]
    for digest in list(drops.store.digests()):
        data = drops.store.read(digest)
        if b'"config"' in data and b'"layers"' in data and digest == child_for(drops, b'"amd64"'):
            drops.store.delete(digest)

    with pytest.raises(DeployError) as caught:
        plan()

    assert str(caught.value) == f"{REDIS}: not for linux/amd64; the drop has it for linux/arm64"


def child_for(drops: Drops, processor: bytes) -> str:
    """The digest of an index's child for a processor."""
    entries = drops.store.read(drops.artifacts[0].root.digest).split(b'{"mediaType"')[1:]
    entry = next(item for item in entries if processor in item)
    return entry.split(b'"digest":"')[1][:71].decode()


def test_all_variants_that_the_node_may_choose_from_go_into_the_tarball(drops: Drops, plan, deploy, root) -> None:
    drops.image(REDIS, platforms=[Platform("linux", "amd64", "v3"), AMD64, ARM64])
    drops.preload = [REDIS]

    deploy()

    (path,) = (root / FOLDER).iterdir()
    with tarfile.open(path) as tar:
        names = tar.getnames()
    assert f"blobs/sha256/{child_for(drops, b'v3')[7:]}" in names
    # The index, two manifests with a config each, and one layer that they share.
    assert len([name for name in names if name.startswith("blobs/")]) == 6


def test_an_image_with_a_lost_layer_is_refused_before_anything_is_written(drops: Drops, deploy, root) -> None:
    drops.image(REDIS, b"content")
    drops.preload = [REDIS]
    layer = max(drops.store.digests(), key=drops.store.size)
    drops.store.delete(layer)

    with pytest.raises(DeployError) as caught:
        deploy()

    assert str(caught.value) == f"{REDIS}: pieces of the image are not at this site\n  {layer}"
    assert not root.exists()


def test_a_damaged_layer_is_found_before_anything_is_written(drops: Drops, deploy, root) -> None:
    drops.image(REDIS, b"content")
    drops.preload = [REDIS]
    layer = drops.store.path(max(drops.store.digests(), key=drops.store.size))
    layer.write_bytes(b"y" + layer.read_bytes()[1:])

    with pytest.raises(IntegrityError):
        deploy()

    assert not root.exists()


def test_one_content_under_two_repositories_with_a_tarball_is_refused_unless_the_kubelet_allows_it(
    drops: Drops, plan, root
) -> None:
    drops.image(REDIS)
    drops.image("registry.example.com/cache/redis:7.4")
    drops.chart("site", "1.0.0", ["registry.example.com/cache/redis:7.4"])
    drops.release("site")
    drops.preload = [REDIS]

    with pytest.raises(DeployError) as caught:
        plan()

    assert str(caught.value) == (
        "one image would be on the node under two names, one of them from a tarball\n"
        "  docker.io/library/redis and registry.example.com/cache/redis"
    )
    assert "imagePullCredentialsVerificationPolicy: NeverVerify" in str(caught.value.hint)

    drop_in = root / "var/lib/rancher/k3s/agent/etc/kubelet.conf.d/90-airlift.conf"
    drop_in.parent.mkdir(parents=True)
    drop_in.write_text("\n".join(str(caught.value.hint).splitlines()[1:]))
    assert plan().pins
