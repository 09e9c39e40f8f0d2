"""The static tree of a site: the same twice, switched under readers, whole after a kill at any step."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import requests

from airlift import digest as digests
from airlift.connected.sources.charts import ChartSource
from airlift.errors import PolicyError, StoreError, UsageError
from airlift.manifest import Chart, Target
from airlift.progress import Silent
from airlift.site import drops
from airlift.site.config import Site
from airlift.site.listing import Held, Listing, Name, Service
from airlift.site.mirrors import charts, models, wheels
from airlift.site.site_yaml import RegistryConfig
from airlift.site.static_tree import export
from tests.components import require_root
from tests.support.catalog import carry as carry_chart
from tests.support.charts import chart
from tests.support.cli import environment
from tests.support.indexes import running_index
from tests.support.package_site import carry
from tests.support.site_bundles import Cargo, make_site, ship, take
from tests.support.sites import drop, publish
from tests.support.sources import settings
from tests.support.static_nginx import appliance_nginx
from tests.support.wheel_source import Bench

HERE = Target(python=f"3.{sys.version_info.minor}", platform="linux/amd64", libc="glibc-2.28")


def file_listing(site: Site, name: str, data: bytes) -> Listing:
    digest = site.store.put_bytes(data)
    value = {"digest": digest, "size": len(data)}
    held = Held(Service.FILES, name, digest, len(data), "application/octet-stream")
    return Listing((Name(Service.FILES, name, value),), (held,))


def model_listing(site: Site, model_id: str, files: Mapping[str, bytes]) -> Listing:
    cargo = Cargo()
    model = cargo.model(model_id, files)
    for data in (*cargo.small.values(), *cargo.large.values()):
        site.store.put_bytes(data)
    return models.listing(model, site.store)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    made = make_site(tmp_path / "site")
    with running_index() as index:
        index.wheel("acme.plug_in", "1.0", requires=["acme-torch>=2"], python=">=3.9")
        index.wheel("acme_torch", "2.1.0+cpu", payload=b"t" * 5000)
        (tmp_path / "connected").mkdir()
        bench = Bench(tmp_path / "connected", index.url)
        entry = bench.resolve("Acme_Plug-In", targets=[HERE])
        carry(entry, bench.source(), made.store, bench.cache)
    (tmp_path / "app.tgz").write_bytes(chart("app", "1.0.0"))
    source = ChartSource(settings(tmp_path, environment={"PATH": os.environ["PATH"]}))
    signed = source.resolve(Chart.model_validate({"path": "app.tgz"}), None)
    carry_chart(signed, made.store, source.fetch)
    listings = [wheels.listing(item.artifact, made.store) for item in entry.artifacts]
    listings += [charts.listing(item.artifact, made.store) for item in signed.artifacts]
    listings.append(model_listing(made, "acme/fraud", {"config.json": b"{}", "sub/model.bin": b"m"}))
    publish(made.journal_path, [*listings, file_listing(made, "docs/a b.txt", b"one")])
    return made


def content_of(tree: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(tree)): str(path.readlink()).encode() if path.is_symlink() else path.read_bytes()
        for path in tree.rglob("*")
        if path.is_symlink() or path.is_file()
    }


def test_nginx_says_what_a_page_is_and_that_it_is_asked_for_again(site: Site, tmp_path: Path) -> None:
    export(site, tmp_path / "tree", Silent())
    json_type = "application/vnd.pypi.simple.v1+json"
    with appliance_nginx(tmp_path / "tree", tmp_path / "nginx") as url:
        for path, accept, kind in (
            ("simple/", "text/html", "text/html"),
            ("simple/acme-torch/", json_type, json_type),
            ("charts/index.yaml", "*/*", "application/yaml"),
            ("files/", "*/*", "application/json"),
        ):
            page = requests.get(f"{url}/{path}", headers={"Accept": accept}, timeout=5)
            assert (page.status_code, page.headers["Content-Type"]) == (200, kind), path
            # Of a page's second and length nginx would make an ETag that two drops can share.
            assert "ETag" not in page.headers, path
            if path.startswith("simple"):
                assert (page.headers["Vary"], page.headers["Cache-Control"]) == ("Accept", "no-cache")


def test_two_exports_of_one_state_are_identical_and_the_second_does_nothing(site: Site, tmp_path: Path) -> None:
    first, again, other = (export(site, tmp_path / name, Silent()) for name in ("a", "a", "b"))
    assert (first.changed, again.changed, other.changed) == (True, False, True)
    assert first.generation == again.generation
    assert first.state == other.state
    assert content_of(tmp_path / "a") == content_of(tmp_path / "b")
    assert first.files == len(content_of(tmp_path / "a"))
    blob = next((tmp_path / "a" / "charts").rglob("*.tgz"))
    assert (tmp_path / "a/hf/acme/fraud/resolve/main/sub/model.bin/content").read_bytes() == b"m"
    assert blob.samefile(site.store.path(digests.of(blob.read_bytes())))


def test_a_new_drop_is_switched_to_and_the_older_generation_goes_with_the_next(site: Site, tmp_path: Path) -> None:
    first = export(site, tmp_path / "tree", Silent())
    publish(site.journal_path, [file_listing(site, "docs/a b.txt", b"two")], drop(2))
    second = export(site, tmp_path / "tree", Silent())
    assert (tmp_path / "tree" / "files" / "docs" / "a b.txt").read_bytes() == b"two"
    old = digests.hex_of(digests.of(b"one"))
    assert (tmp_path / "tree" / "files" / old / "docs" / "a b.txt").read_bytes() == b"one"
    # A server may be on its way through it.
    assert first.generation.is_dir()
    publish(site.journal_path, [file_listing(site, "docs/a b.txt", b"three")], drop(3))
    third = export(site, tmp_path / "tree", Silent())
    assert not first.generation.exists()
    assert second.generation.is_dir()
    assert third.generation.is_dir()


def test_a_client_that_asks_while_the_tree_is_switched_gets_one_drop_or_the_other(tmp_path: Path) -> None:
    site = make_site(tmp_path / "site")
    shown: dict[str, bytes] = {}
    for sequence, word in ((1, b"first"), (2, b"second")):
        cargo = Cargo()
        model = cargo.model(
            "acme/fraud", {"config.json": word, "sub dir/model.bin": word * 1000}, lfs={"sub dir/model.bin"}
        )
        shown[model.facts["revision"]] = word
        take(site, ship(cargo, tmp_path / str(sequence), sequence=sequence))
        export(site, tmp_path / "tree", Silent())
    wrong: list[str] = []
    seen: set[str] = set()
    over = threading.Event()
    with appliance_nginx(tmp_path / "tree", tmp_path / "nginx") as url:

        def ask(revisions: Sequence[str]) -> None:
            session = requests.Session()
            while not over.is_set():
                for revision in revisions:
                    for path, times in (("config.json", 1), ("sub%20dir/model.bin", 1000)):
                        answer = session.get(f"{url}/hf/acme/fraud/resolve/{revision}/{path}", timeout=30)
                        commit = answer.headers.get("X-Repo-Commit", "none")
                        if answer.status_code != 200 or answer.content != shown.get(commit, b"none") * times:
                            wrong.append(f"{revision} {path}: {answer.status_code} {answer.headers}")
                        seen.add(commit)

        readers = [threading.Thread(target=ask, args=(given,)) for given in (["main"], ["main"], list(shown))]
        for reader in readers:
            reader.start()
        for number in range(60):
            drops.activate(site, f"stable/{1 + number % 2}")
            export(site, tmp_path / "tree", Silent())
        over.set()
        for reader in readers:
            reader.join()
    assert wrong == []
    assert seen == set(shown)


def test_a_link_or_file_that_somebody_changed_is_written_again(site: Site, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    whole = export(site, tree, Silent())
    before = content_of(tree)
    link = tree / "hf/acme/fraud/resolve/main/config.json"
    elsewhere = link.readlink()
    link.unlink()
    link.symlink_to("elsewhere")
    again = export(site, tree, Silent())
    assert (again.changed, again.state) == (True, whole.state)
    assert link.readlink() == elsewhere
    (tree / "simple/index.html").write_bytes(b"")
    assert export(site, tree, Silent()).changed
    assert content_of(tree) == before


def test_charts_that_are_in_a_registry_are_left_out_and_named(tmp_path: Path) -> None:
    site = make_site(tmp_path / "site", registry=RegistryConfig(url="https://registry.example"))
    publish(site.journal_path, [model_listing(site, "acme/fraud", {"config.json": b"{}"})])
    done = export(site, tmp_path / "tree", Silent())
    assert done.skipped == {"charts": "they are in the registry https://registry.example"}
    assert not (tmp_path / "tree/charts").exists()
    assert (tmp_path / "tree/hf/acme/fraud/resolve/main/config.json/content").read_bytes() == b"{}"


@pytest.mark.parametrize("branch", ["../../../x", "a//b", "x/.."])
def test_a_branch_that_is_no_path_below_the_tree_ends_the_export(tmp_path: Path, branch: str) -> None:
    site = make_site(tmp_path / "site")
    cargo = Cargo()
    cargo.model("acme/fraud", {"config.json": b"{}"}, branch=branch)
    take(site, ship(cargo, tmp_path / "1"))
    with pytest.raises(StoreError, match="expected a path below the tree"):
        export(site, tmp_path / "tree", Silent())
    assert not (tmp_path / "tree").is_symlink()


def test_what_is_no_export_is_left_alone(site: Site, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "link").symlink_to("mine")
    with pytest.raises(UsageError, match="exists and is no export"):
        export(site, tmp_path / "mine", Silent())
    with pytest.raises(UsageError, match="which no export made"):
        export(site, tmp_path / "link", Silent())


KILLED = """
import os, signal, sys
from pathlib import Path
from airlift.site.config import load_site
from airlift.progress import Silent
from airlift.site.static_tree import export

site, left = load_site(Path(sys.argv[1])), int(sys.argv[3])
CHANGES = {"os.mkdir", "os.rename", "os.link", "os.symlink", "os.remove", "os.rmdir", "os.chmod"}

moved = False

def step(event, arguments):
    global left, moved
    left -= event in CHANGES
    if (event in CHANGES and left < 0) or (moved and event == "open"):
        os.kill(os.getpid(), signal.SIGKILL)
    # Of the step after it there is nothing but to make the link durable.
    moved = event == "os.rename" and str(arguments[1]) == sys.argv[2] and sys.argv[4] == "moved"

sys.addaudithook(step)
export(site, Path(sys.argv[2]), Silent())
"""


def test_after_a_kill_at_any_step_the_link_is_on_a_whole_tree_and_the_next_export_ends_well(
    site: Site, tmp_path: Path
) -> None:
    folder = tmp_path / "www"
    folder.mkdir()
    tree = folder / "tree"
    export(site, tree, Silent())
    before = content_of(tree)
    steps, last = 0, "any"
    for number in range(2, 200):
        publish(site.journal_path, [file_listing(site, "n", str(number).encode())], drop(number))
        done = subprocess.run(
            [sys.executable, "-c", KILLED, str(site.root), str(tree), str(steps), last],
            env=environment(tmp_path), capture_output=True, check=False, timeout=60,
        )  # fmt: skip
        shown = content_of(tree)
        if done.returncode == 0:
            # All steps were tried but for that after the switch.
            last, steps, before = "moved", steps * 2, shown
            continue
        assert done.returncode == -signal.SIGKILL, done.stderr
        assert export(site, tree, Silent()).generation.is_dir()
        after = content_of(tree)
        assert shown in (before, after)
        names = sorted(path.name for path in folder.iterdir())
        assert names[0] == "tree"  # and nothing hidden, which would come before it
        assert len(names) <= 3
        if last == "moved":
            assert shown == after != before
            break
        before = after
        steps += 7
    assert steps > 50
    assert last == "moved"


def test_an_export_to_a_full_disk_names_the_path_and_leaves_nothing(tmp_path: Path) -> None:
    require_root()
    disk = tmp_path / "disk"
    disk.mkdir()
    site = make_site(tmp_path / "site")
    publish(site.journal_path, [file_listing(site, f"file{number}", bytes([number]) * 300_000) for number in range(4)])
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], check=True)
    try:
        (disk / ".tree.part.0123abcd").mkdir()
        (disk / ".tree.part.0123abcd/rest").write_bytes(b"r" * 500_000)
        for _ in range(2):
            with pytest.raises(StoreError) as caught:
                export(site, disk / "tree", Silent())
            assert caught.value.message == f"exporting {disk}/tree: No space left on device"
            assert caught.value.hint == "free some space on that disk and run the same command again"
            assert list(disk.iterdir()) == []
        subprocess.run(["mount", "-o", "remount,size=8m", disk], check=True)
        export(site, disk / "tree", Silent())
        assert (disk / "tree/files/file3").read_bytes() == b"\3" * 300_000
    finally:
        subprocess.run(["umount", "-l", disk], check=False)


def test_two_names_that_no_tree_can_have_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    site = make_site(tmp_path / "site")
    listings = [file_listing(site, name, name.encode()) for name in ("a", "a/b", "c/d")]
    publish(site.journal_path, listings)
    with pytest.raises(PolicyError) as caught:
        export(site, tmp_path / "tree", Silent())
    assert caught.value.message == (
        "a tree of files cannot have all names of the drops\n  files/a/b is below files/a, which is a file"
    )
    assert [path.name for path in tmp_path.iterdir() if "tree" in path.name] == []
