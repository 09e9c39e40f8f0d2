"""Images at the site: what one shows in the embedded registry, and an external registry that is filled in its place.

In the embedded registry a tag is seen while the drop is active, a digest while the drop is kept. An external one gets
blobs under no name, then manifests by digest, and tags last of all.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from airlift import oci
from airlift.errors import DeliveryError, PartialDeliveryError, StoreError
from airlift.kinds.images import is_foreign
from airlift.site import mirror, presence
from airlift.site.oci_listing import Tree, blobs_of, children_first, oci_listing, subjects_first
from airlift.site.patience import Patience
from airlift.transport.credentials import Credentials
from airlift.transport.harbor import HarborClient
from airlift.transport.harbor_quota import Piece, Wanted
from airlift.transport.http import HttpClient
from airlift.transport.referrers import ReferrerLists
from airlift.transport.refusals import delivering
from airlift.transport.registry import RegistryClient

if TYPE_CHECKING:
    from airlift.artifact import Artifact
    from airlift.digest import Digest
    from airlift.oci import Descriptor, Manifest
    from airlift.progress import Progress
    from airlift.site.config import Site
    from airlift.site.listing import Listing, Name
    from airlift.store import Store
    from airlift.transport.settings import HttpSettings

_WORKERS: Final = 4
_NAMELESS: Final = "nothing of the drop has a name there"


def listing(artifact: Artifact, store: Store) -> Listing:
    """List an image whose manifests are in the store.

    Raises:
        BundleError: its name is no complete reference.
        IntegrityError: a manifest is malformed.
        StoreError: the store does not have it.
    """
    path, tag = mirror.place_of(artifact)
    return oci_listing(path, tag, artifact.root, store)


def connect(site: Site, http: HttpSettings, progress: Progress) -> RegistryClient:
    """Return a client of the registry that site.yaml names.

    Raises:
        StoreError: the file with the password cannot be read.
    """
    config = site.config.registry
    if config is None:
        raise ValueError("site.yaml names no registry")
    settings = site.reaching(config, http)
    login = Credentials(config.username, site.password(config)) if config.username else None
    is_plain = config.url.startswith("http://")
    if config.kind == "harbor" and login is not None:
        return HarborClient(
            config.host,
            http=HttpClient(settings, progress),
            credentials=login,
            plain_http=is_plain,
            is_public=config.public,
            storage_limit=config.storage_limit,
            filled=lambda: _filled(site, config.repository),
        )
    return RegistryClient(config.host, http=HttpClient(settings, progress), credentials=login, plain_http=is_plain)


def _filled(site: Site, repository: Callable[[str], str]) -> set[str]:
    """Return the repositories of all tags that the site's drops have."""
    with site.journal() as journal:
        names = [name for drop in journal.drops() for name in journal.names_of(drop.release)]
    return {repository(path) for path, _, _ in mirror.tags(names)}


@dataclass(slots=True)
class _Home:
    """Where a blob belongs."""

    size: int
    repositories: dict[str, None] = field(default_factory=dict)


class RegistryTarget:
    """An external registry.

    Args:
        client: the registry.
        repository: gives the repository of a mirror path.
        lists: the registry's lists of referrers, where several targets write them.
    """

    def __init__(
        self, client: RegistryClient, repository: Callable[[str], str], lists: ReferrerLists | None = None
    ) -> None:
        self._client = client
        self._repository = repository
        self._homes: dict[Digest, _Home] = {}
        self._trees: list[Tree] = []
        self._sources: dict[str, str] = {}
        self._delivered: set[Digest] = set()
        self._patience = Patience()
        self._lists = lists or ReferrerLists(client)

    def check(self) -> None:
        """Ask whether the registry is there and lets us in.

        Raises:
            DeliveryError: it is not, or does not.
        """
        self._client.ready()

    def expect(self, artifacts: Iterable[Artifact], store: Store, *, is_named: bool = True) -> None:
        """Learn from the manifests in `store` which blob belongs where.

        Args:
            artifacts: what is to be there.
            store: has their manifests.
            is_named: whether their tags are to move here; of tags that stay nobody asks whether they may.

        Raises:
            BundleError, IntegrityError: a manifest is missing or malformed.
        """
        wanted: dict[str, Wanted] = {}
        for artifact in artifacts:
            path = mirror.place_of(artifact)[0]
            repository = self._repository(path)
            self._refuse_shared(path, repository)
            tree = children_first(artifact.root, store, subject=artifact.name)
            if not self._client.takes_sparse:
                self._refuse_sparse(artifact.name, tree)
            self._trees.append((repository, tree))
            item = wanted.setdefault(repository.partition("/")[0], Wanted())
            _, colon, tag = artifact.name.partition("@")[0].rpartition(":")
            if is_named and colon and "/" not in tag:
                item.tags[repository, tag] = artifact.root.digest
            for descriptor, manifest in tree:
                piece = item.pieces.setdefault(descriptor.digest, Piece(descriptor.size, is_manifest=True))
                piece.repositories.setdefault(repository)
                for blob in blobs_of(manifest):
                    if not is_foreign(blob):
                        home = self._homes.setdefault(blob.digest, _Home(blob.size))
                        home.repositories.setdefault(repository)
                        piece = item.pieces.setdefault(blob.digest, Piece(blob.size, is_manifest=False))
                        piece.repositories.setdefault(repository)
        if isinstance(self._client, HarborClient):
            self._client.admit(wanted)

    def _refuse_shared(self, path: str, repository: str) -> None:
        other = self._sources.setdefault(repository, path)
        if other != path:
            raise DeliveryError(
                f"{path} and {other} have one repository at {self._client.registry}: {repository}",
                mirror=self._client.registry,
                hint="change mapping or depth in site.yaml",
            )

    def _refuse_sparse(self, name: str, tree: list[tuple[Descriptor, Manifest]]) -> None:
        there = {descriptor.digest for descriptor, _ in tree}
        for descriptor, manifest in tree:
            children = [child.digest for child in manifest.manifests]
            missing = [child for child in children if child not in there]
            if missing:
                raise DeliveryError(
                    f"{name}: {self._client.registry} takes no index without all its manifests; "
                    f"{len(missing)} of {len(children)} were not shipped, the first is {missing[0]}",
                    mirror=self._client.registry,
                    hint="the release engineer has to ship the image with all platforms, or with one platform alone",
                )
            if len(set(children)) != len(children):
                raise DeliveryError(
                    f"{name}: {self._client.registry} cannot store the index {descriptor.digest}: "
                    "it lists one manifest twice",
                    mirror=self._client.registry,
                )

    def _prepare(self) -> None:
        if isinstance(self._client, HarborClient):
            self._client.prepare()

    def is_wanted(self, digest: Digest) -> bool:
        """Say whether an expected artifact has this blob."""
        return digest in self._homes

    def deliver(self, digest: Digest, size: int, content: mirror.Content) -> bool:
        """Take a wanted blob into the first of its repositories, unless that has it; return whether bytes were sent.

        A registry that compares digests does so alone (docs/decisions/0007).

        Raises:
            DeliveryError: the registry refuses.
            AirliftError: what the content raises.
        """
        self._prepare()
        repository = next(iter(self._homes[digest].repositories))
        sent: list[bool] = []

        def push() -> None:
            chunks = content.undigested if self._client.compares_digests(repository) else content.chunks
            try:
                sent.append(self._client.push_blob(repository, digest, size, chunks))
            except DeliveryError as error:
                if error.status == HTTPStatus.BAD_REQUEST:
                    # Either the content is wrong, which is then said here, or the registry is.
                    for _ in content.chunks():
                        pass
                raise

        self._patience.call(push)
        self._delivered.add(digest)
        return any(sent)

    def give_up(self) -> None:
        """End waits for the registry, of every thread; the client is of no use afterwards."""
        self._client.http.give_up()

    def publish(self, store: Store, progress: Progress) -> None:
        """Complete the expected artifacts, and see that what refers to them is still listed afterwards.

        Raises:
            PartialDeliveryError: the registry stopped taking things; nothing has a name yet.
            StoreError: what is to be sent is not in the store.
        """
        self.complete(store, progress)
        self.settle(progress)

    def settle(self, progress: Progress) -> None:
        """Mend the lists of referrers that were written here and that another site has overtaken; say which stay so.

        Raises:
            PartialDeliveryError: the registry stopped taking things; nothing has a name yet.
        """
        with _partly(_NAMELESS):
            for name in self._lists.settle():
                progress.warn(
                    f"{name}: another site writes this list of referrers all the while, and what this drop adds is not "
                    "in it; run airlift check --site DIR --repair when the other is done"
                )

    def complete(self, store: Store, progress: Progress) -> None:
        """Complete the expected artifacts: blobs that are still missing, then manifests by digest, children first.

        Raises:
            PartialDeliveryError: the registry stopped taking things; nothing has a name yet.
            StoreError: what is to be sent is not in the store.
        """
        blobs = [partial(self._fill, digest, home, store) for digest, home in self._homes.items()]
        with _partly(_NAMELESS):
            self._prepare()
            progress.start("filling the registry", len(blobs) + len(self._trees), unit="objects")
            self._side_by_side(blobs, progress)
            for trees in subjects_first(self._trees):
                # Two artifacts may share a child in one repository: both bring it, and the second finds it there.
                self._side_by_side([partial(self._push_tree, repository, tree) for repository, tree in trees], progress)
            progress.finish()

    def check_names(self, names: Sequence[Name]) -> None:
        """Refuse tags that a Harbor's rules keep from moving, and those whose manifest is not there.

        Raises:
            DeliveryError: one is immutable, one has no manifest, or the registry does not answer.
        """
        tags = {(self._repository(path), tag): digest for path, tag, digest in mirror.tags(names)}
        if isinstance(self._client, HarborClient):
            self._client.admit_tags(tags)
        presence.require_manifests(self._client, ((repository, digest) for (repository, _), digest in tags.items()))

    def activate(self, names: Sequence[Name], store: Store, progress: Progress) -> None:
        """Let tags point at what was published; those that do already are left alone.

        Raises:
            PartialDeliveryError: the registry stopped taking them; some point at this drop already.
            StoreError: a manifest is not in the store.
        """
        moves = [
            partial(self._tag, self._repository(path), tag, digest, store) for path, tag, digest in mirror.tags(names)
        ]
        progress.start("moving tags", len(moves), unit="tags")
        moved: list[int] = []
        try:
            self._side_by_side(moves, progress, moved)
        except DeliveryError as error:
            # Counted when all threads have ended, so none is on its way any more.
            raise _partial(error, f"{len(moved)} of the drop's {len(moves)} tags have moved already") from None
        progress.finish()

    def withdraw(self, names: Sequence[Name]) -> list[str]:
        """Take tags away that no active drop has any more; return those that stay, as mirror path and tag.

        Raises:
            DeliveryError: the registry does not answer.
        """
        return [
            f"{path}:{tag}"
            for path, tag, digest in self._pointing(names)
            if not self._client.delete_tag(self._repository(path), tag, digest)
        ]

    def shown(self, names: Sequence[Name]) -> list[str]:
        """Return the tags that point at what these names say, as mirror path and tag.

        Raises:
            DeliveryError: the registry does not answer.
        """
        return [f"{path}:{tag}" for path, tag, _ in self._pointing(names)]

    def _pointing(self, names: Sequence[Name]) -> list[tuple[str, str, Digest]]:
        tags = list(mirror.tags(names))
        are_so = presence.point_there(
            self._client, [(self._repository(path), tag, digest) for path, tag, digest in tags]
        )
        return [one for one, is_so in zip(tags, are_so, strict=True) if is_so]

    def _fill(self, digest: Digest, home: _Home, store: Store) -> None:
        """Let all repositories have a blob: by mount, else from the store, else from the first that has it."""
        first, *others = home.repositories
        if digest in self._delivered:
            pass
        elif store.has(digest):
            self._client.push_blob(first, digest, home.size, lambda: store.chunks(digest, home.size))
        elif not self._client.has_blob(first, digest):
            raise StoreError(f"{digest} is neither in the registry nor in {store.root}", hint="import its bundle again")
        for repository in others:
            if self._client.has_blob(repository, digest) or self._client.mount(repository, digest, first):
                continue
            if store.has(digest):
                self._client.push_blob(repository, digest, home.size, lambda: store.chunks(digest, home.size))
            else:
                with delivering(self._client.registry), self._client.blob_upload(repository, digest, home.size) as to:
                    self._client.blob(first, digest, home.size, to)
                    to.commit()

    def _push_tree(self, repository: str, tree: list[tuple[Descriptor, Manifest]]) -> None:
        for descriptor, manifest in tree:
            self._client.push_manifest(repository, descriptor.digest, manifest.data, manifest.media_type)
            self._lists.add(repository, manifest)

    def _side_by_side(
        self, calls: Sequence[Callable[[], None]], progress: Progress, done: list[int] | None = None
    ) -> None:
        """Make the calls, a few at a time; a lasting failure ends it. `done` gets the place of each that succeeded."""

        def one(place: int, call: Callable[[], None]) -> None:
            self._patience.call(call)
            if done is not None:
                done.append(place)
            progress.advance(1)

        with ThreadPoolExecutor(max_workers=_WORKERS, thread_name_prefix="registry") as pool:
            waiting = [pool.submit(one, place, call) for place, call in enumerate(calls)]
            try:
                for future in waiting:
                    future.result()
            except KeyboardInterrupt:
                self.give_up()
                raise
            finally:
                for future in waiting:
                    future.cancel()

    def _tag(self, repository: str, tag: str, digest: Digest, store: Store) -> None:
        manifest = oci.parse_manifest(store.read(digest), subject=f"{repository}:{tag}")
        self._client.push_manifest(repository, tag, manifest.data, manifest.media_type)


@contextlib.contextmanager
def _partly(state: str) -> Iterator[None]:
    """Say with a refusal what it leaves."""
    try:
        yield
    except DeliveryError as error:
        raise _partial(error, state) from None


def _partial(error: DeliveryError, state: str) -> PartialDeliveryError:
    return PartialDeliveryError(
        f"{error.message}; {state}",
        mirror=error.mirror,
        temporary=error.temporary,
        hint=error.hint or "run the same command again; it goes on where this one ended",
    )
