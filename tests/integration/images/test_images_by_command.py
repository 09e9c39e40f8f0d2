"""Images through the command line: resolve, build, open, push, pull; what is wrong is named, nothing is left behind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.cli import airlift, desk, ok
from tests.support.images import Box, skopeo
from tests.support.registry import Registry, cut, lie, redirect, running_front, running_registry


def manifest(home: Path, *images: str, more: str = "") -> None:
    lines = "\n".join(f"  - {item}" for item in images)
    (home / "drop.yaml").write_text(
        f"apiVersion: airlift/v1\nkind: Drop\nmetadata: {{name: vision}}\n{more}images:\n{lines}\n"
    )


def login(home: Path, registry: Registry) -> dict[str, str]:
    folder = home / "docker"
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(registry.docker_config()))
    return {"DOCKER_CONFIG": str(folder), **({"SSL_CERT_FILE": str(registry.ca)} if registry.ca else {})}


def test_images_go_from_a_registry_through_a_bundle_to_skopeo_and_through_another_registry(tmp_path: Path) -> None:
    box = Box(tmp_path / "box")
    index = box.multi("1")
    with running_registry(tmp_path / "registry", secure=True) as registry:
        box.push(registry, "lib/app")
        env = login(tmp_path, registry)
        place = desk(tmp_path)
        manifest(tmp_path, f"{{ref: '{registry.host}/lib/app:1', platforms: all}}")
        ok("resolve", "drop.yaml", "-o", "a.lock.json", "--cache", "cache", home=tmp_path, env=env)
        ok("resolve", "drop.yaml", "-o", "b.lock.json", "--no-cache", home=tmp_path, env=env)
        assert (tmp_path / "a.lock.json").read_bytes() == (tmp_path / "b.lock.json").read_bytes()
        build = ["build", "a.lock.json", "-o", "v.airlift", "--sequence", "1", *place.signers, *place.recipients]
        ok(*build, "--no-cache", home=tmp_path, env=env)
        pushed = ok("push", "v.airlift", f"oci://{registry.host}/drops/v:1", "--json", home=tmp_path, env=env).json
        pulled = ok(
            "pull", f"oci://{registry.host}/drops/v:1", "-o", "w.airlift", "--json", home=tmp_path, env=env
        ).json
        assert pushed == pulled
        assert (tmp_path / "w.airlift").read_bytes() == (tmp_path / "v.airlift").read_bytes()
        ok("open", "w.airlift", "--trust", place.trust, "--identity", place.identity, "-o", "out.tar", home=tmp_path)
        name = f"{registry.host}/lib/app:1"
        skopeo("copy", "--all", f"oci-archive:{tmp_path}/out.tar:{name}", f"dir:{tmp_path}/copied")
        assert (tmp_path / "copied" / "manifest.json").read_bytes() == box.bytes(index.digest)


def test_every_image_that_lacks_a_platform_is_named_in_one_run(tmp_path: Path) -> None:
    box = Box(tmp_path / "box")
    box.multi("good")
    box.multi("bad", ("linux/amd64", "linux/s390x"))
    box.image("single", platform="linux/ppc64le")
    with running_registry(tmp_path / "registry") as registry:
        box.push(registry, "lib/app")
        name = f"{registry.host}/lib/app"
        tags = ("good", "bad", "good", "single")
        entries = [f"{{ref: '{name}:{tag}', as: 'x.io/a/b{n}:{tag}'}}" for n, tag in enumerate(tags)]
        manifest(tmp_path, *entries, more="platforms: [linux/arm64, linux/amd64]\n")
        ran = airlift("resolve", "drop.yaml", "-o", "drop.lock.json", home=tmp_path)
        assert ran.code == 11
        assert f"{name}:bad: no image for linux/arm64; there is linux/amd64, linux/s390x" in ran.err
        assert f"{name}:single: no image for linux/arm64, linux/amd64; there is linux/ppc64le" in ran.err
        assert "good" not in ran.err
        assert not (tmp_path / "drop.lock.json").exists()


def test_a_tag_that_moved_after_the_lock_does_not_move_the_drop(tmp_path: Path) -> None:
    box = Box(tmp_path / "box")
    old = box.image("1")
    with running_registry(tmp_path / "registry") as registry:
        box.push(registry, "lib/app")
        place = desk(tmp_path)
        manifest(tmp_path, f"'{registry.host}/lib/app:1'")
        ok("resolve", "drop.yaml", "-o", "drop.lock.json", "--no-cache", home=tmp_path)
        box.image("1", text="moved")
        box.push(registry, "lib/app")
        lock = (tmp_path / "drop.lock.json").read_bytes()
        ok("resolve", "drop.yaml", "-o", "drop.lock.json", "--no-cache", home=tmp_path)
        assert (tmp_path / "drop.lock.json").read_bytes() == lock
        plain = ["build", "drop.lock.json", "-o", "v.airlift", "--sequence", "1", *place.signers, "--plain"]
        ok(*plain, "--no-cache", home=tmp_path)
        ok("open", "v.airlift", "--trust", place.trust, "-o", "out", home=tmp_path)
        assert (tmp_path / "out" / "blobs" / "sha256" / old.digest[7:]).exists()


@pytest.mark.parametrize("fault", ["lie", "loop"])
def test_a_registry_that_misbehaves_at_build_leaves_nothing(tmp_path: Path, fault: str) -> None:
    box = Box(tmp_path / "box")
    box.image("1")
    with running_registry(tmp_path / "registry") as registry, running_front(registry) as front:
        box.push(registry, "lib/app")
        place = desk(tmp_path)
        manifest(tmp_path, f"'{front.host}/lib/app:1'")
        ok("resolve", "drop.yaml", "-o", "drop.lock.json", "--no-cache", home=tmp_path)
        front.faults.append(
            lie(lambda data: data[::-1], match="/blobs/") if fault == "lie" else redirect(front.url, match="/blobs/")
        )
        before = sorted(path.name for path in tmp_path.iterdir())
        plain = ["build", "drop.lock.json", "-o", "v.airlift", "--sequence", "1", *place.signers, "--plain"]
        ran = airlift(*plain, "--no-cache", home=tmp_path)
        assert ran.code == (12 if fault == "lie" else 11)
        assert f"{front.host}/lib/app:1" in ran.err
        assert sorted(path.name for path in tmp_path.iterdir()) == before
        front.faults[:] = [cut(0.5, match="/blobs/", times=2)]
        ok(*plain, "--no-cache", home=tmp_path)


def test_only_a_bundle_is_pushed_and_a_target_is_an_address(tmp_path: Path) -> None:
    (tmp_path / "no.airlift").write_bytes(b"no bundle" * 100)
    ran = airlift("push", "no.airlift", "oci://127.0.0.1:1/a:1", home=tmp_path)
    assert ran.code == 13
    ran = airlift("pull", "127.0.0.1:1/a:1", "-o", "x.airlift", home=tmp_path)
    assert ran.code == 2
    assert "expected oci://HOST/REPOSITORY:TAG" in ran.err
