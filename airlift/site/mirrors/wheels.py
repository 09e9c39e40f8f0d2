"""What a set of wheels shows in the package index, and the external index that a site fills beside its own.

A name per distribution file, under its normalised project; the wheel and its METADATA are held under the project.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

from airlift import digest as digests
from airlift import limits, oci
from airlift.artifact import Artifact
from airlift.digest import Digest
from airlift.errors import DeliveryError, PartialDeliveryError
from airlift.kinds.wheels import METADATA_TYPE, WHEEL_TYPE, DistributionFile, parse_manifest
from airlift.site.listing import Held, Listing, Name, Service
from airlift.store import Store
from airlift.transport.credentials import Credentials
from airlift.transport.http import HttpClient
from airlift.transport.package_index import PackageIndex, Wheel

if TYPE_CHECKING:
    from airlift.progress import Progress
    from airlift.site.config import Site
    from airlift.site.mirror import Content
    from airlift.transport.settings import HttpSettings

_WORKERS: Final = 4

_Wanted = dict[str, tuple[Wheel, Digest]]
"""Wheels of one project by file name, each with the digest of its METADATA."""


def listing(artifact: Artifact, store: Store) -> Listing:
    """Return the names and contents of a set of wheels, whose index and manifests are in `store`.

    Raises:
        IntegrityError: a manifest is not what a set of wheels has.
        StoreError: a manifest is not in the store.
    """
    names: list[Name] = []
    held: dict[Digest, Held] = {}
    index = oci.parse_manifest(store.read(artifact.root.digest), subject=artifact.name, media_type=oci.INDEX)
    for child in index.manifests:
        file = parse_manifest(store.read(child.digest), subject=f"{artifact.name}, {child.digest}")
        project = file.name.project
        names.append(Name(Service.SIMPLE, project, _value(file)))
        facts = {"filename": file.name.filename, "metadata": file.metadata_digest}
        held[file.digest] = Held(Service.SIMPLE, project, file.digest, file.size, WHEEL_TYPE, facts=facts)
        # Wheels of one release often share their METADATA.
        held[file.metadata_digest] = Held(
            Service.SIMPLE, project, file.metadata_digest, file.metadata_size, METADATA_TYPE
        )
    return Listing(tuple(names), tuple(held.values()))


def _value(file: DistributionFile) -> dict[str, Any]:
    value = {
        "digest": file.digest,
        "filename": file.name.filename,
        "size": file.size,
        "version": str(file.name.version),
        "metadata": file.metadata_digest,
        "requires-python": file.requires_python,
        "yanked": file.yanked,
        "upload-time": file.upload_time,
    }
    return {key: item for key, item in value.items() if item is not None}


def connect(site: Site, http: HttpSettings, progress: Progress) -> PackageIndex:
    """Return a client of the package index that site.yaml names.

    Raises:
        StoreError: the file with the password cannot be read.
    """
    config = site.config.python
    if config is None:
        raise ValueError("site.yaml names no package index")
    settings = site.reaching(config, http)
    login = Credentials(config.username, site.password(config)) if config.username else None
    return PackageIndex(config.upload, config.index, http=HttpClient(settings, progress), credentials=login)


def wheels_of(names: Iterable[Name]) -> list[tuple[Wheel, Digest]]:
    """Return the wheels among names, each with the digest of its METADATA."""
    return [
        (
            Wheel(
                name.key,
                name.value["version"],
                name.value["filename"],
                digests.parse(name.value["digest"]),
                name.value["size"],
            ),
            digests.parse(name.value["metadata"]),
        )
        for name in names
        if name.service == Service.SIMPLE
    ]


class IndexTarget:
    """An external package index (`airlift.site.mirror.Target`). It has no drafts, so it is filled as names move.

    Files that other drops brought stay: an index is additive, and who pins digests is served whichever drop is active.
    """

    def __init__(self, index: PackageIndex) -> None:
        self._index = index

    def check(self) -> None:
        """Ask whether the index answers.

        Raises:
            DeliveryError: it does not.
        """
        self._index.files("airlift")

    def expect(self, artifacts: Iterable[Artifact], store: Store, *, is_named: bool = True) -> None:
        """Nothing of a drop comes early."""

    def is_wanted(self, _: Digest) -> bool:
        """No blob comes early."""
        return False

    def deliver(self, digest: Digest, size: int, content: Content) -> bool:  # noqa: ARG002 - the protocol's
        """Not called, since no blob is wanted."""
        raise ValueError(f"{digest} is not wanted here")

    def give_up(self) -> None:
        """End waits for the index, of every thread; the client is of no use afterwards."""
        self._index.give_up()

    def publish(self, store: Store, progress: Progress) -> None:
        """Nothing can be there unseen."""

    def check_names(self, _: Sequence[Name]) -> None:
        """Nothing: `activate` looks at all of them before it uploads one."""

    def activate(self, names: Sequence[Name], store: Store, progress: Progress) -> None:
        """Upload the wheels that the index lacks; nothing when it has one of them with another content.

        Raises:
            DeliveryError: it has another content under a wheel's name, or does not answer.
            PartialDeliveryError: it stopped taking them; some are there.
            StoreError: a wheel is not in the store.
        """
        missing = self.missing(names)
        progress.start("uploading wheels", len(missing), unit="files")
        done: list[str] = []
        ended = threading.Event()

        def one(wheel: Wheel, metadata: Digest) -> None:
            if ended.is_set():
                return
            try:
                text = store.read(metadata, limit=limits.SMALL_BLOB)
                self._index.upload(wheel, text, lambda: store.chunks(wheel.digest, wheel.size))
            except BaseException:
                ended.set()
                raise
            done.append(wheel.filename)
            progress.advance(1)

        with ThreadPoolExecutor(max_workers=_WORKERS, thread_name_prefix="index") as pool:
            waiting = [pool.submit(one, wheel, metadata) for wheel, metadata in missing]
            try:
                for future in waiting:
                    future.result()
            except KeyboardInterrupt:
                ended.set()
                self.give_up()
                raise
            except DeliveryError as error:
                pool.shutdown(cancel_futures=True)
                raise PartialDeliveryError(
                    f"{error.message}; {len(done)} of {len(missing)} wheels were uploaded",
                    mirror=error.mirror,
                    temporary=error.temporary,
                    hint=error.hint or "run the same command again; it goes on where this one ended",
                ) from None
        progress.finish()

    def withdraw(self, _: Sequence[Name]) -> list[str]:
        """Nothing: who installs by hash is served whichever drop is active."""
        return []

    def shown(self, names: Sequence[Name]) -> list[str]:
        """Return the file names of these wheels that the index has.

        Raises:
            DeliveryError: it does not answer.
        """
        return [
            filename
            for wanted, there in self._pages(names)
            for filename, (wheel, _) in wanted.items()
            if filename in there and there[filename] in (None, wheel.digest)
        ]

    def missing(self, names: Iterable[Name]) -> list[tuple[Wheel, Digest]]:
        """Return the wheels that the index does not have, each with the digest of its METADATA.

        Raises:
            DeliveryError: it has another content under a wheel's name, or does not answer.
        """
        found: list[tuple[Wheel, Digest]] = []
        for wanted, there in self._pages(names):
            for filename, (wheel, metadata) in wanted.items():
                if filename not in there:
                    found.append((wheel, metadata))
                elif there[filename] not in (None, wheel.digest):
                    raise DeliveryError(
                        f"{self._index.name}: {filename} is {there[filename]} there, the drop has {wheel.digest}",
                        mirror=self._index.name,
                        hint="an index keeps one content under one name; remove the file there or use another",
                    )
        return found

    def _pages(self, names: Iterable[Name]) -> Iterator[tuple[_Wanted, dict[str, Digest | None]]]:
        """Yield project by project the wheels among names, and what the index has, both by file name.

        Raises:
            DeliveryError: it does not answer.
        """
        projects: dict[str, _Wanted] = defaultdict(dict)
        for wheel, metadata in wheels_of(names):
            projects[wheel.project][wheel.filename] = wheel, metadata
        with ThreadPoolExecutor(max_workers=_WORKERS, thread_name_prefix="index") as pool:
            pages = pool.map(self._index.files, projects)
            for wanted, page in zip(projects.values(), pages, strict=True):
                yield wanted, {file.filename: file.sha256 for file in page}
