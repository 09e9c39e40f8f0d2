"""Charts from repositories: ``index.yaml`` over HTTP, or tags of an OCI registry. A range means the same in both.

* A version whose text is exactly what was asked for wins; else the newest inside the range.
* What comes back was checked: against the index's digest or the manifest's, and it is the chart that was asked for.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urljoin, urlsplit, urlunsplit

from airlift import digest, limits, oci, reference
from airlift.canonical import JsonObject
from airlift.digest import Digest
from airlift.errors import FetchError, IntegrityError, ResolveError
from airlift.kinds import chart_index, charts, semver
from airlift.kinds.chart_metadata import Chart
from airlift.reference import Reference
from airlift.transport import credentials, urls
from airlift.transport.http import HttpClient, HttpStatusError, Sink
from airlift.transport.registry import RegistryClient

_SHOWN: Final = 5
_ABSENT: Final = (403, 404, 410)


class Buffer:
    """A sink that keeps a bounded blob in memory."""

    def __init__(self, limit: int, subject: str) -> None:
        self._data = bytearray()
        self._limit = limit
        self._subject = subject

    @property
    def written(self) -> int:
        """Bytes taken so far."""
        return len(self._data)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Take the next bytes.

        Raises:
            IntegrityError: more than the limit.
        """
        self._data += data
        if len(self._data) > self._limit:
            raise IntegrityError(self._subject, expected=f"at most {self._limit} bytes", actual="more")

    def getvalue(self) -> bytes:
        """Return what was taken."""
        return bytes(self._data)


@dataclass(frozen=True, slots=True)
class Pulled:
    """A chart that was fetched and checked.

    Attributes:
        chart: what it says about itself.
        data: the archive.
        provenance: its provenance file, or None.
        url: where the archive is, as the index says it (HTTP only).
    """

    chart: Chart
    data: bytes
    provenance: bytes | None = None
    url: str = ""


def choose(versions: Iterable[str], wanted: str, *, subject: str) -> str:
    """Return the version that answers a request.

    Args:
        versions: what is there; what is no version is passed over, and named when nothing answers.
        wanted: a version or a range.
        subject: whose versions they are.

    Raises:
        ResolveError: the range is none, or nothing is inside it.
    """
    there = list(dict.fromkeys(versions))
    if wanted in there:
        return wanted
    try:
        inside = semver.parse_range(wanted)
    except ValueError as error:
        raise ResolveError(f"{subject}: {error}", hint="write a version, or a range such as ~4.11 or ^1.2") from None
    known, odd = [], []
    for text in there:
        try:
            known.append(semver.parse_version(text))
        except ValueError:
            odd.append(text)
    found = [version for version in known if version in inside]
    if found:
        return semver.newest(found).text
    newest = ", ".join(version.text for version in sorted(known, reverse=True)[:_SHOWN])
    passed = f"; not versions: {', '.join(sorted(odd)[:_SHOWN])}" if odd else ""
    is_hidden = any(version.pre for version in known) and all(version.pre for version in known)
    raise ResolveError(
        f"{subject}: no version is inside {wanted!r}; there are {newest or 'none'}{passed}",
        hint="a pre-release is only taken by a range that names one, such as >=1.0.0-0" if is_hidden else None,
    )


def resolve_url(base: str, text: str) -> str:
    """Return the address of `text` below a repository's URL (with or without a slash at its end), whose query stays."""
    if urlsplit(text).scheme:
        return text
    root = urlsplit(base)
    folder = urlunsplit((root.scheme, root.netloc, root.path.rstrip("/") + "/", "", ""))
    place = urlsplit(urljoin(folder, text))
    return urlunsplit((place.scheme, place.netloc, place.path, root.query or place.query, ""))


class _DockerLogin:
    """A login of docker's configuration, looked up when the server asks for one."""

    def __init__(self, host: str, config: JsonObject, environment: Mapping[str, str]) -> None:
        self._host = host
        self._config = config
        self._environment = environment
        self._value: str | None = None

    def header(self) -> str | None:
        """See `Authorizer`."""
        return self._value

    def challenged(self, used: str | None, headers: Mapping[str, str]) -> bool:  # noqa: ARG002 - the protocol's
        """See `Authorizer`."""
        found = None if used else credentials.find(self._config, self._host, self._environment)
        if found is None or not found.username:
            return False
        self._value = urls.basic(found.username, found.password)
        return True

    def refused(self, error: HttpStatusError) -> FetchError:
        """See `Authorizer`."""
        return error


@dataclass(frozen=True, slots=True)
class HttpRepositories:
    """Chart repositories over HTTP; each index is read once."""

    http: HttpClient
    docker_config: JsonObject
    environment: Mapping[str, str]
    _indexes: dict[str, bytes] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def pull(self, repository: str, name: str, wanted: str, *, plain_http: bool) -> Pulled:
        """Fetch the chart `name` that answers `wanted`.

        Args:
            repository: its URL, as the manifest or a chart has it.
            name: the chart's name.
            wanted: a version or a range.
            plain_http: whether http is allowed beyond this machine.

        Raises:
            ResolveError: no such chart or version.
            FetchError: the repository does not answer.
            IntegrityError: the index is malformed, or the archive is not what it says.
        """
        parts = urlsplit(repository)
        if parts.username is not None or parts.password is not None:
            raise ResolveError(
                f"chart {name}: its repository's URL has a login in it, which would be in the lock",
                hint=f"take it out, and run docker login {parts.hostname}: airlift reads docker's configuration",
            )
        subject = f"chart {name} of {repository}"
        releases = chart_index.releases(self._index(repository, plain_http=plain_http), name, subject=repository)
        version = choose(releases, wanted, subject=subject)
        subject = f"chart {name} {version} of {repository}"
        release = releases[version]
        urls = release.get("urls")
        if not isinstance(urls, list) or not urls or not isinstance(urls[0], str):
            raise IntegrityError(subject, expected="an address in the index", actual=repr(urls)[:100])
        sink = Buffer(limits.CHART, subject)
        self.fetch(repository, urls[0], sink, plain_http=plain_http, subject=subject)
        data = sink.getvalue()
        expected = _index_digest(release.get("digest"), subject)
        if expected is not None:
            digest.check(data, expected, subject=f"{subject}: the index's digest")
        chart = charts.read_archive(data, subject=subject)
        if chart.name != name or semver.parse_version(chart.version) != semver.parse_version(version):
            raise IntegrityError(subject, expected=f"{name} {version}", actual=f"{chart.name} {chart.version}")
        provenance = self._provenance(repository, urls[0], chart, digest.of(data), plain_http=plain_http)
        return Pulled(chart, data, provenance, urls[0])

    def fetch(
        self, repository: str, url: str, sink: Sink, *, size: int | None = None, plain_http: bool, subject: str
    ) -> None:
        """Stream what an index's address points at into `sink`.

        Args:
            repository: the repository's URL.
            url: as its index says it.
            sink: takes the bytes.
            size: how many there are, when it is known.
            plain_http: whether http is allowed beyond this machine.
            subject: what it is, for messages.

        Raises:
            FetchError: the server does not answer.
        """
        address = resolve_url(repository, url)
        self.http.download(address, sink, size=size, auth=self._login(address), plain_http=plain_http, subject=subject)

    def _get(self, address: str, limit: int, *, plain_http: bool, subject: str) -> bytes:
        return self.http.get_bytes(
            address, limit=limit, auth=self._login(address), plain_http=plain_http, subject=subject
        ).body

    def _login(self, address: str) -> _DockerLogin:
        return _DockerLogin(urlsplit(address).netloc, self.docker_config, self.environment)

    def _provenance(
        self, repository: str, url: str, chart: Chart, archive: Digest, *, plain_http: bool
    ) -> bytes | None:
        place = urlsplit(resolve_url(repository, url))
        address = urlunsplit(place._replace(path=f"{place.path}.prov"))
        subject = f"chart {chart.name} {chart.version} of {repository}"
        try:
            data = self._get(address, limits.MIB, plain_http=plain_http, subject=subject)
        except HttpStatusError as error:
            if error.status in _ABSENT:
                return None
            raise
        is_signed = charts.check_provenance(data, place.path.rpartition("/")[2], archive, subject=subject)
        return data if is_signed else None

    def _index(self, repository: str, *, plain_http: bool) -> bytes:
        with self._lock:  # entries of one repository wait for one download
            if repository not in self._indexes:
                self._indexes[repository] = self._get(
                    resolve_url(repository, "index.yaml"),
                    limits.INDEX_DOCUMENT,
                    plain_http=plain_http,
                    subject=f"index of {repository}",
                )
            return self._indexes[repository]


def _index_digest(value: object, subject: str) -> Digest | None:
    """Return an index's digest: bare or with ``sha256:``, in either case; some repositories leave it out."""
    if value is None or value == "":
        return None
    return digest.from_hex(str(value).lower().removeprefix("sha256:"), subject=f"{subject}: the index's digest")


def pull_oci(client: RegistryClient, ref: Reference, wanted: str | None) -> tuple[Pulled, Reference]:
    """Fetch a chart from a registry; return it with its name, pinned by digest.

    Args:
        client: for the reference's registry.
        ref: the chart's name; with `wanted` only its repository counts.
        wanted: a version or a range, or None for what `ref` itself says.

    Raises:
        ResolveError: no version answers.
        FetchError: the registry does not answer.
        IntegrityError: it is no chart, or damaged.
    """
    if wanted is not None:
        tags = {charts.version_of(tag): tag for tag in client.tags(ref.repository)}
        ref = Reference(ref.registry, ref.repository, tags[choose(tags, wanted, subject=f"oci://{ref.name}")], None)
    subject = f"chart oci://{ref}"
    manifest = client.manifest(ref.repository, ref.target)
    if ref.digest is not None:
        digest.check(manifest.data, ref.digest, subject=subject)
    archive, _ = charts.layers_of(manifest, subject=subject)
    data = _blob(client, ref, archive, subject)
    chart = charts.read_archive(data, subject=subject)
    if manifest.config is not None:
        # The site's index is made from the config, so it has to tell the truth.
        if manifest.config.size > limits.SMALL_BLOB:
            raise IntegrityError(
                subject, expected=f"a config of at most {limits.SMALL_BLOB} bytes", actual=f"{manifest.config.size}"
            )
        charts.check_config(_blob(client, ref, manifest.config, subject), chart, subject=subject)
    return Pulled(chart, data), ref.with_digest(manifest.descriptor.digest)


def _blob(client: RegistryClient, ref: Reference, descriptor: oci.Descriptor, subject: str) -> bytes:
    sink = Buffer(descriptor.size, subject)
    client.blob(ref.repository, descriptor.digest, descriptor.size, sink)
    return digest.check(sink.getvalue(), descriptor.digest, subject=subject)


def parse_oci(text: str) -> tuple[Reference, bool]:
    """Return the reference of ``oci://...`` and whether it names a version or digest itself.

    Raises:
        ManifestError: it is no reference.
    """
    bare = text.removeprefix("oci://").rstrip("/")
    host, slash, rest = bare.partition("/")
    name, colon, tag = rest.partition(":")
    # A version's + is written _ in a tag; the host's port has its own colon.
    ref = reference.parse(f"{host}{slash}{name}{colon}{charts.tag_of(tag)}")
    return ref, bool(colon) or ref.digest is not None
