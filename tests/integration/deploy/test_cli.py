"""The command, on a site whose content lies in its store or in a real registry."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import trustme
import yaml

from airlift import oci
from airlift.cli.main import run
from airlift.digest import of as digest_of
from airlift.progress import Silent
from airlift.site.config import Site
from airlift.site.site_yaml import RegistryConfig
from airlift.store import Store
from airlift.transport.credentials import Credentials
from airlift.transport.http import HttpClient
from airlift.transport.registry import RegistryClient
from airlift.transport.settings import HttpSettings
from tests.support.deployable import activate, make_site
from tests.support.drops import Drops
from tests.support.folders import SharedFolder
from tests.support.registry import Registry, running_registry
from tests.support.servers import free_port
from tests.unit.deploy.conftest import tree

REDIS = "docker.io/library/redis:7.4"
APP = "registry.example.com:5000/vision/app:1"


def fill(drops: Drops) -> None:
    drops.image(REDIS, b"redis")
    drops.image(APP, b"app" * 1000)
    drops.chart("site", "1.0.0", [REDIS, APP])
    drops.release("site", namespace="vision", **{"v.yaml": b"a: 1\n"})
    drops.preload = [REDIS]


@pytest.fixture(autouse=True)
def _without_helm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The charts of these tests are none that helm could render."""
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))


@pytest.fixture
def site(tmp_path: Path) -> Site:
    made = make_site(tmp_path / "site")
    drops = Drops(made.store)
    fill(drops)
    activate(made, drops)
    return made


def show_redis(site: Site) -> None:
    """Activate a drop with an image that nodes pull."""
    drops = Drops(site.store)
    drops.image(REDIS, b"redis")
    activate(site, drops, listed=False)


def deploy(site: Site, root: Path, *more: str) -> int:
    return run(["deploy", "k3s", "--site", str(site.root), "--root", str(root), "--platform", "linux/amd64", *more])


def test_a_deployment_waits_for_another_and_a_dry_run_for_nobody(site: Site, tmp_path: Path) -> None:
    root = tmp_path / "root"
    with ThreadPoolExecutor(2) as pool:
        with site.locked("deploying", Silent()):
            assert deploy(site, root, "--dry-run") == 0
            waiting = [pool.submit(deploy, site, root) for _ in range(2)]
            with pytest.raises(TimeoutError):
                waiting[0].result(1)
            assert tree(root) == {}
        assert [future.result(60) for future in waiting] == [0, 0]
    assert tree(root)


def test_it_writes_and_the_second_run_changes_nothing(site: Site, tmp_path: Path, capsys) -> None:
    root = tmp_path / "root"
    assert deploy(site, root, "--json") == 0
    first = json.loads(capsys.readouterr().out)
    before = tree(root)
    assert deploy(site, root, "--json") == 0
    second = json.loads(capsys.readouterr().out)

    assert (first["changed"], first["restart"], first["dry_run"]) == (True, True, False)
    assert (second["changed"], second["restart"]) == (False, False)
    assert {item["path"] for item in first["files"]} == {f"/{path}" for path in before}
    assert {item["action"] for item in second["files"]} == {"unchanged"}
    assert tree(root) == before
    assert set(first["images"]) == {REDIS, APP}


_FILE = re.compile(r"(create|replace|unchanged) /(\S+) \((.+), mode ([0-7]{4}), (sha256:[0-9a-f]{64})\)")


def printed_files(text: str) -> dict[str, tuple[int, str, bytes]]:
    """Mode, digest and shown content of every file of a dry run."""
    found: dict[str, tuple[int, str, bytes]] = {}
    path = ""
    for line in text.splitlines():
        if (file := _FILE.fullmatch(line)) is not None:
            path = file[2]
            found[path] = int(file[4], 8), file[5], b""
        elif line.startswith("    "):
            mode, digest, content = found[path]
            found[path] = mode, digest, content + line[4:].encode() + b"\n"
    return found


def test_a_dry_run_prints_exactly_what_would_be_written(site: Site, tmp_path: Path, capsys) -> None:
    """Each file with its mode, its digest, and what is text byte for byte; and no other file."""
    root = tmp_path / "root"
    assert deploy(site, root, "--dry-run") == 0
    printed = printed_files(capsys.readouterr().out)
    assert not root.exists()

    assert deploy(site, root) == 0

    written = tree(root)
    assert {path: item[:2] for path, item in printed.items()} == {
        path: (mode, digest_of(content)) for path, (mode, content) in written.items()
    }
    texts = {path for path in written if path.endswith(".yaml")}
    assert len(texts) == 2
    assert {path: printed[path][2] for path in texts} == {path: written[path][1] for path in texts}


def test_a_dry_run_over_files_that_are_there_prints_what_would_be_replaced(site: Site, tmp_path: Path, capsys) -> None:
    root = tmp_path / "root"
    assert deploy(site, root) == 0
    manifest = root / "var/lib/rancher/k3s/server/manifests/airlift-site.yaml"
    whole = manifest.read_bytes()
    manifest.chmod(0o644)
    before = tree(root)
    capsys.readouterr()

    assert deploy(site, root, "--dry-run") == 0

    changed = [line for line in capsys.readouterr().out.splitlines() if line.startswith(("create ", "replace "))]
    assert tree(root) == before
    assert [line.split()[:2] for line in changed] == [["replace", f"/{manifest.relative_to(root)}"]]
    assert deploy(site, root) == 0
    assert (manifest.read_bytes(), manifest.stat().st_mode & 0o777) == (whole, 0o600)


def test_the_text_names_pins_and_notes(site: Site, tmp_path: Path, capsys) -> None:
    assert deploy(site, tmp_path / "root") == 0
    said = capsys.readouterr()

    assert f"image {REDIS} is sha256:" in said.out
    assert "airlift: note: registries.yaml changed: restart K3s so that it is read" in said.err


def test_a_missing_image_ends_with_18_before_the_first_write(tmp_path: Path, capsys) -> None:
    site = make_site(tmp_path / "site")
    drops = Drops(site.store)
    drops.chart("site", "1.0.0", [REDIS])
    drops.release("site")
    activate(site, drops)

    assert deploy(site, tmp_path / "root") == 18

    said = capsys.readouterr().err
    assert "airlift: error: images that are to run are not in the drop" in said
    assert "airlift:   docker.io/library/redis:7.4 (charts/site:1.0.0, Deployment/web: " in said
    assert "airlift: hint: the release engineer has to add them under `images:`" in said
    assert not (tmp_path / "root").exists()


def test_without_an_active_drop_it_ends_with_18(tmp_path: Path, capsys) -> None:
    site = make_site(tmp_path / "site")

    assert deploy(site, tmp_path / "root") == 18

    assert f"error: no drop is active at {site.root}" in capsys.readouterr().err


def test_a_platform_that_is_none_ends_with_2(site: Site, tmp_path: Path, capsys) -> None:
    assert deploy(site, tmp_path / "root", "--platform", "amd64") == 2
    assert "--platform: 'amd64' is not os/architecture[/variant]" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--root", "x", "--role", "agent"], "--root writes the files of the drops only"),
        (["--root", "x", "--cluster-init"], "--root writes the files of the drops only"),
        (["--role", "agent", "--dry-run"], "an agent joins a server"),
        (["--server", "https://10.0.0.2:6443", "--dry-run"], "joining a server needs its token"),
    ],
)
def test_options_that_contradict_each_other_end_with_2(site: Site, capsys, options: list[str], message: str) -> None:
    assert run(["deploy", "k3s", "--site", str(site.root), *options]) == 2
    assert message in capsys.readouterr().err


def test_a_token_file_without_a_token_ends_with_2(site: Site, tmp_path: Path, capsys) -> None:
    (tmp_path / "token").write_text("\nx\n")
    command = ["deploy", "k3s", "--site", str(site.root), "--token-file", str(tmp_path / "token"), "--dry-run"]

    assert run(command) == 2
    assert "token: the first line is no token" in capsys.readouterr().err


def test_a_machine_without_k3s_in_the_drop_ends_with_18(site: Site, capsys) -> None:
    assert run(["deploy", "k3s", "--site", str(site.root), "--platform", "linux/amd64", "--dry-run"]) == 18
    assert "the active drops carry no file k3s or k3s-amd64" in capsys.readouterr().err


def test_the_endpoint_is_the_sites_url(site: Site, tmp_path: Path, capsys) -> None:
    assert deploy(site, tmp_path / "root") == 0

    written = yaml.safe_load((tmp_path / "root/etc/rancher/k3s/registries.yaml").read_text())
    assert written == {
        "mirrors": {
            "docker.io": {"endpoint": ["http://10.0.0.1:8080/v2/docker.io"]},
            "registry.example.com:5000": {"endpoint": ["http://10.0.0.1:8080/v2/registry.example.com_5000"]},
        }
    }


@pytest.fixture(scope="module")
def registry(shared_folder: SharedFolder) -> Iterator[Registry]:
    with running_registry(shared_folder("registry"), secure=True) as running:
        yield running


def push(registry: Registry, drops: Drops, prefix: str) -> None:
    """Fill the registry as an import would."""
    http = HttpClient(HttpSettings(ca_bundle=registry.ca))
    client = RegistryClient(registry.host, http=http, credentials=Credentials(registry.username, registry.password))
    for artifact in drops.artifacts:
        repository, _, tag = artifact.name.rpartition(":")
        first, _, rest = repository.partition("/")
        _push(client, drops.store, f"{prefix}/{first.replace(':', '_')}/{rest}", artifact.root, tag)


def _push(client: RegistryClient, store: Store, repository: str, root: oci.Descriptor, tag: str) -> None:
    data = store.read(root.digest)
    manifest = oci.parse_manifest(data, subject=repository, media_type=root.media_type)
    for child in manifest.manifests:
        _push(client, store, repository, child, child.digest)
    for blob in [*([manifest.config] if manifest.config else []), *manifest.layers]:
        client.push_blob(repository, blob.digest, blob.size, lambda blob=blob: [store.read(blob.digest)])
    client.push_manifest(repository, tag, data, root.media_type)


@pytest.mark.parametrize(
    ("places", "prefix"),
    [
        ({}, "mirror"),
        ({"project": "edge"}, "mirror/edge"),
        ({"project": "edge", "mapping": "images/{registry}/{repository}"}, "mirror/edge/images"),
    ],
)
def test_with_a_registry_the_content_comes_from_there_and_nodes_are_sent_there(
    registry: Registry, site: Site, tmp_path: Path, capsys, places: dict[str, str], prefix: str
) -> None:
    """The same drop gives the same files, whether its blobs are in the store or in a registry with TLS and a login."""
    (tmp_path / "password").write_text("s3cret\n")
    config = RegistryConfig(
        url=f"{registry.url}/mirror",
        ca=str(registry.ca),
        username="alice",
        password_file=str(tmp_path / "password"),
        **places,  # type: ignore[arg-type]  # the text settings among them
    )
    other = make_site(tmp_path / "other", registry=config)
    elsewhere = Drops(Store(tmp_path / "elsewhere").create())
    fill(elsewhere)
    push(registry, elsewhere, prefix)
    for entry in elsewhere.deploy:
        for values in entry["values"]:
            other.store.put_bytes(elsewhere.store.read(values["digest"]))
    elsewhere_config = Drops(other.store, elsewhere.artifacts, elsewhere.deploy, elsewhere.preload)
    activate(other, elsewhere_config, listed=False)

    assert deploy(other, tmp_path / "a", "--dry-run") == 0
    assert "s3cret" not in capsys.readouterr().out
    assert deploy(other, tmp_path / "a") == 0
    assert deploy(site, tmp_path / "b") == 0

    found, expected = tree(tmp_path / "a"), tree(tmp_path / "b")
    mirrors = yaml.safe_load(found.pop("etc/rancher/k3s/registries.yaml")[1])
    expected.pop("etc/rancher/k3s/registries.yaml")
    (ca,) = [path for path in found if path.endswith(".pem")]
    assert registry.ca is not None
    assert found.pop(ca)[1] == registry.ca.read_bytes()
    assert found == expected
    assert mirrors == {
        "mirrors": {
            "docker.io": {"endpoint": [f"{registry.url}/v2/{prefix}/docker.io"]},
            "registry.example.com:5000": {"endpoint": [f"{registry.url}/v2/{prefix}/registry.example.com_5000"]},
        },
        "configs": {registry.host: {"auth": {"username": "alice", "password": "s3cret"}, "tls": {"ca_file": f"/{ca}"}}},
    }


def test_an_image_whose_name_is_joined_in_the_registry_is_said_to_be_out_of_reach(
    registry: Registry, tmp_path: Path, capsys
) -> None:
    (tmp_path / "password").write_text("s3cret\n")
    config = RegistryConfig(
        url=registry.url,
        ca=str(registry.ca),
        username="alice",
        password_file=str(tmp_path / "password"),
        mapping="joined/{repository}",
        depth=1,
    )
    other = make_site(tmp_path / "other", registry=config)
    show_redis(other)

    assert deploy(other, tmp_path / "a") == 0

    said = capsys.readouterr()
    assert "docker.io/library/redis: `depth` in site.yaml joins parts of the name" in said.out + said.err
    mirrors = yaml.safe_load((tmp_path / "a/etc/rancher/k3s/registries.yaml").read_text())["mirrors"]
    assert mirrors == {"docker.io": {"endpoint": [f"{registry.url}/v2/joined"]}}


def test_a_layer_that_the_registry_lost_is_found_before_the_first_write(
    registry: Registry, tmp_path: Path, capsys
) -> None:
    (tmp_path / "password").write_text("s3cret\n")
    config = RegistryConfig(
        url=f"{registry.url}/lost", ca=str(registry.ca), username="alice", password_file=str(tmp_path / "password")
    )
    other = make_site(tmp_path / "other", registry=config)
    elsewhere = Drops(Store(tmp_path / "elsewhere").create())
    elsewhere.image(REDIS, b"redis")
    elsewhere.preload = [REDIS]
    activate(other, Drops(other.store, elsewhere.artifacts, [], elsewhere.preload), listed=False)

    assert deploy(other, tmp_path / "a") == 18

    assert f"{REDIS}: {elsewhere.artifacts[0].root.digest} is not at this site" in capsys.readouterr().err
    assert not (tmp_path / "a").exists()


def test_a_registry_that_does_not_let_the_site_in_is_said_to_refuse(registry: Registry, tmp_path: Path, capsys) -> None:
    other = make_site(tmp_path / "other", registry=RegistryConfig(url=registry.url, ca=str(registry.ca)))
    elsewhere = Drops(Store(tmp_path / "elsewhere").create())
    elsewhere.image(REDIS, b"redis")
    elsewhere.preload = [REDIS]
    activate(other, Drops(other.store, elsewhere.artifacts, [], elsewhere.preload), listed=False)

    assert deploy(other, tmp_path / "a") == 17

    assert "hint: give the registry's username and password_file in site.yaml, or mend them" in capsys.readouterr().err
    assert not (tmp_path / "a").exists()


def test_an_account_that_may_not_pull_is_refused_before_the_first_write(
    registry: Registry, tmp_path: Path, capsys
) -> None:
    other = make_site(tmp_path / "other", registry=with_pull(registry, tmp_path, "wrong"))
    show_redis(other)

    assert deploy(other, tmp_path / "a") == 18

    said = capsys.readouterr().err
    assert f"airlift: error: {registry.host}: nodes cannot pull {REDIS} as alice (pull in site.yaml): " in said
    assert "answered 401 Unauthorized" in said
    assert "airlift: hint: mend `pull` of registry in site.yaml" in said
    assert not (tmp_path / "a").exists()


def test_images_that_come_in_tarballs_need_no_account(registry: Registry, tmp_path: Path, capsys) -> None:
    other = make_site(tmp_path / "other", registry=with_pull(registry, tmp_path, "wrong"))
    here = Drops(other.store)
    here.image(REDIS, b"redis")
    here.preload = ["redis:7.4"]
    activate(other, here, listed=False)

    assert deploy(other, tmp_path / "a") == 0, capsys.readouterr()


def test_an_account_that_may_not_pull_keeps_nobody_from_going_back(registry: Registry, tmp_path: Path, capsys) -> None:
    other = make_site(tmp_path / "other", registry=with_pull(registry, tmp_path, "wrong"))
    for sequence in (1, 2):
        here = Drops(other.store)
        here.image(REDIS, b"redis %d" % sequence)
        activate(other, here, sequence=sequence, listed=False)
    where = ["--site", str(other.root), "--root", str(tmp_path / "a"), "--platform", "linux/amd64"]

    assert run(["deploy", "rollback", *where, "--dry-run"]) == 0

    said = capsys.readouterr()
    assert "would go from stable/2 back to stable/1" in said.out
    assert f"note: {registry.host}: nodes cannot pull {REDIS} as alice (pull in site.yaml): " in said.out + said.err


def test_an_authority_that_did_not_sign_the_registrys_certificate_is_refused_before_the_first_write(
    registry: Registry, tmp_path: Path, capsys
) -> None:
    config = with_pull(registry, tmp_path, "s3cret")
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "stranger.pem"))
    other = make_site(tmp_path / "other", registry=config.model_copy(update={"ca": str(tmp_path / "stranger.pem")}))
    show_redis(other)

    assert deploy(other, tmp_path / "a") == 18

    said = capsys.readouterr().err
    assert f"airlift: error: {registry.host}: nodes cannot pull {REDIS} as alice (pull in site.yaml): " in said
    assert "the certificate is not trusted" in said
    assert "name its certificate in ca of registry in site.yaml" in said
    assert not (tmp_path / "a").exists()


def test_a_registry_that_is_away_is_noted_and_keeps_nobody_from_deploying(tmp_path: Path, capsys) -> None:
    other = make_site(tmp_path / "other", registry=RegistryConfig(url=f"http://127.0.0.1:{free_port()}"))
    show_redis(other)

    assert deploy(other, tmp_path / "a") == 0

    said = capsys.readouterr()
    assert "was not asked whether nodes may pull: " in said.out + said.err
    assert (tmp_path / "a/etc/rancher/k3s/registries.yaml").is_file()


def with_pull(registry: Registry, folder: Path, password: str) -> RegistryConfig:
    """The registry with an account of the import that is right, and one of the nodes."""
    (folder / "password").write_text("s3cret\n")
    (folder / "pull").write_text(f"{password}\n")
    return RegistryConfig.model_validate(
        {
            "url": registry.url,
            "ca": str(registry.ca),
            "username": registry.username,
            "password_file": str(folder / "password"),
            "pull": {"username": registry.username, "password_file": str(folder / "pull")},
        }
    )
