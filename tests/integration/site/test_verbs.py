"""The site's verbs as an administrator types them."""

from __future__ import annotations

import json
import shlex
import socket
import subprocess
import sys
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from airlift.digest import of as digest_of
from airlift.errors import UsageError
from airlift.site import drops
from airlift.site.config import init_site, load_site
from airlift.site.site_yaml import SiteConfig
from airlift.trust.keys import write_key
from airlift.trust.roots import dump_trust
from tests.components import require, require_root
from tests.support.bundles import OTHER_SITE, SITE, trust
from tests.support.cli import Ran, airlift, ok
from tests.support.servers import free_port
from tests.support.serving import serving
from tests.support.site_bundles import SBOM, URL, Cargo, ship


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A directory with keys, a trust file, a bundle and its successor."""
    (tmp_path / "trust.json").write_bytes(dump_trust(trust()))
    write_key(tmp_path, "site", SITE, passphrase=b"open sesame")
    write_key(tmp_path, "other", OTHER_SITE, passphrase=None)
    (tmp_path / "passphrase").write_text("open sesame\n")
    (tmp_path / "wrong").write_text("open the door\n")
    for number in (1, 2):
        cargo = Cargo()
        cargo.image("docker.io/library/app:1", b"layer %d" % number)
        cargo.image("registry.example.com:5000/team/app:1", b"other")
        cargo.file("tool", b"tool")
        ship(cargo, tmp_path / f"{number}.airlift", sequence=number)
    return tmp_path


def init(home: Path, *more: str, key: str = "site.key") -> Path:
    arguments = ["--trust", "trust.json", "--url", URL, "--identity", key, "--passphrase-file", "passphrase", *more]
    ran = ok("site", "init", "site", *arguments, home=home)
    assert ran.out == f"fingerprint {trust().fingerprint}\n"
    return home / "site"


def test_serve_listens_where_a_loopback_url_points(home: Path) -> None:
    for number, (url, listen) in enumerate(
        [
            ("http://127.0.0.1:8470", "127.0.0.1:8470"),
            ("http://localhost:9000/pre", "127.0.0.1:9000"),
            ("http://[::1]:9000", "'[::1]:9000'"),
            ("https://127.0.0.1:8443", "127.0.0.1:8080"),
            ("http://mirror.example:9000", "127.0.0.1:8080"),
        ]
    ):
        ok("site", "init", f"s{number}", "--trust", "trust.json", "--url", url, home=home)
        assert f"\nlisten: {listen}\n" in (home / f"s{number}" / "site.yaml").read_text()


def test_a_bundle_that_is_not_there_is_a_matter_of_the_command_line(home: Path) -> None:
    init(home)
    for arguments in (["import", "9.airlift", "--site", "site"], ["verify", "9.airlift", "--trust", "trust.json"]):
        ran = airlift(*arguments, home=home)
        assert (ran.code, ran.out) == (2, "")
        assert "airlift: error: BUNDLE 9.airlift: no such file" in ran.err


def take(home: Path, number: int = 1, *more: str) -> Ran:
    return airlift("import", f"{number}.airlift", "--site", "site", *more, home=home)


def test_a_site_is_made_once(home: Path) -> None:
    site = init(home)
    assert {path.name for path in site.iterdir()} == {"site.yaml", "trust.json", "state.db", "store", "drops"}
    assert (site / "site.yaml").read_text().splitlines()[1:] == [
        f"url: {URL}",
        "listen: 127.0.0.1:8080",
        f"identity: {home}/site.key",
        f"passphrase_file: {home}/passphrase",
    ]
    again = airlift("site", "init", "site", "--trust", "trust.json", "--url", URL, home=home)
    assert (again.code, "error: site exists and is not empty" in again.err) == (2, True)
    assert "edit its site.yaml" in again.err


def test_of_several_who_make_a_site_at_once_one_does_and_the_others_take_nothing_away(tmp_path: Path) -> None:
    (tmp_path / "trust.json").write_bytes(dump_trust(trust()))
    begin = threading.Barrier(4)

    def make(_: int) -> bool:
        begin.wait()
        try:
            init_site(tmp_path / "site", tmp_path / "trust.json", SiteConfig(url=URL))
        except UsageError:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(make, range(4))) == 1
    assert drops.list_drops(load_site(tmp_path / "site")) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--url", "mirror"], "--url: expected a URL such as http://mirror.example:8080, got 'mirror'"),
        (["--url", "http://a:b@c"], "--url: a URL must not carry credentials; use username and password_file"),
        (["--listen", "8080"], "--listen: expected HOST:PORT such as 127.0.0.1:8080, got '8080'"),
        (
            ["--identity", "/no/key"],
            "--identity /no/key: no such file\nairlift: hint: there is no directory /no either; is the medium mounted?",
        ),
        (["--identity", "trust.json"], "trust.json is not a private key in PEM"),
        (
            ["--identity", "other.pub"],
            "other.pub is a public key, a private identity key is needed\nairlift: hint: give the .key file",
        ),
        (
            ["--identity", "site.key", "--passphrase-file", "wrong"],
            "site.key does not open with this passphrase\nairlift: hint: check the file given with --passphrase-file",
        ),
        (["--registry-username", "u"], "an option for the registry was given without --registry URL"),
        (["--registry", "harbor"], "--registry: expected a URL such as http://mirror.example:8080, got 'harbor'"),
    ],
)
def test_a_site_that_makes_no_sense_is_not_made(home: Path, options: list[str], message: str) -> None:
    ran = airlift("site", "init", "site", "--trust", "trust.json", "--url", URL, *options, home=home)
    assert (ran.code, ran.err) == (2, f"airlift: error: {message}\n")
    assert not (home / "site").exists()


def test_a_bad_trust_file_makes_no_site(home: Path) -> None:
    (home / "trust.json").write_text("{}")
    ran = airlift("site", "init", "site", "--trust", "trust.json", "--url", URL, home=home)
    assert ran.code == 10
    assert not (home / "site").exists()


def test_no_site_is_said(home: Path) -> None:
    ran = airlift("status", "--site", "nothing", home=home)
    assert (ran.code, ran.err) == (
        2,
        "airlift: error: nothing is no site: there is no site.yaml\nairlift: hint: make one with: airlift site init DIR\n",
    )


def test_a_typo_in_site_yaml_is_found(home: Path) -> None:
    site = init(home)
    text = (site / "site.yaml").read_text()
    (site / "site.yaml").write_text(text.replace("listen:", "lisen:"))
    ran = airlift("status", "--site", "site", home=home)
    assert ran.code == 10
    assert "site/site.yaml:3: lisen:" in ran.err


def test_import_answers_a_program(home: Path) -> None:
    init(home)
    dry = take(home, 1, "--dry-run", "--json").json
    answer = take(home, 1, "--json").json
    again = take(home, 1, "--json").json
    assert {key for key in dry if dry[key] != answer[key]} == {"dry_run", "drops"}
    for key in ("verified", "release", "suite", "channel", "sequence", "signers", "frames", "size", "content_id"):
        assert again[key] == answer[key]
    assert answer["verified"] is True
    (drop,) = answer["drops"]
    assert (drop["channel"], drop["sequence"], drop["artifacts"], drop["active"]) == ("stable", 1, 3, True)
    assert (drop["release"], drop["content_id"]) == (answer["release"], answer["content_id"])
    assert (answer["already_imported"], again["already_imported"]) == (False, True)
    sbom = home / "site" / "drops" / answer["release"] / "sbom.cdx.json"
    assert sbom.read_bytes() == SBOM


def test_import_tells_a_person(home: Path) -> None:
    init(home)
    assert "new      v2/docker.io/library/app:1  sha256:" in take(home, 1, "--dry-run").out
    first = take(home)
    assert first.out.startswith("drop stable/1 imported, active: 3 artifacts,")
    assert take(home).out.startswith("drop stable/1 is here already and complete, nothing was written")
    second = take(home, 2)
    assert "  names: 0 new, 1 changed, 2 as before, 0 gone\n" in second.out


def test_drops_are_listed_and_switched(home: Path) -> None:
    init(home)
    take(home, 1)
    take(home, 2)
    found = ok("drops", "list", "--site", "site", "--json", home=home).json["drops"]
    assert [(drop["sequence"], drop["active"]) for drop in found] == [(1, False), (2, True)]
    ran = ok("drops", "activate", "--site", "site", found[0]["release"][:16], "--json", home=home)
    assert [drop["active"] for drop in ran.json["drops"]] == [True, False]
    assert ok("drops", "list", "--site", "site", home=home).out.startswith("* stable/1  sha256:")
    status = ok("status", "--site", "site", "--json", home=home).json
    assert status["channels"]["stable"]["sequence"] == 2
    assert status["drops"] == ran.json["drops"]
    old = take(home, 1)
    assert (old.code, "sequence 1 of channel stable is too old" in old.err) == (14, True)
    none = airlift("drops", "activate", "--site", "site", "feedbeef", home=home)
    assert (none.code, "no drop 'feedbeef' at site" in none.err) == (2, True)


def test_the_wrong_identity_opens_nothing(home: Path) -> None:
    init(home, key="other.key")
    ran = take(home)
    assert ran.code == 13
    assert ok("drops", "list", "--site", "site", "--json", home=home).json["drops"] == []


def test_the_passphrase_is_asked_for(home: Path) -> None:
    init(home)
    (home / "passphrase").write_text("wrong\n")
    assert take(home).code == 2
    (home / "right").write_text("open sesame\n")
    assert take(home, 1, "--passphrase-file", "right").code == 0


def test_a_taken_port_is_said(home: Path) -> None:
    init(home)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        ran = airlift("serve", "--site", "site", "--listen", address, home=home)
    assert ran.code == 1
    assert ran.err.splitlines() == [
        f"airlift: error: cannot listen on {address}: address already in use",
        "airlift: hint: another program has this port; stop it, or choose another with --listen",
    ]


def test_an_address_that_cannot_be_listened_on_is_said_without_blaming_another_program(home: Path) -> None:
    init(home)
    ran = airlift("serve", "--site", "site", "--listen", "192.0.2.1:8080", home=home)
    assert ran.code == 1
    assert ran.err.splitlines() == [
        "airlift: error: cannot listen on 192.0.2.1:8080: cannot assign requested address",
        "airlift: hint: this machine does not have that address; 0.0.0.0 stands for all that it has",
    ]


def test_a_site_without_an_identity_is_told_where_to_name_it(home: Path) -> None:
    ok("site", "init", "site", "--trust", "trust.json", "--url", URL, home=home)
    ran = take(home)
    assert (ran.code, ran.out) == (13, "")
    assert "hint: give the site's private key: --identity of this command, or `identity` in site.yaml" in ran.err


def test_clients_are_told_what_they_need(home: Path) -> None:
    init(home)
    take(home)

    def config(client: str) -> str:
        return ok("status", "--site", "site", "--client", client, home=home).out

    assert config("pip").splitlines()[1:] == [
        "[global]",
        f"index-url = {URL}/simple/",
        "trusted-host = mirror.example:8080",
    ]
    assert f'url = "{URL}/simple/"' in config("uv")
    assert f"helm repo add airlift {URL}/charts\n" in config("helm")
    assert f"HF_ENDPOINT={URL}/hf\n" in config("hf")
    containerd = config("containerd")
    assert "# /etc/containerd/certs.d/docker.io/hosts.toml\n" in containerd
    assert "# /etc/containerd/certs.d/registry.example.com:5000/hosts.toml\n" in containerd
    assert f'[host."{URL}"]\n  capabilities = ["pull", "resolve"]\n' in containerd


def test_clients_of_a_site_with_a_registry_are_sent_there(home: Path) -> None:
    init(home, "--registry", "https://harbor.example/lab", "--registry-username", "robot")
    ran = ok("status", "--site", "site", "--client", "containerd", home=home)
    assert '[host."https://harbor.example/v2/lab/docker.io"]\n' in ran.out
    assert "  override_path = true\n" in ran.out
    assert "oci://harbor.example/lab/charts/NAME" in ok("status", "--site", "site", "--client", "helm", home=home).out


def test_a_registry_that_is_not_there_is_said_before_the_first_byte(home: Path) -> None:
    site = init(home, "--registry", f"http://127.0.0.1:{free_port()}")
    ran = take(home)
    assert ran.code == 17, ran.err
    assert ok("drops", "list", "--site", "site", "--json", home=home).json["drops"] == []
    assert list((site / "store" / "blobs" / "sha256").iterdir()) == []


@pytest.fixture
def small_disk(home: Path) -> Path:
    require_root()
    disk = home / "disk"
    disk.mkdir()
    return disk


def on_disk(disk: Path, script: str, *, size: str) -> subprocess.CompletedProcess[str]:
    """Run a script where `disk` is a file system of its own that vanishes with it."""
    command = f"mount -t tmpfs -o size={size} none {disk} && cd {disk.parent} && {script}"
    return subprocess.run(["unshare", "-m", "sh", "-c", command], capture_output=True, text=True, check=False)


def test_a_full_disk_is_said_and_the_import_goes_on_where_there_is_room(home: Path, small_disk: Path) -> None:
    cargo = Cargo()
    first = bytes(range(256)) * 8192
    cargo.file("first", first)
    cargo.file("second", first[::-1] * 4)
    ship(cargo, home / "big.airlift", sequence=3)
    run = f"{shlex.quote(sys.executable)} -m airlift"
    made = f"{run} site init disk/site --trust trust.json --url {URL} --identity site.key --passphrase-file passphrase"
    script = (
        f"{made} && {run} import big.airlift --site disk/site; echo code $?;"
        f" {run} drops list --site disk/site --json; ls -la disk/site/store/ingest;"
        f" test -e disk/site/store/blobs/sha256/{digest_of(first)[7:]} && echo kept;"
        f" mount -o remount,size=64m {small_disk}; {run} import big.airlift --site disk/site --json"
    )
    ran = on_disk(small_disk, script, size="6m")
    assert "code 16\n" in ran.stdout, ran.stderr
    assert "No space left on device" in ran.stderr
    assert "free some space on that disk and run the same command again" in ran.stderr
    assert "kept\n" in ran.stdout
    listed, _, rest = ran.stdout.partition("code 16\n")[2].partition("total")
    assert [drop["state"] for drop in json.loads(listed)["drops"]] == ["staging"]
    answer = json.loads(rest[rest.index("{") :])
    assert answer["drops"][0]["active"] is True
    assert "Traceback" not in ran.stderr


def test_a_journal_that_is_not_there_is_said(home: Path) -> None:
    (init(home) / "state.db").unlink()
    ran = airlift("status", "--site", "site", home=home)
    assert (ran.code, ran.out) == (16, "")
    assert ran.err.splitlines() == [
        "airlift: error: the journal site/state.db is not there",
        "airlift: hint: restore it from a backup, or move what is left of it away and run airlift site recover",
    ]


def test_a_read_only_store_is_said(home: Path, small_disk: Path) -> None:
    run = f"{shlex.quote(sys.executable)} -m airlift"
    made = f"{run} site init disk/site --trust trust.json --url {URL} --identity site.key --passphrase-file passphrase"
    script = f"{made} && mount -o remount,ro {small_disk} && {run} import 1.airlift --site disk/site"
    ran = on_disk(small_disk, script, size="16m")
    assert ran.returncode == 16, ran.stderr
    assert "Traceback" not in ran.stderr
    assert "mounted" in ran.stderr


def test_a_site_serves_where_there_is_no_network(home: Path) -> None:
    require_root()
    site = init(home)
    take(home)
    script = (
        "ip link set lo up; "
        f"{shlex.quote(sys.executable)} -m airlift serve --site {site} --listen 127.0.0.1:8080 & server=$!; "
        "for i in $(seq 100); do curl -fs http://127.0.0.1:8080/healthz && break; sleep 0.1; done; "
        f"{require('skopeo')} --insecure-policy copy -q --src-tls-verify=false"
        f" docker://127.0.0.1:8080/docker.io/library/app:1 dir:{home}/pulled; code=$?; "
        "kill $server; wait $server; exit $code"
    )
    ran = subprocess.run(["unshare", "-n", "sh", "-c", script], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "airlift: stopped" in ran.stderr
    assert (home / "pulled" / "manifest.json").is_file()


def test_serving_follows_an_import_and_a_switch(home: Path) -> None:
    site = init(home)
    take(home, 1)

    def digest(url: str) -> str:
        with urllib.request.urlopen(f"{url}/v2/library/app/manifests/1", timeout=10) as answer:
            return str(answer.headers["Docker-Content-Digest"])

    with serving(site) as url:
        first = digest(url)
        take(home, 2)
        second = digest(url)
        ok("drops", "activate", "--site", "site", "stable/1", home=home)
        assert digest(url) == first != second
        with urllib.request.urlopen(f"{url}/v2/library/app/manifests/{second}", timeout=10) as answer:
            assert answer.status == 200
