"""What the verbs of a site tell a person: of names that change, of sequences that were passed over, of what was found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from airlift.digest import of as digest_of
from airlift.progress import Silent
from airlift.site.config import Site
from airlift.site.site_yaml import RegistryConfig
from airlift.transport.http import HttpClient
from airlift.transport.registry import RegistryClient
from airlift.transport.settings import HttpSettings
from tests.support.charts import chart
from tests.support.cli import airlift, ok
from tests.support.registry import running_registry
from tests.support.site_bundles import Cargo, make_site, ship, take

APP = "docker.io/library/app"
GAP = "sequences 2 to 4 of channel stable were never imported here"
ASK = "a drop needs none before it, but ask the release engineer whether one was meant for this site"


def month(number: int) -> Cargo:
    cargo = Cargo()
    cargo.image(f"{APP}:1", b"layer" * number)
    cargo.chart(chart("app", "1.0.0", {"templates/notes.txt": "x" * 500 * number}))
    cargo.file("tool", b"tool" * number)
    cargo.file("same", b"the same")
    if number > 1:
        cargo.model("acme/fraud", {"model.bin": b"weights"})
    return cargo


def shipped(folder: Path, number: int) -> Path:
    return ship(month(number), folder / f"{number}.airlift", sequence=number)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    made = make_site(tmp_path / "site")
    take(made, shipped(tmp_path, 1))
    return made


def run(site: Site, *words: str) -> Any:
    return ok(*words, "--site", site.root, "--json", home=site.root.parent).json


def size_of(cargo: Cargo, kind: str) -> int:
    """What an image or model has altogether: manifest, config and layers."""
    (root,) = [item.root for item in cargo.artifacts if item.kind == kind]
    body = cargo.small[root.digest]
    blobs = {**cargo.small, **cargo.large}
    return root.size + sum(len(data) for digest, data in blobs.items() if digest.encode() in body)


def test_a_name_that_changes_is_shown_with_both_digests_and_sizes(site: Site, tmp_path: Path) -> None:
    second = shipped(tmp_path, 5)
    coming = {item["name"]: item for item in run(site, "import", str(second), "--dry-run")["changes"]}
    take(site, second)
    found = {item["name"]: item for item in run(site, "drops", "diff", "stable/1", "stable/5")["changes"]}
    tool = {
        "name": "files/tool",
        "change": "changed",
        "old_digest": digest_of(b"tool"),
        "digest": digest_of(b"tool" * 5),
        "old_size": 4,
        "size": 20,
    }
    assert found["files/tool"] == tool == coming["files/tool"]
    assert found["files/same"]["change"] == "same"
    first, last = month(1), month(5)
    image = found[f"v2/{APP}:1"]
    assert (image["old_size"], image["size"]) == (size_of(first, "image"), size_of(last, "image"))
    archives = [
        data for cargo in (first, last) for data in cargo.large.values() if data.startswith(b"\x1f\x8b")
    ]  # fmt: skip
    (listed,) = [item for name, item in found.items() if name.startswith("charts/")]
    assert [listed["old_digest"], listed["digest"]] == [digest_of(data) for data in archives]
    assert [listed["old_size"], listed["size"]] == [len(data) for data in archives]
    model = found["hf/acme/fraud/main"]
    assert (model["change"], model["old_digest"], model["size"]) == ("new", None, size_of(last, "model"))
    back = run(site, "drops", "diff", "stable/5", "stable/1")["changes"]
    assert [(item["change"], item["size"]) for item in back if item["name"] == "hf/acme/fraud/main"] == [
        ("gone", size_of(last, "model"))
    ]

    lines = ok("drops", "diff", "stable/1", "stable/5", "--site", site.root, home=tmp_path).out.splitlines()
    assert f"changed  files/tool  {digest_of(b'tool')} -> {digest_of(b'tool' * 5)}  4 B -> 20 B" in lines
    assert not [line for line in lines if "files/same" in line]
    same = ok("drops", "diff", "stable/1", "stable/1", "--site", site.root, home=tmp_path)
    assert (same.out, same.err) == ("", "airlift: clients see no difference: 5 names, all with the same content\n")


def test_what_a_drop_holds_is_shown_with_the_names_digests_and_sizes_of_the_difference(
    site: Site, tmp_path: Path
) -> None:
    take(site, shipped(tmp_path, 5))
    for old, new in (("stable/1", "stable/5"), ("stable/5", "stable/1")):
        contents = run(site, "drops", "show", new)["contents"]
        shown = {name["name"]: (name["digest"], name["size"]) for item in contents for name in item["names"]}
        found = run(site, "drops", "diff", old, new)["changes"]
        assert {item["name"] for item in found if item["change"] != "gone"} == shown.keys()
        for item in found:
            if item["change"] in ("new", "changed"):
                assert shown[item["name"]] == (item["digest"], item["size"])
    tool = digest_of(b"tool" * 5)
    lines = ok("drops", "show", "stable/5", "--site", site.root, home=tmp_path).out.splitlines()
    (at,) = [
        number for number, line in enumerate(lines) if line.startswith(f"  file    files/tool:{tool[7:19]}  sha256:")
    ]
    assert lines[at + 1] == f"            files/tool  {tool}  20 B"


def test_a_damaged_artifact_keeps_nothing_else_from_being_shown(site: Site, tmp_path: Path) -> None:
    (image,) = [item for item in month(1).artifacts if item.kind == "image"]
    site.store.path(image.root.digest).write_bytes(b"damaged")
    contents = {item["name"]: item["names"] for item in run(site, "drops", "show", "stable/1")["contents"]}
    assert contents[image.name] == []
    assert len([names for names in contents.values() if names]) == len(contents) - 1


def test_a_jump_of_the_sequence_is_a_warning_of_preflight_and_import(site: Site, tmp_path: Path) -> None:
    second = shipped(tmp_path, 5)
    lines = ok("preflight", second, "--site", site.root, home=tmp_path).out.splitlines()
    at = lines.index(f"warning  sequence: {GAP}")
    assert lines[at + 1] == f"         do: {ASK}"
    assert lines[-1] == "ready to import, 1 warning"
    assert run(site, "import", str(second), "--dry-run")["skipped"] == {"first": 2, "last": 4}
    for more in (["--dry-run"], []):
        assert (
            f"airlift: warning: {GAP}; {ASK}\n" in ok("import", second, "--site", site.root, *more, home=tmp_path).err
        )
    assert run(site, "import", str(shipped(tmp_path, 7)), "--dry-run")["skipped"] == {"first": 6, "last": 6}
    # The very same once more, and the one after it, pass nothing over.
    assert "warning" not in ok("import", second, "--site", site.root, home=tmp_path).err
    assert run(site, "import", str(second))["skipped"] is None
    sixth = shipped(tmp_path, 6)
    assert ok("preflight", sixth, "--site", site.root, home=tmp_path).out.endswith("\nready to import\n")
    assert "warning" not in ok("import", sixth, "--site", site.root, home=tmp_path).err


def test_a_recovered_site_does_not_say_what_it_cannot_know(site: Site, tmp_path: Path) -> None:
    (site.root / "state.db").unlink()
    paper = ("--fingerprint", site.trust.fingerprint, *["--min-sequence=stable=4"] * 2)
    ok("site", "recover", "--site", site.root, *paper, home=tmp_path)
    ran = ok("status", "--site", site.root, home=tmp_path)
    assert "  channel stable: sequence 4 is the lowest that is accepted\n" in ran.out
    assert ran.err == "airlift: clients see no drop of channel stable; airlift drops activate chooses one\n"
    assert "never imported" not in ok("import", shipped(tmp_path, 6), "--site", site.root, home=tmp_path).err


def test_a_site_without_drops_says_so_and_a_bundle_that_cannot_be_imported_is_not_ready(tmp_path: Path) -> None:
    site = make_site(tmp_path / "site")
    for verb in (["drops", "list"], ["status"]):
        ran = ok(*verb, "--site", site.root, home=tmp_path)
        assert ran.err == "airlift: there are no drops here yet; airlift import BUNDLE brings one\n"
    take(site, shipped(tmp_path, 5))
    status = ok("status", "--site", site.root, home=tmp_path).out
    assert "  channel stable: sequence 5 is the highest that was accepted\n" in status
    ran = airlift("preflight", shipped(tmp_path, 2), "--site", site.root, home=tmp_path)
    assert (ran.code, ran.out.splitlines()[-1]) == (14, "not ready to import, 1 error")


def test_what_is_found_is_told_with_artifact_and_drops(site: Site, tmp_path: Path) -> None:
    take(site, shipped(tmp_path, 5))
    shared, own = digest_of(b"the same"), digest_of(b"layer" * 5)
    site.store.path(shared).unlink()
    site.store.path(own).write_bytes(b"")
    release = next(item["release"] for item in run(site, "drops", "list")["drops"] if item["sequence"] == 1)
    (site.drops_dir / release / "sbom.cdx.json").unlink()
    ran = airlift("check", "--site", site.root, home=tmp_path)
    lines = ran.out.splitlines()
    for subject, whose in (
        (f"store    {shared}: missing", f"file files/same:{shared[7:19]} of stable/1, stable/5"),
        (f"store    {own}: damaged: 0 bytes, expected 25", f"image {APP}:1 of stable/5"),
        (f"drops    drops/{release}/sbom.cdx.json: missing", "stable/1"),
    ):
        assert lines[lines.index(subject) + 1] == f"         of: {whose}"
    told = airlift("check", "--site", site.root, "--json", home=tmp_path).json["findings"]
    found = {item["subject"]: (item["artifacts"], item["drops"]) for item in told}
    assert found[shared] == (
        [{"kind": "file", "name": f"files/same:{shared[7:19]}", "drops": ["stable/1", "stable/5"]}],
        ["stable/1", "stable/5"],
    )
    assert found[own] == ([{"kind": "image", "name": f"{APP}:1", "drops": ["stable/5"]}], ["stable/5"])
    assert found[f"drops/{release}/sbom.cdx.json"] == ([], ["stable/1"])


def test_what_is_found_in_a_registry_is_told_with_artifact_and_drops(tmp_path: Path) -> None:
    with running_registry(tmp_path / "registry") as registry:
        site = make_site(tmp_path / "site", registry=RegistryConfig(url=registry.url))
        for number in (1, 5):
            take(site, shipped(tmp_path, number))
        client = RegistryClient(registry.host, http=HttpClient(HttpSettings(), Silent()), plain_http=True)
        moved = client.manifest(APP, month(1).artifacts[0].root.digest)
        client.put_manifest(APP, "1", moved.data, moved.media_type)
        ran = airlift("check", "--site", site.root, home=tmp_path)
        assert (ran.code, ran.out.splitlines()[1]) == (17, f"         of: image {APP}:1 of stable/5"), ran.out


def test_a_file_that_site_yaml_names_and_that_is_gone_is_said_with_its_key(site: Site, tmp_path: Path) -> None:
    with (site.root / "site.yaml").open("a") as stream:
        stream.write("registry: {url: 'https://127.0.0.1:9', ca: gone.pem}\n")
    said = f"ca of registry in site.yaml: {site.root}/gone.pem: no such file"
    ran = airlift("import", shipped(tmp_path, 2), "--site", site.root, home=tmp_path)
    assert (ran.code, ran.err.splitlines()[-2:]) == (
        16,
        [f"airlift: error: {said}", "airlift: hint: mend ca of registry in site.yaml"],
    )
    site.store.path(digest_of(b"tool")).unlink()
    out = airlift("check", "--site", site.root, home=tmp_path).out
    assert f"registry 127.0.0.1:9: could not be compared: {said}\n" in out
    assert f"store    {digest_of(b'tool')}: missing\n" in out
