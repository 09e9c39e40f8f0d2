from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path, PurePosixPath

import pytest

from airlift import fs
from airlift.errors import DeployError, IntegrityError, StoreError
from airlift.site.config import load_site
from airlift.site.deploy import k3s
from airlift.site.deploy.blobs import StoreBlobs
from airlift.site.deploy.files import Action, make_directories
from tests.support.drops import Drops, drops_at
from tests.unit.deploy.conftest import tree

REDIS = "docker.io/library/redis:7.4"


@pytest.fixture
def whole(drops: Drops) -> Drops:
    drops.image(REDIS, b"redis")
    drops.chart("site", "1.0.0", [REDIS])
    drops.release("site", **{"v.yaml": b"a: 1\n"})
    drops.preload = [REDIS]
    return drops


def test_a_second_run_changes_nothing(whole: Drops, deploy, root) -> None:
    first = deploy()
    before = {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in root.rglob("*")}

    second = deploy()

    assert {item.action for item in first.files} == {Action.CREATE}
    assert {item.action for item in second.files} == {Action.UNCHANGED}
    assert second.changes == ()
    assert {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in root.rglob("*")} == before


def test_a_second_run_does_not_need_the_images_blobs(whole: Drops, deploy, plan) -> None:
    deploy()
    read: list[str] = []
    chunks = whole.store.chunks
    whole.store.chunks = lambda digest, size, **more: (read.append(digest), chunks(digest, size, **more))[1]  # type: ignore[method-assign]

    plan()

    layer = max(whole.store.digests(), key=whole.store.size)
    assert layer not in read


def test_a_root_that_may_not_be_read_is_said_to_be_so(whole: Drops, plan, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to be somebody else for a moment")
    os.seteuid(65534)
    try:
        with pytest.raises(StoreError, match="Permission denied"):
            plan()
        with pytest.raises(StoreError, match="Permission denied"):
            load_site(tmp_path)
    finally:
        os.seteuid(0)


def test_a_plan_writes_nothing(whole: Drops, plan, root) -> None:
    made = plan()

    assert len(made.changes) == 4
    assert not root.exists()


def test_what_the_plan_says_is_what_is_written(whole: Drops, plan, root) -> None:
    made = plan()
    k3s.write(made)

    found = tree(root)
    assert {str(item.path) for item in made.files} == set(found)
    for item in made.files:
        mode, content = found[str(item.path)]
        assert (mode, len(content)) == (item.mode, item.size)
        assert item.text is None or item.text.encode() == content


def test_modes_do_not_depend_on_the_umask(whole: Drops, plan, tmp_path) -> None:
    modes = []
    for name, mask in (("a", 0o077), ("b", 0o000)):
        before = os.umask(mask)
        try:
            k3s.write(plan(at=tmp_path / name))
        finally:
            os.umask(before)
        found = sorted((tmp_path / name).rglob("*"))
        modes.append({str(path.relative_to(tmp_path / name)): oct(path.stat().st_mode) for path in found})

    assert modes[0] == modes[1]
    assert modes[0]["var/lib/rancher/k3s/server"] == oct(0o40700)
    assert modes[0]["var/lib/rancher/k3s/agent/images"] == oct(0o40755)


def test_a_file_with_another_mode_is_written_again(whole: Drops, deploy, root) -> None:
    deploy()
    (root / "etc/rancher/k3s/registries.yaml").chmod(0o666)

    (changed,) = deploy().changes

    assert (changed.action, str(changed.path)) == (Action.REPLACE, "etc/rancher/k3s/registries.yaml")
    assert (root / changed.path).stat().st_mode & 0o7777 == 0o600


def test_files_appear_by_rename_from_a_hidden_part_file(whole: Drops, plan, root, monkeypatch) -> None:
    seen: list[tuple[str, str]] = []
    replace = Path.replace

    def spy(self: Path, target: Path) -> Path:
        seen.append((self.name, Path(target).name))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", spy)
    made = plan()
    k3s.write(made)

    assert [target for _, target in seen] == [item.path.name for item in made.files]
    assert all(part.startswith(f".{target}.") and part.endswith(".part") for part, target in seen)


def test_parts_of_a_killed_run_are_removed_by_the_next(whole: Drops, plan, root) -> None:
    folder = root / "var/lib/rancher/k3s/agent/images"
    folder.mkdir(parents=True)
    (folder / ".abc.tar.4711.part").write_bytes(b"x")

    k3s.write(plan())

    assert not list(folder.glob(".*"))


def test_a_full_disk_leaves_no_part_and_the_next_run_goes_on(whole: Drops, plan, root, monkeypatch) -> None:
    real = fs.sync_directory
    calls = 0

    def fail(path: Path) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise OSError(28, "No space left on device", str(path))
        real(path)

    monkeypatch.setattr(fs, "sync_directory", fail)
    with pytest.raises(StoreError, match="No space left on device"):
        k3s.write(plan())
    assert not list(root.rglob("*.part"))

    monkeypatch.undo()
    k3s.write(plan())
    assert plan().changes == ()


def test_a_disk_without_room_is_found_before_the_first_write(whole: Drops, plan, root, monkeypatch) -> None:
    made = plan()
    real = os.statvfs(root.parent)
    monkeypatch.setattr(os, "statvfs", lambda _path: os.statvfs_result((*real[:4], 0, *real[5:])))

    with pytest.raises(StoreError) as caught:
        k3s.write(made)

    size = sum(item.size for item in made.files)
    assert str(caught.value) == f"writing below {root.parent}: {size} bytes are needed and 0 are free"
    assert not root.exists()


def test_a_skip_file_that_hides_a_manifest_from_k3s_is_mentioned(whole: Drops, plan, root) -> None:
    skip = root / "var/lib/rancher/k3s/server/manifests/airlift-site.yaml.skip"
    skip.parent.mkdir(parents=True)
    skip.touch()

    assert plan().notes[0] == f"{skip} makes K3s ignore airlift-site.yaml; remove it to deploy"


def test_content_that_changes_after_the_plan_is_not_written(whole: Drops, plan, root) -> None:
    made = plan()
    layer = whole.store.path(max(whole.store.digests(), key=whole.store.size))
    layer.write_bytes(b"y" + layer.read_bytes()[1:])

    with pytest.raises(IntegrityError):
        k3s.write(made)

    assert tree(root) == {}


def test_a_link_that_leads_out_of_the_root_is_refused(whole: Drops, plan, root, tmp_path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (root / "var/lib").mkdir(parents=True)
    (root / "var/lib/rancher").symlink_to(outside)

    with pytest.raises(DeployError, match="leads out of"):
        plan()


def test_a_link_inside_the_root_is_followed(whole: Drops, deploy, root) -> None:
    (root / "data/rancher").mkdir(parents=True)
    (root / "var/lib").mkdir(parents=True)
    (root / "var/lib/rancher").symlink_to("../../data/rancher")

    deploy()

    assert list((root / "data/rancher/k3s/server/manifests").iterdir())


def test_a_directory_in_the_place_of_a_file_is_refused(whole: Drops, plan, root) -> None:
    (root / "etc/rancher/k3s/registries.yaml").mkdir(parents=True)

    with pytest.raises(DeployError, match="is not a regular file"):
        plan()


def test_drops_of_several_channels_are_deployed_together(drops: Drops, root, tmp_path) -> None:
    drops.image(REDIS)
    drops.chart("a", "1.0.0", [REDIS])
    drops.release("a")
    other = drops_at(tmp_path / "store")
    other.chart("b", "1.0.0", [REDIS])
    other.release("b")
    made = k3s.make_plan(
        [drops.config(), other.config(name="tools", channel="tools")],
        root=root,
        endpoint=k3s.Endpoint("http://10.0.0.1/v2"),
        platform=k3s.Platform("linux", "amd64"),
        blobs=StoreBlobs(drops.store),
        values=drops.store.read,
    )

    assert [item.path.name for item in made.files][-2:] == ["airlift-a.yaml", "airlift-b.yaml"]


def test_notes_say_how_success_is_judged_and_that_the_helm_job_needs_its_image(whole: Drops, plan) -> None:
    notes = "\n".join(plan().notes)

    assert "label `status` of its newest Secret sh.helm.release.v1." in notes
    assert "no klipper-helm image is in the drop" in notes
    assert "keep secrets out of charts and values" in notes

    whole.image("docker.io/rancher/klipper-helm:v0.11.1-build20260615")
    assert "klipper-helm" not in "\n".join(plan().notes)


def test_deploying_needs_no_network_and_no_connected_side() -> None:
    code = (
        "import sys, airlift.site.deploy.k3s\n"
        "assert not [n for n in sys.modules if n.startswith('airlift.connected') or n in ('requests', 'aiohttp')]"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_directories_that_another_command_makes_meanwhile_are_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_dir = Path.is_dir

    def late(path: Path) -> bool:
        found = is_dir(path)
        if not found and not path.exists():
            path.mkdir()
        return found

    monkeypatch.setattr(Path, "is_dir", late)
    make_directories(tmp_path / "root", PurePosixPath("etc/rancher"))
    monkeypatch.undo()
    assert (tmp_path / "root/etc/rancher").is_dir()
    (tmp_path / "other").write_text("a file")
    with pytest.raises(StoreError, match="File exists"):
        make_directories(tmp_path / "other", PurePosixPath("etc"))
