"""Imports: what they show, when, and what a refused one leaves."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from airlift import oci
from airlift.artifact import Kind
from airlift.digest import of as digest_of
from airlift.errors import BundleError, IntegrityError, PolicyError, TrustError
from airlift.progress import Silent
from airlift.site import drops
from airlift.site.catalog import Catalog
from airlift.site.config import Site
from airlift.site.listing import Service
from tests.support.site_bundles import SBOM, Cargo, compact, make_site, seal, ship, take

BIG = bytes(range(256)) * 40_000


def cargo(*, tool: bytes = b"tool", layer: bytes = b"layer", channel: str = "stable") -> Cargo:
    made = Cargo(channel)
    made.image("docker.io/library/app:1", layer)
    made.file("tool", tool)
    return made


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return make_site(tmp_path / "site")


def blobs(site: Site) -> set[str]:
    return {path.name for path in (site.root / "store" / "blobs" / "sha256").iterdir()}


def assert_untouched(site: Site) -> None:
    assert blobs(site) == set()
    assert list((site.root / "store" / "ingest").iterdir()) == []
    assert list(site.drops_dir.iterdir()) == []
    assert drops.list_drops(site) == []
    assert Catalog(site.journal_path, site.store).keys(Service.FILES) == []


def test_an_import_is_stored_listed_and_active(site: Site, tmp_path: Path) -> None:
    made = cargo()
    imported = take(site, ship(made, tmp_path / "a"))
    (drop,) = drops.list_drops(site)
    assert drop == imported.drop
    assert (drop.active, drop.state, drop.artifacts, drop.name) == (True, "ready", 2, "vision")
    assert imported.summary["content_id"] == drop.content_id
    assert imported.summary["signers"] == ["ann"]
    assert (site.drops_dir / drop.release / "sbom.cdx.json").read_bytes() == SBOM
    catalog = Catalog(site.journal_path, site.store)
    (value,) = catalog.names(Service.FILES, "tool")
    assert catalog.read(value["digest"], limit=100) == b"tool"
    assert catalog.tags("docker.io/library/app") == ["1"]
    assert [item.kind for item in drops.load_drop(site, drop.release).artifacts] == [Kind.IMAGE, Kind.FILE]
    assert blobs(site) == {name.rpartition("/")[2] for name in made.members() if name.startswith("blobs")}


def test_the_same_release_again_changes_nothing_and_says_so(site: Site, tmp_path: Path) -> None:
    bundle = ship(cargo(), tmp_path / "a")
    first = take(site, bundle)
    again = take(site, bundle)
    assert (first.was_here, again.was_here) == (False, True)
    assert again.drop == first.drop
    assert again.summary == first.summary


def test_a_lost_blob_comes_back_with_a_second_import(site: Site, tmp_path: Path) -> None:
    bundle = ship(cargo(), tmp_path / "a")
    take(site, bundle)
    site.store.delete(digest_of(b"layer"))
    assert not take(site, bundle).was_here
    assert site.store.read(digest_of(b"layer")) == b"layer"


def test_a_new_drop_writes_only_what_is_new_and_says_what_changes(site: Site, tmp_path: Path) -> None:
    take(site, ship(cargo(), tmp_path / "a"))
    old = digest_of(b"tool")
    nxt = cargo(tool=b"other tool")
    nxt.file("more", b"more")
    imported = take(site, ship(nxt, tmp_path / "b", sequence=2))
    assert {item.name: item.change for item in imported.changes} == {
        "files/more": "new",
        "files/tool": "changed",
        "v2/docker.io/library/app:1": "same",
    }
    assert site.store.has(old)
    assert Catalog(site.journal_path, site.store).held(Service.FILES, "tool", old) is not None


def test_a_dry_run_says_the_same_and_writes_nothing(site: Site, tmp_path: Path) -> None:
    bundle = ship(cargo(), tmp_path / "a")
    dry = take(site, bundle, dry_run=True)
    assert_untouched(site)
    wet = take(site, bundle)
    assert [item.to_json() for item in dry.changes] == [item.to_json() for item in wet.changes]
    assert (dry.new_blobs, dry.new_bytes) == (wet.new_blobs, wet.new_bytes)


def test_an_older_drop_is_refused_and_can_be_activated(site: Site, tmp_path: Path) -> None:
    first = ship(cargo(), tmp_path / "a")
    one = take(site, first)
    two = take(site, ship(cargo(tool=b"new"), tmp_path / "b", sequence=2))
    with pytest.raises(TrustError, match="sequence 1 of channel stable is too old: 2 was accepted before"):
        take(site, first)
    assert drops.activate(site, one.drop.release[:14]).drop.active
    assert [drop.active for drop in drops.list_drops(site)] == [True, False]
    catalog = Catalog(site.journal_path, site.store)
    assert catalog.names(Service.FILES, "tool")[0]["digest"] == digest_of(b"tool")
    drops.activate(site, "stable/2")
    assert catalog.names(Service.FILES, "tool")[0]["digest"] == digest_of(b"new")
    assert drops.list_drops(site)[1].release == two.drop.release


def test_importing_the_newest_drop_again_makes_it_the_active_one_and_says_so(site: Site, tmp_path: Path) -> None:
    take(site, ship(cargo(), tmp_path / "a"))
    newest = ship(cargo(tool=b"new"), tmp_path / "b", sequence=2)
    assert not take(site, newest).switched
    assert not take(site, newest).switched
    drops.activate(site, "stable/1")
    dry = take(site, newest, dry_run=True)
    assert (dry.was_here, dry.switched, dry.drop.active) == (True, True, False)
    again = take(site, newest)
    assert (again.was_here, again.switched, again.drop.active) == (True, True, True)
    assert [drop.active for drop in drops.list_drops(site)] == [False, True]


def test_one_name_with_two_contents_in_two_channels_is_refused(tmp_path: Path) -> None:
    site = make_site(tmp_path / "site", channels=("stable", "edge"))
    take(site, ship(cargo(), tmp_path / "a"))
    with pytest.raises(PolicyError) as caught:
        take(site, ship(cargo(tool=b"other", channel="edge"), tmp_path / "b"))
    assert str(caught.value) == (
        "channel edge would give other contents to names of another channel\n"
        f"  files/tool is {digest_of(b'tool')} in channel stable"
    )
    assert len(drops.list_drops(site)) == 1
    assert not site.store.has(digest_of(b"other"))


@pytest.mark.parametrize("dry_run", [True, False])
def test_a_drop_does_not_come_back_over_a_name_that_another_channel_took_meanwhile(
    tmp_path: Path, *, dry_run: bool
) -> None:
    site = make_site(tmp_path / "site", channels=("stable", "edge"))
    plain = Cargo()
    plain.file("readme", b"one")
    take(site, ship(plain, tmp_path / "a"))
    newest = ship(cargo(), tmp_path / "b", sequence=2)
    take(site, newest)
    drops.activate(site, "stable/1")
    take(site, ship(cargo(tool=b"other", channel="edge"), tmp_path / "c"))
    with pytest.raises(PolicyError, match=r"files/tool is sha256:.* in channel edge"):
        take(site, newest, dry_run=dry_run)
    assert [drop.active for drop in drops.list_drops(site)] == [True, True, False]


def test_a_layer_of_a_vendor_without_an_address_has_to_be_there(site: Site, tmp_path: Path) -> None:
    made = cargo()
    vendors = oci.describe(b"not carried", "application/vnd.oci.image.layer.nondistributable.v1.tar").to_json()
    config = made.put(compact({"architecture": "amd64", "os": "linux"}), oci.CONFIG).to_json()
    body = {"schemaVersion": 2, "mediaType": oci.MANIFEST, "config": config}
    elsewhere = made.reserve({**body, "layers": [{**vendors, "urls": ["https://vendor.example/x"]}]}, oci.MANIFEST)
    made.add(Kind.IMAGE, "docker.io/library/b:1", elsewhere)
    take(site, ship(made, tmp_path / "a"))
    made.add(Kind.IMAGE, "docker.io/library/c:1", made.reserve({**body, "layers": [vendors]}, oci.MANIFEST))
    with pytest.raises(BundleError, match=r"payload: missing: 1 blob\(s\)\n  sha256:.* of docker.io/library/c:1"):
        take(site, ship(made, tmp_path / "b", sequence=2))


class Listener(Silent):
    """Hears of the notes."""

    def __init__(self, heard: threading.Event) -> None:
        self.heard = heard
        self.notes: list[str] = []

    def note(self, message: str) -> None:
        self.notes.append(message)
        self.heard.set()


def test_a_second_import_waits_for_the_first_and_says_so(site: Site, tmp_path: Path) -> None:
    bundle = ship(cargo(), tmp_path / "a")
    heard = threading.Event()
    listener = Listener(heard)
    with ThreadPoolExecutor(1) as pool:
        with site.locked("pruning", Silent()):
            second = pool.submit(take, site, bundle, progress=listener)
            assert heard.wait(60)
            assert listener.notes == [f"importing {bundle}: waiting for another command that works on {site.root}"]
            assert_untouched(site)
            assert not second.done()
        assert second.result(60).drop.active
    assert not take(site, bundle, progress=listener).switched
    assert len(listener.notes) == 1


def test_many_imports_at_once_end_like_one_after_the_other(site: Site, tmp_path: Path) -> None:
    bundles = [ship(cargo(tool=b"%d" % number), tmp_path / f"b{number}", sequence=number + 1) for number in range(3)]

    def bring(bundle: Path) -> str:
        try:
            return "again" if take(site, bundle).was_here else "new"
        except TrustError as error:
            return "older" if "too old" in error.message else error.message

    with ThreadPoolExecutor(6) as pool:
        ends = list(pool.map(bring, bundles * 2))
    # The newest always gets in, once; an older one only before it.
    assert sorted([ends[2], ends[5]]) == ["again", "new"]
    assert set(ends) <= {"again", "new", "older"}
    kept = [drop.sequence for drop in drops.list_drops(site)]
    assert len(kept) == ends.count("new")
    assert [drop.sequence for drop in drops.list_drops(site) if drop.active] == [3]


def test_a_sparse_index_is_taken(site: Site, tmp_path: Path) -> None:
    made = Cargo()
    made.index("docker.io/library/app:1", made.image_manifest(b"layer"), absent=3)
    take(site, ship(made, tmp_path / "a"))
    held = Catalog(site.journal_path, site.store).held_all(Service.OCI, "docker.io/library/app")
    assert len(held) == 4


def test_what_an_earlier_drop_left_does_not_fill_a_gap(site: Site, tmp_path: Path) -> None:
    take(site, ship(cargo(), tmp_path / "a"))
    members = cargo(tool=b"new").members()
    layer = f"blobs/sha256/{digest_of(b'layer')[7:]}"
    del members[layer]
    seal(members, tmp_path / "b", sequence=2)
    with pytest.raises(BundleError, match=r"payload: missing: 1 blob\(s\)\n  sha256:.* of docker.io/library/app:1"):
        take(site, tmp_path / "b")
    assert not site.store.has(digest_of(b"new"))
    assert site.store.has(digest_of(b"layer"))


def test_a_blob_that_nothing_names_is_refused(site: Site, tmp_path: Path) -> None:
    seal({**cargo().members(), f"blobs/sha256/{digest_of(BIG)[7:]}": BIG}, tmp_path / "a")
    with pytest.raises(BundleError, match="named by no manifest"):
        take(site, tmp_path / "a")
    assert_untouched(site)


def test_a_descriptor_with_another_size_is_refused(site: Site, tmp_path: Path) -> None:
    made = cargo()
    lying = made.put(b"content", oci.LAYER, large=True).to_json() | {"size": 3}
    body = {"schemaVersion": 2, "mediaType": oci.MANIFEST, "config": made.put(b"{}", oci.EMPTY).to_json()}
    made.add(Kind.IMAGE, "docker.io/library/b:1", made.reserve({**body, "layers": [lying]}, oci.MANIFEST))
    with pytest.raises(BundleError, match="has 7 bytes, its descriptor says 3"):
        take(site, ship(made, tmp_path / "a"))
    assert_untouched(site)


def test_a_channel_that_differs_inside_is_refused(site: Site, tmp_path: Path) -> None:
    seal(cargo(channel="edge").members(), tmp_path / "a", channel="stable")
    with pytest.raises(BundleError, match="the drop is made for channel edge, the bundle for stable"):
        take(site, tmp_path / "a")
    assert_untouched(site)


@pytest.mark.parametrize("part", [0.3, 0.6, 0.9])
def test_a_damaged_bundle_leaves_nothing(site: Site, tmp_path: Path, part: float) -> None:
    bundle = ship(cargo(layer=BIG, tool=BIG[:-1]), tmp_path / "a")
    data = bytearray(bundle.read_bytes())
    data[int(len(data) * part)] ^= 1
    bundle.write_bytes(data)
    with pytest.raises(IntegrityError):
        take(site, bundle)
    assert_untouched(site)


def test_an_image_name_that_is_not_complete_is_refused(site: Site, tmp_path: Path) -> None:
    made = Cargo()
    made.image("app:1", b"layer")
    with pytest.raises(BundleError, match="app:1 is not the complete name"):
        take(site, ship(made, tmp_path / "a"))
    assert_untouched(site)


class PulledOut(Silent):
    """Somebody presses Ctrl-C after so many bytes."""

    def __init__(self, after: int) -> None:
        self.left = after

    def advance(self, amount: int) -> None:
        self.left -= amount
        if self.left < 0:
            raise KeyboardInterrupt


def test_an_import_that_ended_half_way_goes_on_from_another_place_and_writes_only_what_is_missing(
    site: Site, tmp_path: Path
) -> None:
    made = Cargo()
    for number in range(8):
        made.file(f"file{number}", bytes([number]) * 1_000_000)
    bundle = ship(made, tmp_path / "first medium")
    with pytest.raises(KeyboardInterrupt):
        take(site, bundle, progress=PulledOut(4_500_000))
    folder = site.root / "store" / "blobs" / "sha256"
    half = {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.iterdir()}
    assert 3 <= sum((folder / name).stat().st_size >= 1_000_000 for name in half) < 8
    (tmp_path / "elsewhere").mkdir()
    moved = bundle.rename(tmp_path / "elsewhere" / "second medium")
    done = take(site, moved)
    assert done.drop.active
    assert done.new_blobs == len(blobs(site)) - len(half)
    after = {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.iterdir()}
    assert {name: after[name] for name in half} == half
