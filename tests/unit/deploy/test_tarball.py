from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile

import pytest

from airlift import oci
from airlift.digest import of
from airlift.errors import DeployError
from airlift.site.deploy.tarball import FOLDER, _Member
from tests.support.drops import Drops, drops_at

REDIS = "docker.io/library/redis:7.4"
PAUSE = "docker.io/rancher/mirrored-pause:3.6"


def tarballs(root):
    return sorted((root / FOLDER).iterdir())


def index_of(path):
    with tarfile.open(path) as tar:
        return json.load(tar.extractfile("index.json"))


def test_a_tarball_is_named_by_the_digest_of_its_bytes(drops: Drops, deploy, root) -> None:
    drops.image(REDIS, b"big" * 50_000)
    drops.image(PAUSE)
    drops.preload = [REDIS, PAUSE]

    deploy()

    for path in tarballs(root):
        assert re.fullmatch(r"(zz-)?[0-9a-f]{64}\.tar", path.name)
        assert path.name.removeprefix("zz-") == f"{hashlib.sha256(path.read_bytes()).hexdigest()}.tar"


def test_the_smallest_image_sorts_last_and_is_written_last(drops: Drops, deploy, root) -> None:
    drops.image(REDIS, b"big" * 50_000)
    drops.image(PAUSE)
    drops.preload = [PAUSE, REDIS]

    made = deploy()

    first, last = tarballs(root)
    assert index_of(first)["manifests"][0]["annotations"][oci.IMAGE_NAME] == REDIS
    assert index_of(last)["manifests"][0]["annotations"][oci.IMAGE_NAME] == PAUSE
    assert last.name.startswith("zz-")
    assert [item.path.name for item in made.files if item.path.parent == FOLDER] == [first.name, last.name]


def test_with_big_images_only_a_small_one_that_a_chart_needs_sorts_last(
    drops: Drops, deploy, root, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airlift.site.deploy.tarball.TINY", 20_000)
    drops.image(REDIS, b"big" * 50_000)
    drops.image(PAUSE)
    drops.chart("site", "1.0.0", [PAUSE])
    drops.release("site")
    drops.preload = [REDIS]

    deploy()

    assert [index_of(path)["manifests"][0]["annotations"][oci.IMAGE_NAME] for path in tarballs(root)] == [REDIS, PAUSE]


def test_names_are_full_and_have_a_tag_and_the_index_is_kept(drops: Drops, deploy, root) -> None:
    image = drops.image(REDIS)
    drops.image("docker.io/library/redis:7", b"x")
    drops.preload = ["redis:7.4", "redis:7"]

    deploy()

    (path,) = tarballs(root)
    entries = index_of(path)["manifests"]
    assert [entry["annotations"][oci.IMAGE_NAME] for entry in entries] == ["docker.io/library/redis:7", REDIS]
    assert {entry["digest"] for entry in entries} == {image.root.digest}
    assert {entry["mediaType"] for entry in entries} == {oci.INDEX}


def test_an_image_without_a_tag_does_not_go_into_a_tarball(drops: Drops, plan) -> None:
    image = drops.image(REDIS)
    name = f"docker.io/library/redis@{image.root.digest}"
    drops.artifacts[0] = type(image)(image.kind, name, image.root)
    drops.preload = [name]

    with pytest.raises(DeployError) as caught:
        plan()

    assert str(caught.value) == f"k3s.preload: {name} has no tag, and K3s skips an image in a tarball that has none"


def test_only_the_platform_of_the_node_is_in_it_and_all_of_that(drops: Drops, deploy, root) -> None:
    image = drops.image(REDIS)
    drops.preload = [REDIS]

    deploy()

    (path,) = tarballs(root)
    with tarfile.open(path) as tar:
        names = tar.getnames()
        index = json.load(tar.extractfile(f"blobs/sha256/{image.root.digest[7:]}"))
        there = [child for child in index["manifests"] if f"blobs/sha256/{child['digest'][7:]}" in names]
        assert [child["platform"]["architecture"] for child in there] == ["amd64"]
        manifest = json.load(tar.extractfile(f"blobs/sha256/{there[0]['digest'][7:]}"))
        for piece in [manifest["config"], *manifest["layers"]]:
            assert tar.getmember(f"blobs/sha256/{piece['digest'][7:]}").size == piece["size"]
        for member in tar:
            assert (member.mode, member.mtime, member.uid, member.gid) == (0o644, 0, 0, 0)
            if member.name.startswith("blobs/"):
                assert member.name[13:] == hashlib.sha256(tar.extractfile(member).read()).hexdigest()


def test_the_same_images_give_the_same_bytes_from_any_store_in_any_order(drops: Drops, deploy, tmp_path) -> None:
    other = drops_at(tmp_path / "other")
    for target, order in ((drops, (REDIS, PAUSE)), (other, (PAUSE, REDIS))):
        for name in order:
            target.image(name, name.encode())
        target.preload = list(order)

    deploy(drops, at=tmp_path / "a")
    deploy(other, at=tmp_path / "b")

    assert [p.name for p in tarballs(tmp_path / "a")] == [p.name for p in tarballs(tmp_path / "b")]


def test_a_tarball_under_our_name_with_other_content_is_never_replaced(drops: Drops, deploy, root) -> None:
    drops.image(REDIS, b"big" * 50_000)
    drops.preload = [REDIS]
    deploy()
    (path,) = tarballs(root)
    path.write_bytes(path.read_bytes()[:-10] + b"0123456789")

    with pytest.raises(DeployError) as caught:
        deploy()

    assert str(caught.value) == f"{path} exists already with other content"
    assert caught.value.hint == "it is damaged: remove it and run the same command again"


def test_the_next_drop_leaves_the_earlier_tarballs_and_says_so(drops: Drops, deploy, root, tmp_path) -> None:
    drops.image(REDIS, b"one")
    drops.preload = [REDIS]
    deploy()
    before = tarballs(root)
    following = drops_at(tmp_path / "next")
    following.image(REDIS, b"two")
    following.preload = [REDIS]

    made = deploy(following)

    assert made.kept == (FOLDER / before[0].name,)
    assert len(tarballs(root)) == 2


def test_a_blob_of_eight_gibibytes_still_fits_its_header() -> None:
    header = _Member("blobs/sha256/x", 9 << 30, of(b""), lambda sink: None).header

    assert tarfile.TarInfo.frombuf(header, "utf-8", "strict").size == 9 << 30
    assert len(header) == 512
    assert io.BytesIO(header).read(14) == b"blobs/sha256/x"
