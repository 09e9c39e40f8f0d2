"""What a kit carries beside wheels: provisioning, trust, authorities, K3s."""

from __future__ import annotations

from pathlib import Path

import pytest
import trustme

from airlift import digest as digests
from airlift.connected.kit_cargo import load_cargo, write_cargo
from airlift.errors import IntegrityError, ManifestError, ResolveError, UsageError
from airlift.progress import Silent
from airlift.store import Store
from airlift.trust.roots import dump_trust, load_trust
from tests.components import ROOT
from tests.support.bundles import trust
from tests.support.cli import ok

MANIFEST = """\
apiVersion: airlift/v1
kind: Drop
metadata: {name: node, channel: stable}
files:
  - {path: k3s, name: k3s}
  - {path: install.sh, name: install.sh}
  - {path: images, name: k3s-airgap-images-amd64.tar.zst}
  - {path: other, name: other}
"""


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    """A lock with K3s among its files, whose content the cache has after a build."""
    for name in ("k3s", "install.sh", "images", "other"):
        (tmp_path / name).write_text(f"content of {name}")
    (tmp_path / "drop.yaml").write_text(MANIFEST)
    for name, kind in (("signer", "signer"), ("site", "identity")):
        ok("keys", "generate", name, "--kind", kind, "--no-passphrase", home=tmp_path)
    ok("resolve", "drop.yaml", "-o", "lock.json", "--cache", "cache", home=tmp_path)
    keys = ["--signer", "signer.key", "--recipient", "site.pub"]
    ok("build", "lock.json", "-o", "drop.airlift", "--sequence", "1", *keys, "--cache", "cache", home=tmp_path)
    return tmp_path / "lock.json"


def written(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_every_kit_has_the_appliance_of_this_tree(tmp_path: Path) -> None:
    write_cargo(tmp_path, load_cargo(None, None, None, Store(tmp_path / "cache")), Silent())
    found = written(tmp_path)
    assert sorted(found) == ["airlift-serve.service", "airlift-serve.socket", "provision.sh"]
    for name, data in found.items():
        assert data == (ROOT / "appliance" / name).read_bytes()


def test_the_trust_file_comes_with_its_fingerprint(tmp_path: Path) -> None:
    path = tmp_path / "trust.json"
    path.write_bytes(dump_trust(trust()))
    (tmp_path / "kit").mkdir()
    write_cargo(tmp_path / "kit", load_cargo(path, None, None, Store(tmp_path / "cache")), Silent())
    found = written(tmp_path / "kit")
    assert found["trust.json"] == path.read_bytes()
    assert found["trust.fingerprint"].decode().strip() == load_trust(path).fingerprint
    path.write_text("{}")
    with pytest.raises(ManifestError):
        load_cargo(path, None, None, Store(tmp_path / "cache"))


def test_each_authority_is_a_file_named_by_its_digest(tmp_path: Path) -> None:
    authorities = [trustme.CA(), trustme.CA()]
    path = tmp_path / "ca.pem"
    path.write_bytes(b"# ours\n" + b"".join(ca.cert_pem.bytes() for ca in [*authorities, authorities[0]]))
    (tmp_path / "kit").mkdir()
    write_cargo(tmp_path / "kit", load_cargo(None, path, None, Store(tmp_path / "cache")), Silent())
    found = {name: data for name, data in written(tmp_path / "kit").items() if name.startswith("ca/")}
    assert sorted(found.values()) == sorted(ca.cert_pem.bytes() for ca in authorities)
    assert all(name.startswith("ca/airlift-") and name.endswith(".crt") for name in found)
    for text, message in (
        ("nothing", "expected certificates in PEM"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "a certificate is malformed"),
    ):
        path.write_text(text)
        with pytest.raises(UsageError, match=message):
            load_cargo(None, path, None, Store(tmp_path / "cache"))


def test_k3s_comes_out_of_the_cache_by_the_digests_of_the_lock(tmp_path: Path, lock: Path) -> None:
    store = Store(tmp_path / "cache")
    (tmp_path / "kit").mkdir()
    write_cargo(tmp_path / "kit", load_cargo(None, None, lock, store), Silent())
    found = {name: data for name, data in written(tmp_path / "kit").items() if name.startswith("k3s/")}
    assert found == {
        "k3s/k3s": b"content of k3s",
        "k3s/install.sh": b"content of install.sh",
        "k3s/k3s-airgap-images-amd64.tar.zst": b"content of images",
    }


def test_k3s_that_is_missing_or_damaged_in_the_cache_is_refused(tmp_path: Path, lock: Path) -> None:
    store = Store(tmp_path / "cache")
    cargo = load_cargo(None, None, lock, store)
    digest = digests.of(b"content of k3s")
    store.path(digest).chmod(0o644)
    store.path(digest).write_bytes(b"content of xxx")
    (tmp_path / "kit").mkdir()
    with pytest.raises(IntegrityError):
        write_cargo(tmp_path / "kit", cargo, Silent())
    assert not (tmp_path / "kit" / "k3s" / "k3s").exists()
    store.delete(digest)
    with pytest.raises(ResolveError, match="does not have k3s") as caught:
        load_cargo(None, None, lock, store)
    assert caught.value.hint is not None


def test_a_lock_without_k3s_is_refused(tmp_path: Path, lock: Path) -> None:
    text = (tmp_path / "drop.yaml").read_text()
    (tmp_path / "drop.yaml").write_text(
        "".join(line for line in text.splitlines(keepends=True) if "k3s" not in line and "install" not in line)
    )
    ok("resolve", "drop.yaml", "-o", "lock.json", "--cache", "cache", home=tmp_path)
    with pytest.raises(ResolveError, match="has no K3s among its files"):
        load_cargo(None, None, lock, Store(tmp_path / "cache"))
