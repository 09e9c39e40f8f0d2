"""What Helm wrote about a release: its newest revision, from the Secrets ``sh.helm.release.v1.*``.

A Job of K3s says nothing about success: a failed upgrade ends as a Job that is complete. Helm's own record does.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from airlift import limits
from airlift.errors import DeployError, IntegrityError
from airlift.kinds import chart_yaml
from airlift.site.deploy import content
from airlift.site.deploy.content import Content
from airlift.site.deploy.objects import at

WORKLOADS: Final = frozenset({"Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob", "Pod", "ReplicaSet"})
_UNPACKED: Final = 64 * limits.MIB


@dataclass(frozen=True, slots=True, order=True)
class Workload:
    """An object that makes pods, or is one."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Revision:
    """What Helm last did for a release.

    Attributes:
        number: of the revision.
        status: ``deployed``, ``failed``, ``pending-upgrade`` ...
        chart: what was installed.
        values: what it was installed with, the chart's own defaults apart.
        description: Helm's own words.
        workloads: what its manifest and hooks name.
        hooks: those of `workloads` that are hooks: nobody waits for them, they may be gone.
        fleeting: those of `workloads` that Kubernetes removes some time after their end: Jobs with a time to live.
    """

    number: int
    status: str
    chart: Content
    values: Mapping[str, Any]
    description: str
    workloads: tuple[Workload, ...]
    hooks: frozenset[Workload]
    fleeting: frozenset[Workload]


def newest(secrets: Iterable[Mapping[str, Any]], *, release: str, namespace: str) -> Revision | None:
    """Return the newest revision of a release, or None.

    Raises:
        DeployError: its Secret is not Helm's, or out of bounds.
    """
    mine = [item for item in secrets if _labels(item).get("owner") == "helm" and _labels(item).get("name") == release]
    numbered = [(int(text), item) for item in mine if (text := str(_labels(item).get("version", ""))).isdecimal()]
    if not numbered:
        return None
    number, secret = max(numbered, key=lambda pair: pair[0])
    subject = f"release {release}, revision {number}"
    record = _decode(secret, subject)
    manifest, hooks = record.get("manifest"), record.get("hooks")
    found = dict(_workloads(manifest, namespace, subject))
    main = tuple(found)
    hooked = [item.get("manifest") for item in hooks if isinstance(item, dict)] if isinstance(hooks, list) else []
    extra = frozenset(item for text in hooked for item, _ in _workloads(text, namespace, subject)) - frozenset(main)
    return Revision(
        number,
        # The label and not the record: Helm changes both, and the label is what an operator sees.
        str(_labels(secret).get("status", "unknown")),
        content.of_record(record, subject=subject),
        values if isinstance(values := record.get("config"), dict) else {},
        " ".join(str(at(record, "info", "description") or "").split())[:500],
        (*main, *sorted(extra)),
        extra,
        frozenset(item for item, is_fleeting in found.items() if is_fleeting),
    )


def _labels(item: Mapping[str, Any]) -> Mapping[str, Any]:
    labels = at(item, "metadata", "labels")
    return labels if isinstance(labels, dict) else {}


def _decode(secret: Mapping[str, Any], subject: str) -> dict[str, Any]:
    try:
        packed = base64.b64decode(base64.b64decode(str(at(secret, "data", "release")), validate=True), validate=True)
        unzip = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
        text = unzip.decompress(packed, _UNPACKED)
        if unzip.unconsumed_tail:
            raise DeployError(f"{subject}: Helm's record unpacks to more than {_UNPACKED} bytes")
        value = json.loads(text)
    except (ValueError, zlib.error, RecursionError):
        raise DeployError(f"{subject}: its Secret does not hold a record of Helm's") from None
    if not isinstance(value, dict):
        raise DeployError(f"{subject}: its Secret does not hold a record of Helm's")
    return value


def _workloads(manifest: object, namespace: str, subject: str) -> Iterator[tuple[Workload, bool]]:
    """Yield what makes pods, and whether it goes by itself."""
    if not isinstance(manifest, str):
        return
    try:
        documents = list(chart_yaml.load_all(manifest.encode(), subject=subject, limit=_UNPACKED))
    except IntegrityError as error:
        raise DeployError(f"{subject}: {error.message}") from None
    for document in documents:
        kind, name = at(document, "kind"), at(document, "metadata", "name")
        if kind in WORKLOADS and isinstance(name, str):
            found = Workload(str(kind), str(at(document, "metadata", "namespace") or namespace), name)
            yield found, kind == "Job" and at(document, "spec", "ttlSecondsAfterFinished") is not None
