"""A finished bundle in an OCI registry, as one ORAS artifact, for the way up to where it is carried from.

oras composes the artifact and drives the upload; the requests themselves are ours (login, certificates, retries). What
comes back is verified here, while it streams into the file.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Final

import oras.client
import oras.oci
import requests
from requests.structures import CaseInsensitiveDict

from airlift import digest as digests
from airlift import fs, limits, oci
from airlift.digest import Digest, Verifier
from airlift.errors import DeliveryError, FetchError, ManifestError, UsageError
from airlift.progress import Progress
from airlift.reference import Reference, parse
from airlift.transport.http import Auth
from airlift.transport.refusals import delivering
from airlift.transport.registry import RegistryClient

BUNDLE_TYPE: Final = "application/vnd.airlift.bundle.v1"
CONFIG_TYPE: Final = "application/vnd.airlift.bundle.config.v1+json"

_CHUNK: Final = 16 * limits.MIB
_SCHEME: Final = "oci://"
_NOT_FOUND: Final = 404


def address(text: str) -> Reference:
    """Return the reference of ``oci://HOST/REPOSITORY:TAG``.

    Raises:
        UsageError: it is none, or names no host.
    """
    rest = text.removeprefix(_SCHEME)
    host = rest.partition("/")[0]
    if rest == text or "/" not in rest or not re.search(r"[.:]|^localhost$", host):
        raise UsageError(f"expected oci://HOST/REPOSITORY:TAG, got {text[:200]!r}")
    try:
        return parse(rest)
    except ManifestError as error:
        raise UsageError(error.message, hint="write it as oci://HOST/REPOSITORY:TAG") from None


class _Oras(oras.client.OrasClient):  # type: ignore[misc]
    """oras with our requests."""

    def __init__(self, client: RegistryClient, auth: Auth, subject: str, progress: Progress) -> None:
        super().__init__(hostname=client.registry, insecure=client.base.startswith("http:"))
        self._client = client
        self._auth_value = auth
        self._subject = subject
        self._progress = progress
        self.manifest_digest: Digest | None = None

    def do_request(  # noqa: PLR0917 - the library's signature
        self,
        url: str,
        method: str = "GET",
        data: dict[str, Any] | bytes | None = None,
        headers: dict[str, str] | None = None,
        json: dict[str, Any] | None = None,
        stream: bool = False,  # noqa: ARG002, FBT001, FBT002 - the library's signature
    ) -> requests.Response:
        """Send one request of the library's."""
        prepared = requests.Request(method, url, data=data, json=json, headers=headers or {}).prepare()
        body = prepared.body.encode() if isinstance(prepared.body, str) else prepared.body
        kept = {k: v for k, v in prepared.headers.items() if k.lower() not in ("content-length", "authorization")}
        answer = self._client.http.exchange(
            method,
            # Some registries lose scheme and port in the places that they name.
            self._client.own(url),
            limit=limits.SMALL_BLOB,
            body=body or b"",
            headers=kept,
            auth=self._auth_value,
            plain_http=self._client.plain_http,
            subject=self._subject,
            accept=(_NOT_FOUND,) if method == "HEAD" else (),
            # A piece that was sent twice would spoil the upload.
            retries=0 if method == "PATCH" else None,
        )
        if method == "PATCH":
            self._progress.advance(len(body or b""))
        if "/manifests/" in url and method == "PUT":
            self.manifest_digest = digests.of(body or b"")
        response = requests.Response()
        response.status_code = answer.status
        response.headers = CaseInsensitiveDict(answer.headers)
        response.raw = io.BytesIO(answer.body)
        response.url = answer.url
        response.request = prepared
        return response


def push(bundle: Path, target: Reference, client: RegistryClient, progress: Progress) -> Digest:
    """Put a bundle into a registry and return the digest of its manifest. The name appears last.

    Args:
        bundle: the file.
        target: where to; with a tag, without a digest.
        client: of the target's registry.
        progress: told how far it is.

    Raises:
        DeliveryError: the registry does not take it.
        StoreError: the file cannot be read.
        UsageError: the target has a digest.
    """
    if target.digest is not None or target.tag is None:
        raise UsageError(f"{target}: a bundle is pushed to a tag; its digest follows from its content")
    with fs.guarded("reading"), bundle.open("rb"):
        size = bundle.stat().st_size
    progress.start("hashing", 0)
    with fs.guarded("reading"):
        layer = oras.oci.NewLayer(str(bundle), BUNDLE_TYPE)
    layer["annotations"] = {oci.TITLE: bundle.name}
    with delivering(client.registry):
        auth = client.scope(f"repository:{target.repository}:pull,push")
        library = _Oras(client, auth, str(target), progress)
        _upload(library, bundle, layer, target, begin=lambda: progress.start("pushing", size))
        config = oci.describe(oci.EMPTY_CONFIG, CONFIG_TYPE)
        client.push_blob(target.repository, config.digest, config.size, lambda: (oci.EMPTY_CONFIG,))
        manifest = oras.oci.NewManifest()
        manifest["mediaType"] = oci.MANIFEST
        manifest["artifactType"] = BUNDLE_TYPE
        manifest["config"] = config.to_json()
        manifest["layers"] = [layer]
        library.upload_manifest(manifest, library.get_container(_name(target)))
    progress.finish()
    if library.manifest_digest is None:
        raise DeliveryError(f"{target}: no manifest was sent", mirror=client.registry)
    return library.manifest_digest


def _upload(
    library: _Oras, bundle: Path, layer: dict[str, Any], target: Reference, *, begin: Callable[[], None]
) -> None:
    """Upload the file; a connection that broke spoils an upload, so it begins again, and is told to."""
    client = library._client  # noqa: SLF001 - our own subclass
    failures = 0
    while True:
        begin()
        try:
            with fs.guarded("reading"):
                library.upload_blob(
                    str(bundle), library.get_container(_name(target)), layer, do_chunked=True, chunk_size=_CHUNK
                )
        except FetchError as error:
            failures += 1
            if not error.temporary or failures > client.http.settings.retries:
                raise
            client.http.pause(failures, client.base)
        except ValueError as error:
            raise FetchError(f"{target}: {error}") from None
        else:
            return


def _name(target: Reference) -> str:
    return f"{target.name}:{target.tag}"


class _File:
    """Hashes what it writes."""

    def __init__(self, path: Path, stream: BinaryIO, verifier: Verifier, progress: Progress) -> None:
        self._path = path
        self._stream = stream
        self._verifier = verifier
        self._progress = progress

    @property
    def written(self) -> int:
        return self._verifier.seen

    def write(self, data: bytes) -> None:
        self._verifier.update(data)
        with fs.guarded("writing"), fs.named(self._path):
            self._stream.write(data)
        self._progress.advance(len(data))


def pull(source: Reference, output: Path, client: RegistryClient, progress: Progress) -> Digest:
    """Take a bundle out of a registry; the file appears whole and with the right digest, or not at all.

    Args:
        source: what to take.
        output: the file.
        client: of the source's registry.
        progress: told how far it is.

    Returns:
        The digest of its manifest.

    Raises:
        FetchError: the registry does not have it, or it is no bundle.
        IntegrityError: other bytes come than its manifest says.
        StoreError: the disk refuses.
    """
    manifest = client.manifest(source.repository, source.target)
    found = [layer for layer in manifest.layers if layer.media_type == BUNDLE_TYPE]
    if (
        not found
        and len(manifest.layers) == 1
        and manifest.layers[0].annotations.get(oci.TITLE, "").endswith(".airlift")
    ):
        # Pushed by another ORAS client, which did not know the type.
        found = list(manifest.layers)
    if len(found) != 1:
        what = manifest.artifact_type or (manifest.config.media_type if manifest.config else manifest.media_type)
        raise FetchError(f"{source}: not a bundle but {what}", hint="only what `airlift push` put there is pulled")
    layer = found[0]
    progress.start("pulling", layer.size)
    verifier = Verifier(layer.digest, layer.size, subject=f"{source}, {layer.digest}")
    with fs.atomic(output) as stream:
        client.blob(source.repository, layer.digest, layer.size, _File(output, stream, verifier, progress))
        verifier.finish()
    progress.finish()
    return manifest.descriptor.digest
