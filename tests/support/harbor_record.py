"""Exchanges with a real Harbor 2.15.2 as they were recorded, and what it takes to have them again with a stand-in.

``harbor_record.txt`` holds excerpts of the record in its own words: ``>`` is a request, ``<`` an answer; a digest is given by
its first eight digits. ``+`` lines say what was there before, which the record does not. ``body=@name`` stands for a body
that `Contents` makes; ``[wrong:x]`` is x with a wrong password.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from airlift import oci
from airlift.digest import of as digest_of

RECORD = Path(__file__).with_name("harbor_record.txt")
DOCKER = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
FOREIGN = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
DOCKER_FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
CHART = "application/vnd.cncf.helm.config.v1+json"
BARE = ("image", "image2", "docker", "index", "list", "nested", "twice", "blobindex")
"""Names whose blobs are there only when a line says so."""


@dataclass(frozen=True)
class Exchange:
    """One request and its answer, as the record has them."""

    title: str
    request: str
    status: int
    headers: dict[str, str]
    body: str


@dataclass
class Section:
    """What belongs together; a step is an `Exchange`, or a line that prepares the next."""

    title: str
    steps: list[Exchange | str] = field(default_factory=list)


def sections() -> list[Section]:
    """Read the record."""
    found: list[Section] = []
    title = request = ""
    lines = RECORD.read_text(encoding="utf-8").splitlines()
    for number, text in enumerate(lines):
        if text.startswith("## "):
            found.append(Section(text[3:]))
        elif text.startswith("+ "):
            found[-1].steps.append(text[2:])
        elif text.startswith("-- "):
            title = text[3:]
        elif text.startswith("> "):
            request = text[2:]
        elif re.match(r"< \d", text):
            headers, body = {}, ""
            for line in lines[number + 1 :]:
                if not line.startswith("<   "):
                    break
                name, colon, value = line[4:].partition(":")
                if colon and re.fullmatch("[A-Za-z-]+", name) and not body:
                    headers[name] = value.strip()
                else:
                    body = line[4:]
            found[-1].steps.append(Exchange(title, request, int(text[2:5]), headers, body))
    return found


def compact(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


class Contents:
    """The manifests that stand for those of the record, with their blobs."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}

    def blob(self, data: bytes, media_type: str) -> dict[str, Any]:
        self.blobs[digest_of(data)] = data
        return {"mediaType": media_type, "digest": digest_of(data), "size": len(data)}

    def bound(self, manifest: bytes) -> list[bytes]:
        """Return the blobs that a manifest names, as far as they are made here."""
        body = json.loads(manifest)
        named = [*body.get("layers", ()), *([body["config"]] if "config" in body else ())]
        return [self.blobs[item["digest"]] for item in named if item["digest"] in self.blobs]

    def manifest(self, name: str, bindings: dict[str, str]) -> tuple[bytes, str]:
        """Return bytes and type of a manifest."""
        kind, _, argument = name.partition(":")
        if kind in (
            "index",
            "list",
            "twice",
            "blobindex",
            "nested",
            "wrongsz",
            "wrongmt",
            "noix",
            "fallback",
            "ixsubject",
        ):
            return self._index(kind, argument, bindings)
        return self._image(kind, argument)

    def digest(self, name: str) -> str:
        return digest_of(self.manifest(name, {})[0])

    def _child(self, name: str) -> dict[str, Any]:
        data, media_type = self.manifest(name, {})
        return {"mediaType": media_type, "digest": digest_of(data), "size": len(data)}

    def _index(self, kind: str, argument: str, bindings: dict[str, str]) -> tuple[bytes, str]:
        media_type = DOCKER_LIST if kind == "list" else oci.INDEX
        body: dict[str, Any] = {"schemaVersion": 2, "mediaType": media_type}
        names = [name for name in argument.split(",") if name]
        if kind == "blobindex":
            children = [{**self._layer(names[0]), "mediaType": "application/octet-stream"}]
        elif kind == "nested":
            children = [{"mediaType": oci.INDEX, "digest": bindings[argument], "size": 500}]
        elif kind in ("fallback", "ixsubject"):
            children = [self._child("sbom")] if kind == "fallback" else []
        else:
            children = [self._child(name) for name in names]
        if kind == "twice":
            children *= 2
        if kind == "wrongsz":
            children[0]["size"] += 1
        if kind == "wrongmt":
            children[0]["mediaType"] = DOCKER
        if kind == "noix":
            del body["mediaType"]
        if kind == "ixsubject":
            body |= {"artifactType": "application/vnd.example.ix", "subject": self._child("subject")}
        return compact({**body, "manifests": children}), media_type

    def _layer(self, name: str) -> dict[str, Any]:
        # Of 96 bytes, as in the record.
        return self.blob(name.ljust(96, ".").encode(), oci.LAYER)

    def _image(self, kind: str, argument: str) -> tuple[bytes, str]:
        config = compact({"architecture": "amd64", "os": "linux", "author": kind})
        body: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": oci.MANIFEST,
            "config": self.blob(config, oci.CONFIG),
            "layers": [self._layer(kind)],
        }
        changes = {
            "docker": {
                "mediaType": DOCKER,
                "config": {**body["config"], "mediaType": DOCKER_CONFIG},
                "layers": [{**body["layers"][0], "mediaType": DOCKER_LAYER}],
            },
            "foreign": {"layers": [_absent(FOREIGN)]},
            "foreignd": {
                "mediaType": DOCKER,
                "config": {**body["config"], "mediaType": DOCKER_CONFIG},
                "layers": [_absent(DOCKER_FOREIGN)],
            },
            "wrongsize": {"layers": [{**body["layers"][0], "size": 1}]},
            "big": {"annotations": {"a": "x" * 4_200_000}},
            "ann": {"annotations": {"a": "x" * 100_000}},
            "nolayers": {"layers": []},
            "longat": {"artifactType": "application/" + "y" * 288},
            "longmt": {"config": self.blob(config, "application/" + "y" * 288)},
            "emptyat": {"artifactType": "application/x", "config": self.blob(oci.EMPTY_CONFIG, oci.EMPTY)},
            "chart": {"config": self.blob(b'{"name":"mychart","version":"1.2.3+b1"}', CHART)},
            "badchart": {"config": self.blob(b"no JSON", CHART)},
            "cfg": {"config": self.blob(argument.encode(), oci.CONFIG)},
            "oct": {"config": self.blob(argument.encode(), "application/octet-stream")},
            "plain": self._of_type("application/spdx+json"),
            "sbom": {**self._of_type("application/vnd.example.sbom"), "annotations": {"k": "v"}},
            "bundle": self._of_type("application/vnd.dev.sigstore.bundle.v0.3+json"),
            "cfgsubject": {"config": self.blob(oci.EMPTY_CONFIG, "application/vnd.example.cfg")},
            "notation": self._of_type("application/vnd.cncf.notary.signature"),
            "orphan": {**self._of_type("application/vnd.example.sbom"), "subject": _absent(oci.MANIFEST, urls=False)},
            "tagged": self._of_type("application/vnd.example.tagged"),
        }
        whole = {**body, **changes.get(kind, {})}
        if kind in ("sbom", "bundle", "cfgsubject", "notation", "tagged"):
            whole["subject"] = self._child("subject")
        if kind == "nomt":
            del whole["mediaType"]
        return compact(whole), str(whole.get("mediaType", oci.MANIFEST))

    def _of_type(self, kind: str) -> dict[str, Any]:
        return {"artifactType": kind, "config": self.blob(oci.EMPTY_CONFIG, oci.EMPTY)}


def _absent(media_type: str, *, urls: bool = True) -> dict[str, Any]:
    data = f"absent {media_type}".encode()
    more = {"urls": ["https://example.com/layer"]} if urls else {}
    return {"mediaType": media_type, "digest": "sha256:" + hashlib.sha256(data).hexdigest(), "size": 10, **more}
