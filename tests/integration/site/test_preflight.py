"""What `airlift preflight` says before an import, and that it writes nothing."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme

from airlift.bundle.layout import Member, PayloadPlan
from airlift.bundle.writer import BundleWriter
from airlift.cli.exit import code_of
from airlift.digest import of as digest_of
from airlift.errors import BundleError, PolicyError
from airlift.progress import Silent
from airlift.site import preflight
from airlift.site.config import Site
from airlift.site.importer import import_bundle
from airlift.site.preflight_findings import Finding, Severity, gravest
from airlift.site.site_yaml import IndexConfig, RegistryConfig
from airlift.transport.settings import HttpSettings
from airlift.trust.gate import CLOCK_HINT
from airlift.trust.keys import write_key
from tests.components import require_root
from tests.support.bundles import ANN, NOW, OTHER_SITE, SITE
from tests.support.cli import airlift
from tests.support.registry import running_registry
from tests.support.site_bundles import SBOM, Cargo, make_site, ship, take

BIG = b"\1" * (5 * 1024 * 1024)


def bundle(folder: Path, number: int) -> Path:
    cargo = Cargo()
    cargo.image("docker.io/library/app:1", b"layer %d" % number, BIG)
    cargo.file("tool", b"tool of month %d" % number)
    return ship(cargo, folder / f"{number}.airlift", sequence=number)


def look(site: Site, path: Path, now: datetime = NOW) -> list[Finding]:
    ticks = iter(range(1000))
    flight = preflight.Flight(site, path, now, b"", HttpSettings(retries=0), Silent(), lambda: next(ticks))
    return flight.run()


def of(findings: list[Finding], check: str) -> list[tuple[Severity, str]]:
    return [(item.severity, item.message) for item in findings if item.check == check]


def code(findings: list[Finding]) -> int:
    worst = gravest(findings)
    return 0 if worst is None else code_of(worst)


def state(site: Site) -> dict[str, bytes]:
    files = (path for path in site.root.rglob("*") if path.is_file() and not path.name.startswith("state.db-"))
    return {str(path): path.read_bytes() for path in files}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    made = make_site(tmp_path / "site")
    take(made, bundle(tmp_path, 2))
    return made


def test_a_good_bundle_is_ready_and_nothing_is_written(site: Site, tmp_path: Path) -> None:
    path = bundle(tmp_path, 3)
    before = state(site)
    found = look(site, path)
    assert [item for item in found if item.severity is not Severity.OK] == []
    assert {item.check for item in found} == {
        "version",
        "signatures",
        "expiry",
        "sequence",
        "clock",
        "identity",
        "names",
        "space",
        "lock",
        "time",
    }
    ran = airlift("preflight", path, "--site", site.root, "--json", home=tmp_path)
    assert (ran.code, ran.json["ready"]) == (0, True)
    assert state(site) == before


def test_the_needed_space_is_what_the_store_does_not_have(site: Site, tmp_path: Path) -> None:
    fresh = make_site(tmp_path / "fresh")
    path = bundle(tmp_path, 3)
    (first,) = of(look(fresh, path), "space")
    taken = take(fresh, path)
    assert f"the import needs 5.0 MiB ({taken.new_bytes} bytes exactly, by the manifests)" in first[1]
    (again,) = of(look(fresh, path), "space")
    assert "needs 0.0 MiB (0 bytes exactly" in again[1]
    (some,) = of(look(site, path), "space")
    assert int(some[1].partition(" MiB (")[2].split()[0]) < 10_000


def test_an_older_bundle_is_refused_with_what_to_do(site: Site, tmp_path: Path) -> None:
    found = look(site, bundle(tmp_path, 1))
    (sequence,) = [item for item in found if item.severity is Severity.ERROR]
    assert sequence.message == "sequence 1 of channel stable is too old: 2 was accepted before"
    assert sequence.remedy == "to go back to a drop that is still here, use: airlift drops activate"
    assert code(found) == 14


def test_a_bundle_for_another_site_is_refused(tmp_path: Path) -> None:
    site = make_site(tmp_path / "site")
    write_key(tmp_path, "other", OTHER_SITE, passphrase=None)
    (tmp_path / "site.keys" / "site.key").write_bytes((tmp_path / "other.key").read_bytes())
    found = look(site, bundle(tmp_path, 1))
    assert [(item.check, item.severity) for item in found if item.error] == [("identity", Severity.ERROR)]
    assert of(found, "space")[0][1].count("at most, as if nothing of it were here") == 1
    assert code(found) == 13


def test_a_bundle_that_too_few_persons_signed_is_refused_and_not_opened(site: Site, tmp_path: Path) -> None:
    strict = replace(site, trust=replace(site.trust, threshold=2))
    found = look(strict, bundle(tmp_path, 3))
    assert of(found, "signatures") == [(Severity.ERROR, "signed by 1 of the 2 persons that are needed: ann")]
    assert of(found, "identity") == []
    assert code(found) == 14


class Notes(Silent):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, message: str) -> None:
        self.warnings.append(message)


def test_a_clock_that_is_behind_what_was_signed_is_told(site: Site, tmp_path: Path) -> None:
    cargo = Cargo()
    cargo.file("tool", b"tool")
    path = tmp_path / "dated.airlift"
    members = cargo.members()
    with BundleWriter(path, PayloadPlan([Member(n, len(d)) for n, d in members.items()]), encrypted=True) as writer:
        for name, data in members.items():
            with writer.member(name) as sink:
                sink.write(data)
        writer.finish(
            channel="stable",
            sequence=3,
            issued=NOW,
            expires=NOW + timedelta(days=30),
            attest_files={"sbom.cdx.json": SBOM},
            signers=[ANN],
            recipients=[SITE.recipient],
        )
    behind = look(site, path, NOW - timedelta(days=1))
    assert of(behind, "clock") == [
        (
            Severity.WARNING,
            "it is 2026-11-24T12:00:00Z here, but this bundle was issued at 2026-11-25T12:00:00Z",
        )
    ]
    assert code(behind) == 0
    notes = Notes()
    for now, said in ((NOW - timedelta(days=1), [f"{of(behind, 'clock')[0][1]}; {CLOCK_HINT}"]), (NOW, [])):
        notes.warnings.clear()
        import_bundle(site, path, now=now, passphrase=b"", progress=notes, dry_run=True)
        assert [text for text in notes.warnings if "issued" in text] == said
    late = look(site, path, NOW + timedelta(days=30))
    assert code(late) == 14
    assert of(late, "expiry")[0][1].startswith("the bundle expired at 2026-12-25T12:00:00Z")


def test_a_clock_that_is_behind_what_was_done_last_is_told(site: Site, tmp_path: Path) -> None:
    cargo = Cargo()
    cargo.file("tool", b"tool")
    path = ship(cargo, tmp_path / "undated.airlift", sequence=3)
    with site.journal() as journal:
        last = journal.history.entries()[-1]
    said = f"entry {last.number} of airlift site log was written at {last.time}"

    back = look(site, path, NOW - timedelta(days=1))

    assert of(back, "clock") == [(Severity.WARNING, f"it is 2026-11-24T12:00:00Z here, but {said}")]
    assert code(back) == 0
    notes = Notes()
    import_bundle(site, path, now=NOW - timedelta(days=1), passphrase=b"", progress=notes)
    assert [text for text in notes.warnings if said in text] == [f"{of(back, 'clock')[0][1]}; {CLOCK_HINT}"]
    # Only the last entry counts, so that a clock that was ahead once does not nag for ever.
    assert of(look(site, path, NOW - timedelta(days=1)), "clock")[0][0] is Severity.OK


def test_a_disk_without_room_is_told_before_the_import(tmp_path: Path) -> None:
    require_root()
    small = tmp_path / "small"
    small.mkdir()
    path = bundle(tmp_path, 1)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", small], check=True)
    try:
        found = look(make_site(small / "site"), path)
    finally:
        subprocess.run(["umount", small], check=True)
    assert [item.check for item in found if item.error] == ["space"]
    assert code(found) == 16


def test_what_is_no_bundle_is_said(site: Site, tmp_path: Path) -> None:
    (tmp_path / "no.airlift").write_bytes(b"no bundle" * 1000)
    with pytest.raises(BundleError, match="is not an airlift bundle"):
        look(site, tmp_path / "no.airlift")


def test_another_import_is_seen(site: Site, tmp_path: Path) -> None:
    with site.locked("importing", Silent()):
        found = look(site, bundle(tmp_path, 3))
    assert of(found, "lock") == [(Severity.WARNING, "another command works on the site")]
    assert code(found) == 0
    assert of(look(site, bundle(tmp_path, 4)), "lock") == [(Severity.OK, "no other command works on the site")]


def test_wrong_credentials_and_a_registry_that_is_down_are_seen(tmp_path: Path) -> None:
    path = bundle(tmp_path, 1)
    (tmp_path / "password").write_text("wrong\n")
    with running_registry(tmp_path / "registry", secure=True) as registry:
        config = RegistryConfig(
            url=registry.url, ca=str(registry.ca), username="alice", password_file=str(tmp_path / "password")
        )
        site = make_site(tmp_path / "site", registry=config)
        found = look(site, path, datetime.now(UTC))
        assert code(found) == 17
        assert of(found, "registry")[0][0] is Severity.ERROR
        assert "401" in of(found, "registry")[0][1]
        (tmp_path / "password").write_text("s3cret\n")
        assert code(look(site, path, datetime.now(UTC))) == 0
    found = look(site, path, datetime.now(UTC))
    assert code(found) == 17
    (away,) = (item for item in found if item.check == "registry")
    assert away.remedy == "see that it runs, and that this machine reaches it"


def test_an_authority_that_ends_is_told_before_it_does(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.crt"))
    config = RegistryConfig(url="https://127.0.0.1:1", ca=str(tmp_path / "ca.crt"))
    site = make_site(tmp_path / "site", registry=config)
    path = bundle(tmp_path, 1)
    ((severity, message),) = of(look(site, path), "certificates")
    assert severity is Severity.OK
    ends = datetime.fromisoformat(message.rpartition(" ")[2])
    for now, wanted in ((ends - timedelta(days=3), Severity.WARNING), (ends, Severity.ERROR)):
        ((severity, _),) = of(look(site, path, now), "certificates")
        assert severity is wanted
    (tmp_path / "ca.crt").write_text("no certificate")
    ((severity, message),) = of(look(site, path), "certificates")
    assert (severity, "no certificates" in message) == (Severity.ERROR, True)


def test_authorities_may_be_a_directory_and_those_of_the_package_index_are_looked_at_too(tmp_path: Path) -> None:
    folder = tmp_path / "cas"
    folder.mkdir()
    for number in range(2):
        trustme.CA().cert_pem.write_to_path(str(folder / f"{number}.pem"))
        (folder / f"0000000{number}.0").symlink_to(f"{number}.pem")
    (folder / "README").write_text("no certificate")
    registry = RegistryConfig(url="https://127.0.0.1:1", ca=str(folder))
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "index.pem"))
    python = IndexConfig(upload="https://127.0.0.1:1", index="https://127.0.0.1:1", ca=str(tmp_path / "index.pem"))
    site = make_site(tmp_path / "site", registry=registry, python=python)
    found = of(look(site, bundle(tmp_path, 1)), "certificates")
    assert [(severity, message.partition(": ")[0]) for severity, message in found] == [
        (Severity.OK, str(folder)),
        (Severity.OK, str(folder)),
        (Severity.OK, str(tmp_path / "index.pem")),
    ]


def test_a_name_of_another_channel_is_told_before_the_import_and_by_the_import_before_large_blobs(
    tmp_path: Path,
) -> None:
    site = make_site(tmp_path / "site", channels=("stable", "edge"))
    take(site, bundle(tmp_path, 1))
    other = Cargo(channel="edge")
    other.image("docker.io/library/app:1", b"of edge", BIG)
    path = ship(other, tmp_path / "edge.airlift")
    found = look(site, path)
    assert code(found) == 15
    (names,) = [item for item in found if item.check == "names"]
    assert names.message.startswith(
        "channel edge would give other contents to names of another channel\n  v2/docker.io/library/app:1 is sha256:"
    )
    assert names.remedy == (
        "the release engineer has to ship one content under one name, or another tag or version; where clients need not see the other channel"
        " any more: airlift drops deactivate --site DIR stable"
    )
    damaged = bytearray(path.read_bytes())
    # In the large blob, which nobody has to read for this.
    damaged[-1024 * 1024] ^= 1
    path.write_bytes(damaged)
    before = state(site)
    with pytest.raises(PolicyError):
        take(site, path)
    assert {name: data for name, data in state(site).items() if "/store/" in name} == {
        name: data for name, data in before.items() if "/store/" in name
    }


def test_a_drop_whose_blob_was_emptied_is_not_here_whole(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "2.airlift"
    assert (Severity.OK, "the drop is here already and complete") in of(look(site, path), "sequence")
    site.store.path(digest_of(BIG)).write_bytes(b"")
    found = look(site, path)
    assert (
        Severity.WARNING,
        "the drop is here already, but something of it is missing or damaged",
    ) in of(found, "sequence")
    assert code(found) == 0
    assert f"({len(BIG)} bytes exactly" in of(found, "space")[0][1]
    assert take(site, path).new_bytes == len(BIG)
    assert (Severity.OK, "the drop is here already and complete") in of(look(site, path), "sequence")


def test_only_the_manifests_are_read_and_a_config_may_be_larger_than_one(tmp_path: Path) -> None:
    site = make_site(tmp_path / "site")
    cargo = Cargo()
    files = [b'{"%d": "%s"}' % (number, b" " * 3 * 1024 * 1024) for number in range(4)]
    for number, data in enumerate(files):
        cargo.file(f"file{number}.json", data)
    last = cargo.artifacts[-1]
    cargo.artifacts[-1] = replace(last, facts={**last.facts, "note": "x" * len(BIG)})
    path = ship(cargo, tmp_path / "1.airlift")
    damaged = bytearray(path.read_bytes())
    damaged[-1024 * 1024] ^= 1
    path.write_bytes(damaged)
    found = look(site, path)
    assert code(found) == 0, found
    total = sum(map(len, cargo.members().values())) - sum(map(len, list(cargo.members().values())[:2]))
    assert f"({total} bytes exactly, by the manifests)" in of(found, "space")[0][1]


def test_an_older_drop_that_was_kept_is_too_old_and_nothing_else(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "2.airlift"
    take(site, bundle(tmp_path, 3))
    assert of(look(site, path), "sequence") == [
        (Severity.ERROR, "sequence 2 of channel stable is too old: 3 was accepted before")
    ]


def test_a_disk_with_room_for_the_blobs_alone_is_only_warned_of(tmp_path: Path) -> None:
    require_root()
    small = tmp_path / "small"
    small.mkdir()
    path = bundle(tmp_path, 1)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", small], check=True)
    try:
        site = make_site(small / "site")
        found = look(site, path)
        assert [item.severity for item in found if item.check == "space"] == [Severity.WARNING]
        assert code(found) == 0
        assert take(site, path).drop.active
    finally:
        subprocess.run(["umount", small], check=True)
