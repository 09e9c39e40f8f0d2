"""Bundles that a site must not take, by command: message, exit code, and nothing left behind or published."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from airlift import canonical
from airlift.bundle import layout
from airlift.bundle.layout import Member, PayloadPlan
from airlift.bundle.reader import BundleReader
from airlift.bundle.writer import BundleWriter
from airlift.cli.main import run
from airlift.trust import recipients, signing
from airlift.trust.keys import write_key
from airlift.trust.roots import dump_trust
from tests.support.bundles import ANN, BOB, EVE, OTHER_SITE, SBOM, SITE, patch_slot, trust
from tests.support.cli import environment
from tests.support.site_bundles import URL, Cargo

VERBS = ("inspect", "verify", "open", "dry", "import")


def members() -> dict[str, bytes]:
    cargo = Cargo()
    cargo.image("docker.io/library/app:1", b"layer" * 1000)
    cargo.file("tool", b"tool")
    return cargo.members()


def seal(path: Path, *, encrypted: bool = True, **changes: Any) -> None:
    """Make a good bundle but for what is changed."""
    content = members()
    options: dict[str, Any] = {"channel": "stable", "sequence": 7, "signers": [ANN, BOB]}
    options |= {"recipients": [SITE.recipient]} if encrypted else {}
    plan = PayloadPlan([Member(name, len(data)) for name, data in content.items()])
    with BundleWriter(path, plan, encrypted=encrypted) as writer:
        for name, data in content.items():
            with writer.member(name) as sink:
                sink.write(data)
        writer.finish(attest_files={"sbom.cdx.json": SBOM}, **(options | changes))


def unsigned(path: Path) -> None:
    seal(path)
    with BundleReader(path) as reader:
        body = reader.release.body
    patch_slot(path, layout.ENVELOPE, signing.encode_envelope(signing.Envelope(body, ())))


def smuggled(path: Path) -> None:
    seal(path, signers=[EVE])
    patch_slot(path, "roots.json", canonical.encode([{"person": "eve", "keys": [EVE.public_pem.decode()]}]))


def other_stanza(path: Path) -> None:
    seal(path, sequence=9)
    with BundleReader(path) as reader:
        stanzas = recipients.seal(b"k" * 32, reader.release, [SITE.recipient])
    patch_slot(path, "keys.json", recipients.encode(stanzas))


def tampered(path: Path) -> None:
    seal(path, sequence=9)
    with BundleReader(path) as reader:
        offset = layout.Container.of(reader.release, digest_size=32).offset_of("payload")
    data = bytearray(path.read_bytes())
    data[offset + 2000] ^= 1
    path.write_bytes(data)


def truncated(path: Path) -> None:
    seal(path)
    os.truncate(path, path.stat().st_size - 2000)


def lengthened(path: Path) -> None:
    seal(path)
    with path.open("ab") as stream:
        stream.write(b"more")


def no_bundle(path: Path) -> None:
    path.write_bytes(b"hello")


@dataclass(frozen=True)
class Case:
    name: str
    make: Callable[[Path], None]
    code: int
    said: str
    verbs: tuple[str, ...] = ("verify", "open", "dry", "import")


CASES = [
    Case("unsigned", unsigned, 14, "the bundle is not signed"),
    Case(
        "unknown-signer",
        lambda path: seal(path, signers=[EVE]),
        14,
        f"signed by nobody whom the trust file lists; unknown keys: {EVE.key_id}",
    ),
    Case("smuggled-key", smuggled, 13, "carries trust roots, which this version neither checks nor trusts"),
    Case(
        "below-threshold",
        lambda path: seal(path, signers=[ANN]),
        14,
        "signed by 1 of the 2 persons that are needed: ann",
    ),
    Case(
        "one-person-and-a-stranger",
        lambda path: seal(path, signers=[ANN, EVE]),
        14,
        f"signed by 1 of the 2 persons that are needed: ann; unknown keys: {EVE.key_id}",
    ),
    Case("too-old", lambda path: seal(path, sequence=4), 14, "sequence 4 of channel stable is too old"),
    Case("other-channel", lambda path: seal(path, channel="beta"), 14, "channel"),
    Case(
        "expired",
        lambda path: seal(path, issued=datetime(2020, 1, 1, tzinfo=UTC), expires=datetime(2020, 2, 1, tzinfo=UTC)),
        14,
        "the bundle expired at 2020-02-01T00:00:00Z; it is ",
    ),
    Case(
        "wrong-identity",
        lambda path: seal(path, recipients=[OTHER_SITE.recipient]),
        13,
        f"no stanza for this identity ({SITE.key_id}); the bundle is for {OTHER_SITE.key_id}",
        ("open", "dry", "import"),
    ),
    Case(
        "stanza-to-another-key",
        other_stanza,
        13,
        "the data key is not the one that was signed: the stanza leads to another",
        ("open", "dry", "import"),
    ),
    Case(
        "plain",
        lambda path: seal(path, encrypted=False),
        14,
        "the bundle is not encrypted, and the trust file does not allow that",
    ),
    Case("tampered", tampered, 12, "frame 0 of bad.airlift: expected the leaf of the signed tree, got another digest"),
    Case("truncated", truncated, 13, "bad.airlift is truncated: ", VERBS),
    Case("trailing-bytes", lengthened, 13, "bad.airlift has 4 bytes after its end", VERBS),
    Case(
        "no-bundle",
        no_bundle,
        13,
        "bad.airlift is not an airlift bundle, or its first bytes are damaged",
        VERBS,
    ),
]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    """A site that believes ann and bob together, from sequence 5 on."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "trust.json").write_bytes(dump_trust(trust("ann", "bob", threshold=2, min_sequence=5)))
    write_key(tmp_path, "site", SITE, passphrase=None)
    assert run(["site", "init", "site", "--trust", "trust.json", "--url", URL, "--identity", "site.key"]) == 0
    capsys.readouterr()
    return tmp_path


def command(verb: str, bundle: str = "bad.airlift") -> list[str]:
    return {
        "inspect": ["inspect", bundle, "--identity", "site.key"],
        "verify": ["verify", bundle, "--trust", "trust.json", "--json"],
        "open": ["open", bundle, "--trust", "trust.json", "--identity", "site.key", "-o", "out"],
        "dry": ["import", bundle, "--site", "site", "--dry-run", "--json"],
        "import": ["import", bundle, "--site", "site", "--json"],
    }[verb]


def everything(home: Path) -> dict[str, bytes | None]:
    """What lies there; of the journal, which SQLite rewrites as it likes, only the presence."""
    found = {str(path.relative_to(home)): path for path in home.rglob("*")}
    return {
        name: path.read_bytes() if path.is_file() and "state.db" not in name else None for name, path in found.items()
    }


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_a_bundle_that_is_not_to_be_taken_is_refused_by_every_verb_and_leaves_nothing(
    case: Case, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case.make(home / "bad.airlift")
    before = everything(home)
    for verb in case.verbs:
        code = run(command(verb))
        said = capsys.readouterr()
        assert (code, said.out) == (case.code, ""), f"{verb}: {said.err}"
        (line,) = [line for line in said.err.splitlines() if line.startswith("airlift: error: ")]
        assert case.said in line, verb
        assert everything(home) == before, verb
    assert run(["status", "--site", "site", "--json"]) == 0
    state = json.loads(capsys.readouterr().out)
    assert (state["drops"], state["channels"]) == ([], {})


def test_the_same_bundle_without_a_fault_is_taken_once(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seal(home / "good.airlift")
    for verb in VERBS:
        assert run(command(verb, "good.airlift")) == 0, capsys.readouterr().err
    capsys.readouterr()
    before = everything(home)
    assert run(command("import", "good.airlift")) == 0
    assert json.loads(capsys.readouterr().out)["already_imported"] is True
    assert everything(home) == before


def test_a_refused_bundle_leaves_the_active_drop_and_the_sequence_alone(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seal(home / "good.airlift", sequence=8)
    assert run(command("import", "good.airlift")) == 0
    before = everything(home)
    for make, code in ((tampered, 12), (lambda path: seal(path, sequence=7), 14), (other_stanza, 13)):
        make(home / "bad.airlift")
        assert run(command("import")) == code
        (home / "bad.airlift").unlink()
        assert everything(home) == before
    capsys.readouterr()
    assert run(["status", "--site", "site", "--json"]) == 0
    state = json.loads(capsys.readouterr().out)
    assert state["channels"]["stable"]["sequence"] == 8
    assert [(drop["sequence"], drop["active"]) for drop in state["drops"]] == [(8, True)]


def test_a_second_import_and_an_activation_wait_for_a_running_import(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    big = Cargo()
    big.file("big", os.urandom(32_000_000))
    content = big.members()
    plan = PayloadPlan([Member(name, len(data)) for name, data in content.items()])
    with BundleWriter(home / "big.airlift", plan, encrypted=True) as writer:
        for name, data in content.items():
            with writer.member(name) as sink:
                sink.write(data)
        options: dict[str, Any] = {"channel": "stable", "sequence": 9, "signers": [ANN, BOB]}
        writer.finish(attest_files={"sbom.cdx.json": SBOM}, recipients=[SITE.recipient], **options)
    ingest = home / "site" / "store" / "ingest"

    def start(*arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "airlift", *arguments],
            cwd=home,
            env=environment(home),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    first = start(*command("import", "big.airlift"))
    try:
        while not any(ingest.iterdir()):
            assert first.poll() is None, "the first import ended before it could be stopped"
            time.sleep(0.001)
        first.send_signal(signal.SIGSTOP)
        # The signal is sent to all of its threads, and they stop one by one.
        os.waitid(os.P_PID, first.pid, os.WSTOPPED)
        held = everything(home)
        others = [start(*command("import", "big.airlift")), start("drops", "activate", "--site", "site", "stable/9")]
        impatient = start(*command("import", "big.airlift"))
        for other in (*others, impatient):
            assert other.stderr is not None
            assert any("waiting for another command that works on site" in line for line in other.stderr)
        impatient.send_signal(signal.SIGINT)
        impatient.communicate(timeout=60)
        assert impatient.returncode == 130
        assert everything(home) == held
    finally:
        first.send_signal(signal.SIGCONT)
        first.communicate(timeout=60)
    for other in others:
        other.communicate(timeout=60)
    assert [first.returncode, *(other.returncode for other in others)] == [0, 0, 0]
    assert run(["drops", "list", "--site", "site", "--json"]) == 0
    assert [drop["active"] for drop in json.loads(capsys.readouterr().out)["drops"]] == [True]
