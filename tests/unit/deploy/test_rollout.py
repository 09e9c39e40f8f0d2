from __future__ import annotations

import base64
import gzip
import json
from typing import Any

import pytest

from airlift.errors import DeployError
from airlift.site.deploy import revisions
from airlift.site.deploy.revisions import Workload
from airlift.site.deploy.rollout import Objects

WEB = Workload("Deployment", "v", "web")


def thing(name: str, owner: tuple[str, str] | None = None, **fields: Any) -> dict[str, Any]:
    owners = [{"kind": owner[0], "name": owner[1], "controller": True}] if owner else []
    metadata = {"name": name, "namespace": "v", "ownerReferences": owners, **fields.pop("metadata", {})}
    return {"metadata": metadata, **fields}


def pod(name: str, owner: tuple[str, str], phase: str = "Running", **metadata: Any) -> dict[str, Any]:
    spec = {"containers": [{"name": "c", "image": "a:1"}], "initContainers": [{"name": "i", "image": "b:1"}]}
    reported = {"containerStatuses": [{"name": "c", "imageID": "x"}]}
    return thing(name, owner, metadata=metadata, spec=spec, status={"phase": phase, **reported})


def test_pods_are_found_through_their_owners_with_their_init_containers() -> None:
    objects = Objects(
        {
            "Deployment": [thing("web")],
            "ReplicaSet": [thing("web-1", ("Deployment", "web")), thing("other-1", ("Deployment", "other"))],
            "Pod": [pod("a", ("ReplicaSet", "web-1")), pod("b", ("ReplicaSet", "other-1"))],
        }
    )

    found = objects.containers([WEB])

    assert [(item.pod, item.name, item.image, item.image_id) for item in found] == [
        ("v/a", "i", "b:1", ""),
        ("v/a", "c", "a:1", "x"),
    ]


@pytest.mark.parametrize(
    ("waiting", "said"),
    [
        ({"reason": "ErrImagePull", "message": "failed:\n 401"}, "ErrImagePull: failed: 401"),
        # The kubelet says by turns that it failed and that it waits before it tries again.
        (
            {"reason": "ImagePullBackOff", "message": 'Back-off "a": ErrImagePull: failed: 401'},
            "ErrImagePull: failed: 401",
        ),
        ({"reason": "ImagePullBackOff", "message": "Back-off"}, "ImagePullBackOff: Back-off"),
        ({"reason": "CreateContainerConfigError"}, "CreateContainerConfigError"),
        ({"reason": "ContainerCreating", "message": "soon"}, ""),
        ({"reason": "ErrImagePull", "message": "x" * 5000}, "ErrImagePull: " + "x" * 986),
        ("odd", ""),
    ],
)
def test_a_container_says_why_it_has_not_started(waiting: Any, said: str) -> None:
    made = pod("a", ("ReplicaSet", "web-1"), "Pending")
    made["status"]["containerStatuses"] = [{"name": "c", "imageID": "", "state": {"waiting": waiting}}]
    objects = Objects({"ReplicaSet": [thing("web-1", ("Deployment", "web"))], "Pod": [made]})

    assert [item.waits for item in objects.containers([WEB])] == ["", said]


def test_pods_that_go_away_or_ended_long_ago_do_not_count() -> None:
    cron, job = Workload("CronJob", "v", "nightly"), Workload("Job", "v", "once")
    objects = Objects(
        {
            "ReplicaSet": [thing("web-1", ("Deployment", "web"))],
            "Job": [thing("nightly-1", ("CronJob", "nightly")), thing("once")],
            "Pod": [
                pod("going", ("ReplicaSet", "web-1"), deletionTimestamp="2026-11-25T12:00:00Z"),
                pod("evicted", ("ReplicaSet", "web-1"), "Failed"),
                pod("last-night", ("Job", "nightly-1"), "Succeeded"),
                pod("tonight", ("Job", "nightly-1")),
                pod("done", ("Job", "once"), "Succeeded"),
            ],
        }
    )

    assert {item.pod for item in objects.containers([WEB, cron, job])} == {"v/tonight", "v/done"}


def owned_pods(owner: Workload) -> dict[str, list[dict[str, Any]]]:
    return {} if owner.kind == "Pod" else {"Pod": [pod("p", (owner.kind, owner.name))]}


@pytest.mark.parametrize(
    ("kind", "spec", "is_held"),
    [
        ("Deployment", {}, False),
        ("Deployment", {"paused": True}, True),
        ("StatefulSet", {"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}}, False),
        ("StatefulSet", {"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 1}}}, True),
        ("StatefulSet", {"updateStrategy": {"type": "OnDelete"}}, True),
        ("DaemonSet", {"updateStrategy": {"type": "RollingUpdate"}}, False),
        ("DaemonSet", {"updateStrategy": {"type": "OnDelete"}}, True),
    ],
)
def test_a_container_knows_whether_a_restart_replaces_it(kind: str, spec: dict[str, Any], is_held: bool) -> None:
    maker = Workload(kind, "v", "x")
    objects = Objects({kind: [thing("x", spec=spec)], **owned_pods(maker)})

    assert {item.is_held for item in objects.containers([maker])} == {is_held}


def test_a_status_from_before_the_pods_were_deleted_does_not_count() -> None:
    status = {"updatedReplicas": 1, "availableReplicas": 1}
    objects = Objects({"Deployment": [thing("web", spec={"replicas": 1}, status=status)]})

    assert objects.missing_for(WEB) == "Deployment v/web: its pods are not there"


@pytest.mark.parametrize(
    ("kind", "fields", "said"),
    [
        (
            "Deployment",
            {"metadata": {"generation": 2}, "status": {"observedGeneration": 1}},
            "its controller has not seen it yet",
        ),
        (
            "Deployment",
            {"spec": {"replicas": 3}, "status": {"updatedReplicas": 3, "availableReplicas": 2}},
            "2 of 3 pods are ready",
        ),
        (
            "Deployment",
            {"spec": {"replicas": 1}, "status": {"updatedReplicas": 1, "availableReplicas": 1, "replicas": 2}},
            "1 old pods are left",
        ),
        ("Deployment", {"spec": {"replicas": 0}, "status": {}}, None),
        (
            "StatefulSet",
            {
                "spec": {"replicas": 2},
                "status": {"readyReplicas": 2, "updatedReplicas": 1, "currentRevision": "a", "updateRevision": "b"},
            },
            "1 of 2 pods are ready",
        ),
        ("StatefulSet", {"spec": {"replicas": 2}, "status": {"readyReplicas": 2}}, None),
        (
            "DaemonSet",
            {"status": {"desiredNumberScheduled": 2, "updatedNumberScheduled": 2, "numberAvailable": 1}},
            "1 of 2 pods are ready",
        ),
        (
            "StatefulSet",
            {
                "spec": {"replicas": 3, "updateStrategy": {"type": "OnDelete"}},
                "status": {"readyReplicas": 3, "updatedReplicas": 1, "currentRevision": "a", "updateRevision": "b"},
            },
            "2 pods of an earlier revision stay until they are deleted (updateStrategy OnDelete)",
        ),
        (
            "StatefulSet",
            {
                "spec": {"replicas": 3, "updateStrategy": {"rollingUpdate": {"partition": 2}}},
                "status": {"readyReplicas": 3, "updatedReplicas": 1, "currentRevision": "a", "updateRevision": "b"},
            },
            "2 pods of an earlier revision stay while its partition is 2",
        ),
        (
            "StatefulSet",
            {"spec": {"replicas": 2, "updateStrategy": {"type": "OnDelete"}}, "status": {"readyReplicas": 2}},
            None,
        ),
        (
            "DaemonSet",
            {
                "spec": {"updateStrategy": {"type": "OnDelete"}},
                "status": {"desiredNumberScheduled": 2, "updatedNumberScheduled": 0, "numberAvailable": 2},
            },
            "2 pods of an earlier revision stay until they are deleted (updateStrategy OnDelete)",
        ),
        (
            "Deployment",
            {
                "spec": {"replicas": 2, "paused": True},
                "status": {"replicas": 2, "updatedReplicas": 0, "availableReplicas": 2},
            },
            "2 pods of an earlier revision stay while it is paused",
        ),
        ("Job", {"status": {"conditions": [{"type": "Failed", "status": "True"}]}}, "it failed"),
        ("Job", {"status": {"conditions": [{"type": "Complete", "status": "True"}]}}, None),
        ("Job", {"status": {}}, "it is not complete"),
        ("Pod", {"status": {"phase": "Pending"}}, "it is Pending"),
        ("Pod", {"status": {"phase": "Succeeded"}}, None),
        ("CronJob", {"spec": {}}, None),
    ],
)
def test_a_workload_says_what_it_waits_for(kind: str, fields: dict[str, Any], said: str | None) -> None:
    key = Workload(kind, "v", "x")

    found = Objects({kind: [thing("x", **fields)], **owned_pods(key)}).missing_for(key)

    assert found == (None if said is None else f"{kind} v/x: {said}")


def test_a_workload_that_is_not_there_is_waited_for() -> None:
    assert Objects({}).missing_for(WEB) == "Deployment v/web is not there"


def secret(data: bytes, *, number: int = 1) -> dict[str, Any]:
    labels = {"owner": "helm", "name": "web", "version": str(number), "status": "deployed"}
    return {"metadata": {"labels": labels}, "data": {"release": base64.b64encode(base64.b64encode(data)).decode()}}


def test_the_newest_revision_is_the_one_with_the_highest_number() -> None:
    found = [
        secret(gzip.compress(json.dumps({"chart": {"metadata": {"version": f"1.{number}.0"}}}).encode()), number=number)
        for number in (9, 10, 2)
    ]
    revision = revisions.newest(found, release="web", namespace="v")

    assert revision is not None
    assert (revision.number, revision.chart.version) == (10, "1.10.0")


@pytest.mark.parametrize("data", [b"", b"no gzip", gzip.compress(b"[]"), gzip.compress(b"{")])
def test_a_secret_that_holds_something_else_is_refused(data: bytes) -> None:
    with pytest.raises(DeployError, match="release web, revision 1: its Secret does not hold a record of Helm's"):
        revisions.newest([secret(data)], release="web", namespace="v")


@pytest.mark.parametrize(
    "chart",
    [
        5,
        {"metadata": 5, "templates": 5, "files": True, "values": []},
        {"metadata": {"dependencies": 5}, "templates": [5], "files": {"name": "x"}},
    ],
)
def test_a_record_of_another_shape_is_the_chart_that_can_be_read_of_it(chart: object) -> None:
    found = revisions.newest(
        [secret(gzip.compress(json.dumps({"chart": chart}).encode()))], release="web", namespace="v"
    )

    assert found is not None
    assert (found.chart.version, found.chart.parts, found.chart.files) == ("", (), {})


@pytest.mark.parametrize(
    "made",
    [
        {"metadata": {"ownerReferences": 5}},
        {"spec": {"containers": 5, "volumes": 5}, "status": {"containerStatuses": 5, "phase": []}},
        {"spec": {"containers": [5]}, "status": {"containerStatuses": [{"name": {}, "volumeMounts": 5}]}},
    ],
)
def test_an_object_of_another_shape_is_no_error(made: dict[str, Any]) -> None:
    pod = thing("p", ("ReplicaSet", "web-1"), **made)
    objects = Objects(
        {"Deployment": [thing("web")], "ReplicaSet": [thing("web-1", ("Deployment", "web"))], "Pod": [pod]}
    )

    assert all(item.image == "" for item in objects.containers([WEB]))


def test_a_record_that_unpacks_to_too_much_is_refused() -> None:
    with pytest.raises(DeployError, match="unpacks to more than 67108864 bytes"):
        revisions.newest([secret(gzip.compress(bytes(65 << 20)))], release="web", namespace="v")


def test_secrets_of_others_are_not_looked_at() -> None:
    other = secret(b"")
    other["metadata"]["labels"]["name"] = "other"

    assert revisions.newest([other, {"metadata": {}}], release="web", namespace="v") is None
