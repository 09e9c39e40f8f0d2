from __future__ import annotations

from pathlib import PurePosixPath

import pytest
import yaml

from airlift import digest as digests
from airlift.cli.deploy_node import plan_lines
from airlift.errors import DeployError
from airlift.site.deploy.registries import PATH, Endpoint
from tests.support.drops import Drops, drops_at

CA = PurePosixPath("etc/rancher/k3s/airlift-ca-0.pem")


def written(root):
    return yaml.safe_load((root / PATH).read_text())


def test_every_source_registry_of_images_and_charts_gets_a_mirror(drops: Drops, deploy, root) -> None:
    drops.image("docker.io/library/redis:7.4")
    drops.image("registry.example.com:5000/vision/app:1")
    drops.chart("app", "1.2.3", [], at="ghcr.io/org/charts/app:1.2.3")
    drops.chart("local", "1.0.0", [])

    deploy()

    assert written(root) == {
        "mirrors": {
            "docker.io": {"endpoint": ["http://10.0.0.1:8080/v2/docker.io"]},
            "ghcr.io": {"endpoint": ["http://10.0.0.1:8080/v2/ghcr.io"]},
            "registry.example.com:5000": {"endpoint": ["http://10.0.0.1:8080/v2/registry.example.com_5000"]},
        }
    }


def test_configs_name_the_endpoint_only_and_the_password_is_not_shown(drops: Drops, deploy, root) -> None:
    drops.image("docker.io/library/redis:7.4")
    endpoint = Endpoint("https://harbor.example.com/v2/mirror", CA, b"a certificate", "robot$k3s", "s3cret")

    made = deploy(endpoint=endpoint)

    assert written(root) == {
        "mirrors": {"docker.io": {"endpoint": ["https://harbor.example.com/v2/mirror/docker.io"]}},
        "configs": {
            "harbor.example.com": {
                "auth": {"username": "robot$k3s", "password": "s3cret"},
                "tls": {"ca_file": "/etc/rancher/k3s/airlift-ca-0.pem"},
            }
        },
    }
    assert (root / PATH).stat().st_mode & 0o7777 == 0o600
    certificates, item = made.files
    assert certificates.path == CA
    assert (root / CA).read_bytes() == b"a certificate"
    assert "s3cret" not in str(item.text)
    assert "s3cret" not in repr(endpoint)
    shown = str(made.to_json()) + "\n".join(plan_lines(made, dry_run=True))
    assert digests.of((root / PATH).read_bytes()) not in shown  # who knows the rest of it could try passwords
    assert f"create /{PATH} ({item.size} B, mode 0600, secret)" in shown


def test_a_change_asks_for_a_restart_and_no_change_does_not(drops: Drops, deploy) -> None:
    drops.image("docker.io/library/redis:7.4")

    first, second = deploy(), deploy()

    assert first.restart
    assert first.notes[0].startswith("registries.yaml changed: restart K3s")
    assert not second.restart
    assert "--disable-default-registry-endpoint" in second.notes[0]


def test_the_file_of_an_administrator_is_not_overwritten(drops: Drops, deploy, root) -> None:
    drops.image("docker.io/library/redis:7.4")
    (root / PATH).parent.mkdir(parents=True)
    (root / PATH).write_text("mirrors: {}\n")

    with pytest.raises(DeployError) as caught:
        deploy()

    assert str(caught.value) == f"{root / PATH} exists and was not written by airlift; it is not overwritten"
    assert (root / PATH).read_text() == "mirrors: {}\n"


def test_our_file_after_an_edit_is_not_overwritten(drops: Drops, deploy, root) -> None:
    drops.image("docker.io/library/redis:7.4")
    deploy()
    edited = (root / PATH).read_text() + "  quay.io: {endpoint: [http://10.9.9.9]}\n"
    (root / PATH).write_text(edited)

    with pytest.raises(DeployError, match="was edited after airlift wrote it"):
        deploy()

    assert (root / PATH).read_text() == edited


def test_registries_of_an_earlier_drop_stay(drops: Drops, deploy, root, tmp_path) -> None:
    drops.image("quay.io/a/b:1")
    deploy()
    following = drops_at(tmp_path / "next")
    following.image("docker.io/library/redis:7.4")

    deploy(following, endpoint=Endpoint("http://10.0.0.2/v2"))

    assert written(root)["mirrors"] == {
        "docker.io": {"endpoint": ["http://10.0.0.2/v2/docker.io"]},
        "quay.io": {"endpoint": ["http://10.0.0.2/v2/quay.io"]},
    }


@pytest.mark.parametrize(
    "endpoint",
    [
        Endpoint("ftp://10.0.0.1/v2"),
        Endpoint("http://user:s3cret@10.0.0.1/v2"),
        Endpoint("http://10.0.0.1/v2", None, None, "robot", "s3cret\nmirrors: {}"),
        Endpoint("http://10.0.0.1/v2", None, None, "robot", None),
    ],
)
def test_what_would_make_an_entry_that_k3s_ignores_is_refused_without_the_secret(
    drops: Drops, deploy, root, endpoint: Endpoint
) -> None:
    drops.image("docker.io/library/redis:7.4")

    with pytest.raises(DeployError, match=r"^registries.yaml would be wrong at ") as caught:
        deploy(endpoint=endpoint)

    assert "s3cret" not in str(caught.value)
    assert not root.exists()
