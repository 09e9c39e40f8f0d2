"""Every version of airlift gives the verdicts of the frozen bundles."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from airlift import errors
from airlift.bundle.reader import BundleReader
from airlift.cli.exit import CODES, code_of
from airlift.trust.fields import parse_time
from airlift.trust.keys import Identity, generate_identity, load_identity
from airlift.trust.roots import load_trust
from tests.support.bundles import ANN, INDEX, SBOM, Recipe, accept, members, patch_slot

HERE = Path(__file__).parent / "bundle_v1"
CASES: list[dict[str, Any]] = json.loads((HERE / "cases.json").read_text(encoding="utf-8"))
BLOBS = (b"first blob", b"", b"second blob" * 300)


def _bundle(name: str, path: Path) -> Path:
    path.write_bytes(gzip.decompress((HERE / f"{name}.airlift.gz").read_bytes()))
    return path


def _edit(path: Path, edit: list[Any]) -> None:
    data = bytearray(path.read_bytes())
    match edit:
        case ["slot", name, content]:
            patch_slot(path, name, content.encode())
            return
        case ["xor", offset, mask]:
            data[offset] ^= mask
        case ["truncate", size]:
            del data[size:]
        case ["append", digits]:
            data += bytes.fromhex(digits)
        case _:
            raise AssertionError(edit)
    path.write_bytes(data)


def _identity(name: str) -> Identity | None:
    if name == "stranger":
        return generate_identity()
    return load_identity(HERE / f"{name}.key", None) if name else None


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_the_verdict_stands(case: dict[str, Any], tmp_path: Path) -> None:
    path = _bundle(case["bundle"], tmp_path / "drop.airlift")
    for edit in case["edits"]:
        _edit(path, edit)

    def look() -> dict[str, Any]:
        return accept(
            path,
            load_trust(HERE / f"{case['trust']}.trust.json"),
            _identity(case["identity"]),
            now=parse_time(case["now"]),
            seen={channel: (sequence, release) for channel, (sequence, release) in case["seen"].items()},
        )

    if case["verdict"] == "success":
        found = look()
        assert found["content"] == members(BLOBS)
        assert len(found["content"]) == 2 + case["blobs"]
        assert found["content"]["index.json"] == INDEX
        assert found["attest"] == {"sbom.cdx.json": SBOM}
        return
    verdict = getattr(errors, case["verdict"])
    with pytest.raises(verdict) as caught:
        look()
    # A finer error is the same verdict: what a reader has to tell apart is the exit code.
    assert code_of(caught.value) == CODES[verdict]
    # What the file's shape refuses has the file's name in front; the name is the machine's, so no vector has it.
    assert caught.value.message.removeprefix(f"{path}: ").startswith(case["message"])


def test_a_plain_bundle_is_still_written_as_it_was_then(tmp_path: Path) -> None:
    Recipe(blobs=BLOBS, encrypted=False, signers=[ANN]).write(tmp_path / "now")
    then = _bundle("plain", tmp_path / "then")
    assert (tmp_path / "now").read_bytes() == then.read_bytes()


def test_the_cases_cover_every_error_of_a_bundle() -> None:
    assert {case["verdict"] for case in CASES} == {"success", "BundleError", "TrustError", "IntegrityError"}


@pytest.mark.parametrize("name", ["newer reader", "unknown suite", "other format"])
def test_what_a_later_version_wrote_is_not_called_a_damaged_medium(name: str, tmp_path: Path) -> None:
    (case,) = [case for case in CASES if case["name"] == name]
    path = _bundle(case["bundle"], tmp_path / "drop.airlift")
    for edit in case["edits"]:
        _edit(path, edit)
    with pytest.raises(errors.BundleError) as caught:
        BundleReader(path)
    assert caught.value.hint == "update airlift on this side"
