"""Small real images, assembled without docker: the static busybox as one layer, per platform a config and manifest.

`Box` is an OCI layout under construction, and puts what it holds into registries byte for byte.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import subprocess
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import requests

from airlift import canonical, oci
from airlift.digest import Digest
from airlift.oci import Descriptor
from airlift.store import Store
from tests.components import missing, require
from tests.support.registry import Registry

_APPLETS = ("sh", "echo", "httpd", "cat", "sleep", "ls")


@cache
def busybox() -> bytes:
    """The static busybox of this machine."""
    path = Path("/bin/busybox")
    if not path.is_file():
        missing("busybox-static is not installed")
    return path.read_bytes()


@cache
def layer_tar(text: str = "hello") -> bytes:
    """A root file system of one binary, links to it, and a page; the same bytes every time."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name in ("bin", "www", "etc"):
            _add(archive, name, kind=tarfile.DIRTYPE, mode=0o755)
        _add(archive, "bin/busybox", busybox(), mode=0o755)
        for applet in _APPLETS:
            _add(archive, f"bin/{applet}", kind=tarfile.SYMTYPE, link="busybox")
        _add(archive, "www/index.html", f"{text}\n".encode())
    return stream.getvalue()


def _add(
    archive: tarfile.TarFile,
    name: str,
    data: bytes = b"",
    *,
    kind: bytes = tarfile.REGTYPE,
    mode: int = 0o644,
    link: str = "",
) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.mode, info.linkname = len(data), kind, mode, link
    archive.addfile(info, io.BytesIO(data))


@dataclass
class Box:
    """A layout with images.

    Attributes:
        path: its directory.
        names: what ``index.json`` lists.
    """

    path: Path
    names: dict[str, Descriptor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.store = Store(self.path).create()
        self.write()

    def put(self, data: bytes, media_type: str = "application/octet-stream") -> Descriptor:
        self.store.put_bytes(data)
        return oci.describe(data, media_type)

    def put_json(self, value: Any, media_type: str) -> Descriptor:
        return self.put(json.dumps(value, indent=3).encode(), media_type)

    def image(
        self,
        name: str = "",
        *,
        platform: str = "linux/amd64",
        text: str = "hello",
        docker: bool = False,
        layers: Sequence[bytes] = (),
        compress: bool = True,
        subject: Descriptor | None = None,
        command: Sequence[str] = ("/bin/httpd", "-f", "-v", "-p", "8080", "-h", "/www"),
    ) -> Descriptor:
        """Add an image of one platform; `layers` instead of busybox. Docker's media types when `docker`."""
        blobs = list(layers) or [layer_tar(text)]
        packed = [gzip.compress(blob, 1, mtime=0) if compress else blob for blob in blobs]
        os_name, architecture, *variant = platform.split("/")
        config: dict[str, Any] = {
            "architecture": architecture,
            "os": os_name,
            "config": {"Cmd": list(command), "Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(blob).hexdigest()}" for blob in blobs]},
        }
        if variant:
            config["variant"] = variant[0]
        if docker:
            types = (
                oci.DOCKER_MANIFEST,
                "application/vnd.docker.container.image.v1+json",
                "application/vnd.docker.image.rootfs.diff.tar.gzip",
            )
        else:
            types = (oci.MANIFEST, oci.CONFIG, oci.LAYER_GZIP if compress else oci.LAYER)
        value = {
            "schemaVersion": 2,
            "mediaType": types[0],
            "config": self.put_json(config, types[1]).to_json(),
            "layers": [self.put(blob, types[2]).to_json() for blob in packed],
        }
        if subject is not None:
            value["subject"] = oci.Descriptor(subject.media_type, subject.digest, subject.size).to_json()
        made = self.put_json(value, types[0])
        found = Descriptor(made.media_type, made.digest, made.size, platform=oci.parse_platform(platform))
        return self.name(name, found)

    def index(
        self,
        name: str,
        children: Sequence[Descriptor],
        *,
        docker: bool = False,
        annotations: dict[str, str] | None = None,
    ) -> Descriptor:
        """Add an index over images."""
        kind = oci.DOCKER_LIST if docker else oci.INDEX
        value: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": kind,
            "manifests": [child.to_json() for child in children],
        }
        if annotations:
            value["annotations"] = annotations
        return self.name(name, self.put_json(value, kind))

    def multi(self, name: str, platforms: Sequence[str] = ("linux/amd64", "linux/arm64/v8"), **more: Any) -> Descriptor:
        """Add an index with an image for each platform."""
        images = [
            self.image(platform=item, text=f"hello from {item}", docker=more.get("docker", False)) for item in platforms
        ]
        return self.index(name, images, **more)

    def attestation(self, image: Descriptor) -> Descriptor:
        """Add what BuildKit puts beside an image in its index."""
        statement = {
            "_type": "https://in-toto.io/Statement/v0.1",
            "subject": [{"digest": {"sha256": image.digest[7:]}}],
        }
        layer = self.put_json(statement, "application/vnd.in-toto+json")
        value = {
            "schemaVersion": 2,
            "mediaType": oci.MANIFEST,
            "config": self.put_json(
                {"architecture": "unknown", "os": "unknown", "rootfs": {"type": "layers", "diff_ids": [layer.digest]}},
                oci.CONFIG,
            ).to_json(),
            "layers": [layer.to_json()],
        }
        made = self.put_json(value, oci.MANIFEST)
        return Descriptor(
            made.media_type,
            made.digest,
            made.size,
            {"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": image.digest},
            oci.Platform("unknown", "unknown"),
        )

    def artifact(self, kind: str, data: bytes, *, subject: Descriptor | None = None, name: str = "") -> Descriptor:
        """Add an ORAS-style artifact, such as an SBOM that refers to an image."""
        value: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": oci.MANIFEST,
            "artifactType": kind,
            "config": self.put(b"{}", oci.EMPTY).to_json(),
            "layers": [self.put(data, kind).to_json()],
        }
        if subject is not None:
            value["subject"] = oci.Descriptor(subject.media_type, subject.digest, subject.size).to_json()
        made = self.put_json(value, oci.MANIFEST)
        return self.name(name, Descriptor(made.media_type, made.digest, made.size, artifact_type=kind))

    def signature(self, image: Descriptor, reference: str, suffix: str = ".sig") -> Descriptor:
        """Add what cosign pushes as ``sha256-<hex>.sig``; the signature itself is not a real one."""
        claim = canonical.encode(
            {
                "critical": {
                    "identity": {"docker-reference": reference},
                    "image": {"docker-manifest-digest": image.digest},
                    "type": "cosign container image signature",
                },
                "optional": None,
            }
        )
        layer = self.put(claim, "application/vnd.dev.cosign.simplesigning.v1+json")
        value = {
            "schemaVersion": 2,
            "mediaType": oci.MANIFEST,
            "config": self.put_json(
                {"architecture": "", "os": "", "rootfs": {"type": "layers", "diff_ids": [layer.digest]}}, oci.CONFIG
            ).to_json(),
            "layers": [
                {
                    **layer.to_json(),
                    "annotations": {"dev.cosignproject.cosign/signature": base64.b64encode(b"signature").decode()},
                }
            ],
        }
        return self.name(f"sha256-{image.digest[7:]}{suffix}", self.put_json(value, oci.MANIFEST))

    def name(self, name: str, item: Descriptor) -> Descriptor:
        """List something under a name (nothing for an empty one) and return it."""
        if name:
            self.names[name] = item
            self.write()
        return item

    def write(self) -> None:
        """Write ``index.json``."""
        entries = [{**item.to_json(), "annotations": {oci.REF_NAME: name}} for name, item in self.names.items()]
        value = {"schemaVersion": 2, "mediaType": oci.INDEX, "manifests": entries}
        (self.path / "index.json").write_text(json.dumps(value))

    def bytes(self, digest: Digest) -> bytes:
        return self.store.path(digest).read_bytes()

    def push(self, registry: Registry, repository: str, *names: str) -> None:
        """Put images (all without names) into a registry, under their names as tags; by plain requests, not by airlift."""
        with requests.Session() as session:
            session.trust_env = False
            session.verify = str(registry.ca) if registry.ca else True
            session.auth = (registry.username, registry.password) if registry.username else None
            for name in names or list(self.names):
                self._push(session, f"{registry.url}/v2/{repository}", self.names[name], name)

    def _push(self, session: requests.Session, base: str, item: Descriptor, reference: str) -> None:
        data = self.bytes(item.digest)
        manifest = oci.parse_manifest(data, subject=reference, media_type=item.media_type)
        for child in manifest.manifests:
            self._push(session, base, child, child.digest)
        for blob in (manifest.config, *manifest.layers):
            if blob is not None and session.head(f"{base}/blobs/{blob.digest}").status_code != 200:
                place = session.post(f"{base}/blobs/uploads/").headers["Location"]
                done = session.put(
                    place,
                    params={"digest": blob.digest},
                    data=self.bytes(blob.digest),
                    headers={"Content-Type": "application/octet-stream"},
                )
                assert done.status_code == 201, done.text
        done = session.put(f"{base}/manifests/{reference}", data=data, headers={"Content-Type": item.media_type})
        assert done.status_code == 201, done.text


def skopeo(*arguments: str) -> str:
    """Run skopeo and return what it says."""
    done = subprocess.run(
        [require("skopeo"), "--insecure-policy", *arguments], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
