"""What a person types so that pods take what was shipped, for each kind that makes pods."""

from __future__ import annotations

import pytest

from airlift.digest import Digest
from airlift.digest import of as digest_of
from airlift.site.deploy.restarts import commands
from airlift.site.deploy.revisions import Workload
from airlift.site.deploy.rollout import Container
from airlift.site.deploy.running import Compared

NEW, OLD = digest_of(b"new"), digest_of(b"old")
AGAIN = "kubectl -n kube-system delete job helm-install-web"


def compared(
    kind: str = "Deployment",
    image: str = "docker.io/library/app:1",
    running: Digest | None = OLD,
    *,
    is_wrong: bool = True,
    is_held: bool = False,
) -> Compared:
    container = Container(
        Workload(kind, "vision", "app"), "vision/app-5d-abc", "app", image, f"x@{running}", is_held=is_held
    )
    return Compared(container, running, NEW, "differs" if is_wrong else None)


@pytest.mark.parametrize(
    ("kind", "restart"),
    [
        ("Deployment", ("kubectl -n vision rollout restart deployment/app",)),
        ("StatefulSet", ("kubectl -n vision rollout restart statefulset/app",)),
        ("DaemonSet", ("kubectl -n vision rollout restart daemonset/app",)),
        ("ReplicaSet", ("kubectl -n vision delete pod app-5d-abc",)),
        ("CronJob", ("kubectl -n vision delete pod app-5d-abc",)),
        ("Job", ("kubectl -n vision delete job app", AGAIN)),
        ("Pod", ("kubectl -n vision delete pod app", AGAIN)),
    ],
)
def test_each_kind_is_restarted_in_its_way(kind: str, restart: tuple[str, ...]) -> None:
    assert commands("web", [compared(kind)]) == (("k3s crictl pull docker.io/library/app:1",), restart)


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet", "DaemonSet"])
def test_pods_that_no_restart_replaces_are_deleted(kind: str) -> None:
    assert commands("web", [compared(kind, is_held=True)])[1] == ("kubectl -n vision delete pod app-5d-abc",)


def test_each_command_is_said_once() -> None:
    pulls, restarts = commands("web", [compared(), compared(), compared(image="docker.io/library/side:1")])

    assert pulls == ("k3s crictl pull docker.io/library/app:1", "k3s crictl pull docker.io/library/side:1")
    assert restarts == ("kubectl -n vision rollout restart deployment/app",)


def test_an_image_that_is_named_by_its_digest_is_not_pulled_again() -> None:
    pulls, restarts = commands("web", [compared(image=f"docker.io/library/app@{NEW}")])

    assert pulls == ()
    assert restarts == ("kubectl -n vision rollout restart deployment/app",)


def test_what_runs_as_shipped_or_does_not_run_needs_nothing() -> None:
    assert commands("web", [compared(running=NEW, is_wrong=False), compared(running=None)]) == ((), ())
