"""Manifests in the stand-in: what core asks before the back end stores one, and what it makes of it afterwards."""

from __future__ import annotations

import contextlib
import json
import re
from datetime import datetime
from typing import Any

from tests.support.harbor_state import Artifact, Repository
from tests.support.harbor_v2 import V2Handler, digest_of, parsed
from tests.support.harbor_web import FROM_REGISTRY, UTF8

_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_CHART = "application/vnd.cncf.helm.config.v1+json"
_IMAGES = ("application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json")
_MOST = 255
TYPES = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_SIGNATURES = ("application/vnd.dev.cosign.artifact.sig.v1+json", "application/vnd.dev.sigstore.bundle.v0.3+json")


class ManifestHandler(V2Handler):
    """Answers for ``/manifests/``."""

    def _manifests(self, reference: str) -> None:
        if not reference:
            self.text(404, "404 page not found")
        elif self.command == "PUT":
            self._put(reference)
        elif self.command == "DELETE":
            self._delete(reference)
        elif found := self._artifact(reference):
            self._give(*found, reference)

    def _give(self, repository: Repository, digest: str, reference: str) -> None:
        if (self.headers.get("If-None-Match") or "").strip('"') == digest:
            self.give(304, b"", {})
        elif self.project.metadata.get("enable_content_trust_cosign") == "true" and not (
            reference.endswith(".sig") or self._is_signed(repository, digest)
        ):
            self.refuse(412, "PROJECTPOLICYVIOLATION", "The image is not signed by cosign.")
        else:
            if not self.headers.get("Accept") and repository.artifacts[digest].media_type in TYPES[1::2]:
                # An index comes to whoever names no type, an image does not.
                self.headers["Accept"] = repository.artifacts[digest].media_type
            self.hand_over(f"/v2/{self.repository}/manifests/{digest}")

    def _is_signed(self, repository: Repository, digest: str) -> bool:
        by_tag = f"{digest.replace(':', '-')}.sig" in repository.tags
        return by_tag or any(repository.artifacts[d].kind in _SIGNATURES for d in repository.referrers(digest))

    def _put(self, reference: str) -> None:
        project, data = self.project, self.body()
        digest = digest_of(data)
        found = project.repositories.get(self.inner)
        is_tag = ":" not in reference or re.fullmatch("[a-z0-9]+:[0-9a-f]{32,}", reference) is None
        if is_tag and not _TAG.fullmatch(reference):
            self.refuse(400, "BAD_REQUEST", f"bad request: invalid tag name: {reference}")
        elif is_tag and found and reference in found.tags and project.is_immutable(self.inner, reference):
            said = f"Failed to process request due to '{self.inner}:{reference}' configured as immutable."
            self.refuse(412, "PRECONDITION", said)
        elif (said := self._unreadable(data)) is not None:
            self.refuse(400, "MANIFEST_INVALID", f"unmarshal manifest failed: {said}", FROM_REGISTRY)
        elif not is_tag and reference != digest:
            said = "provided digest did not match uploaded content"
            self.refuse(400, "DIGEST_INVALID", said, FROM_REGISTRY)
        elif not self.is_over({digest: len(data)}):
            self._store(reference if is_tag else "", digest, data)

    def _unreadable(self, data: bytes) -> str | None:
        """Say why core cannot read a manifest, or None."""
        kind = str(self.headers.get("Content-Type", "")).partition(";")[0]
        if kind not in TYPES:
            return "missing signature key"
        try:
            said = json.loads(data).get("mediaType", kind)
        except ValueError:
            return "unexpected end of JSON input"
        return None if said == kind else f"mediaType in manifest should be '{kind}' not '{said}'"

    def _store(self, tag: str, digest: str, data: bytes) -> None:
        if "registry" in self.front.down:
            self.give(502, b"", {})
            return
        status, headers, answer = self.ask_behind()
        body = parsed(data)
        children = [str(child["digest"]) for child in _items(body, "manifests")]
        with self.front.lock:
            repository = self.project.repositories.get(self.inner) or Repository(self.front.number())
            absent = next((child for child in children if child not in repository.artifacts), None)
            if len(set(children)) != len(children):
                absent = digest
            if status == 201 and absent is not None:
                status, answer = 404, _document("NOT_FOUND", f"artifact {self.repository}@{absent} not found")
            elif status == 201 and self._cannot_be_read(body):
                status, answer = 500, _document("UNKNOWN", "internal server error")
            if status == 201:
                self.project.repositories[self.inner] = repository
                subject = self._remember(repository, tag, digest, data, body)
                headers |= {"OCI-Subject": subject} if subject else {}
            else:
                headers = {**UTF8, **FROM_REGISTRY, "Content-Length": str(len(answer))}
        self.give(status, answer, headers)

    def _cannot_be_read(self, body: dict[str, Any]) -> bool:
        """Say whether Harbor's processing of the artifact ends in an error."""
        config = body.get("config")
        kind = str(config.get("mediaType", "")) if isinstance(config, dict) else ""
        if max(len(kind), len(str(body.get("artifactType", "")))) > _MOST:
            return True
        if kind not in (*_IMAGES, _CHART) or not isinstance(config, dict):
            return False
        data = self.stored("blobs", str(config["digest"]))
        if not data:
            return False
        value = parsed(data)
        if not value and data.strip() != b"{}":
            return True
        created = value.get("created")
        if isinstance(created, str):
            with contextlib.suppress(ValueError):
                datetime.fromisoformat(re.sub(r"\.\d+", "", created))
                return False
            return True
        return False

    def _remember(self, repository: Repository, tag: str, digest: str, data: bytes, body: dict[str, Any]) -> str:
        """Take an artifact into core's books; return its subject."""
        named = [*_items(body, "layers"), *([body["config"]] if isinstance(body.get("config"), dict) else [])]
        subject = str((body.get("subject") or {}).get("digest", ""))
        config = body.get("config") or {}
        if digest not in repository.artifacts:
            repository.artifacts[digest] = Artifact(
                number=self.front.number(),
                media_type=str(self.headers.get("Content-Type", "")).partition(";")[0],
                size=len(data),
                blobs={str(item["digest"]): int(item["size"]) for item in named},
                children=tuple(str(child["digest"]) for child in _items(body, "manifests")),
                subject=subject,
                kind=str(body.get("artifactType") or config.get("mediaType", "")),
                annotations=body.get("annotations"),
            )
        # A manifest that comes again is an accessory again.
        repository.artifacts[digest].subject = subject
        if tag:
            repository.tags[tag] = digest
        self.project.blobs[digest] = len(data)
        return subject

    def _delete(self, reference: str) -> None:
        if not re.fullmatch("sha256:[0-9a-f]{64}", reference):
            said = f"unsupported digest {reference}: invalid checksum digest format"
            self.refuse(400, "UNSUPPORTED", said)
            return
        found = self._artifact(reference)
        if found is None:
            return
        repository, digest = found
        tags = [tag for tag, to in repository.tags.items() if to == digest]
        stuck = next((tag for tag in tags if self.project.is_immutable(self.inner, tag)), None)
        if stuck is not None:
            self.refuse(412, "PRECONDITION", f"the tag {stuck} configured as immutable, cannot be deleted")
        elif repository.is_listed(digest):
            said = "the deleting artifact is referenced by others"
            self.refuse(412, "VIOLATE_FOREIGN_KEY_CONSTRAINT", said)
        else:
            # The back end keeps everything until garbage is collected.
            self.project.forget_deeply(repository, digest)
            self.give(202, b"", {})


def _items(body: dict[str, Any], key: str) -> list[dict[str, Any]]:
    value = body.get(key)
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _document(code: str, message: str) -> bytes:
    return json.dumps({"errors": [{"code": code, "message": message}]}, separators=(",", ":")).encode() + b"\n"
