"""What the importer and the switch of drops ask of a registry that the site fills, and where artifacts are in one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, Protocol

from airlift import reference
from airlift.artifact import Artifact, Kind
from airlift.digest import Digest
from airlift.errors import BundleError, ManifestError
from airlift.progress import Progress
from airlift.site.listing import Name
from airlift.store import Store

_LOCAL_CHARTS: Final = "charts/"


def place_of(artifact: Artifact) -> tuple[str, str | None]:
    """Return where an image or chart is below the site's registry: its mirror path and its tag.

    Raises:
        BundleError: its name is neither a complete reference nor, for a chart, ``charts/<name>:<version>``.
    """
    name = artifact.name
    is_local = artifact.kind is Kind.CHART and name.startswith(_LOCAL_CHARTS)
    # A chart that came from no registry has none in its name; with one, both kinds of name have one grammar.
    full = f"localhost/{name}" if is_local else name
    try:
        parsed = reference.parse(full)
    except ManifestError as error:
        raise BundleError(f"the drop's config: {error.message}") from None
    if str(parsed) != full or (parsed.digest is not None and parsed.digest != artifact.root.digest):
        raise BundleError(f"the drop's config: {name} is not the complete name of {artifact.root.digest}")
    return (parsed.repository if is_local else parsed.path), parsed.tag


class Content(Protocol):
    """A blob's content, each time from its beginning."""

    def chunks(self) -> Iterator[memoryview]:
        """Yield it; its last bytes only when the digest was right, else IntegrityError."""

    def undigested(self) -> Iterator[memoryview]:
        """Yield it without regard to the digest: for a receiver that compares before it takes."""


class Target(Protocol):
    """A registry that takes images and charts. Blobs may come early; nothing has a name before `activate`.

    Every method lets only `AirliftError` out and is safe to repeat after a kill.
    """

    def check(self) -> None:
        """Refuse before the first byte where the registry can be seen to refuse later."""

    def expect(self, artifacts: Iterable[Artifact], store: Store, *, is_named: bool = True) -> None:
        """Learn from the manifests in `store` which blob belongs where, and whether the names are to move."""

    def is_wanted(self, digest: Digest) -> bool:
        """Say whether an expected artifact has this blob."""

    def deliver(self, digest: Digest, size: int, content: Content) -> bool:
        """Take a wanted blob, unless it is there; return whether bytes were sent. Several threads call it."""

    def give_up(self) -> None:
        """End what other threads are waiting for, as far as that is possible; nothing is delivered any more."""

    def publish(self, store: Store, progress: Progress) -> None:
        """Complete the expected artifacts: blobs that are still missing, then manifests by digest, children first."""

    def check_names(self, names: Sequence[Name]) -> None:
        """Refuse, before any name moves, where one can be seen to be refused later."""

    def activate(self, names: Sequence[Name], store: Store, progress: Progress) -> None:
        """Let tags point at what was published; those that do already are left alone."""

    def withdraw(self, names: Sequence[Name]) -> list[str]:
        """Take names away that no active drop has any more, where that is possible; return those that stay."""

    def shown(self, names: Sequence[Name]) -> list[str]:
        """Return those of these names that clients see there: tags, or file names of wheels."""


class Several:
    """Several external mirrors as one `Target`."""

    def __init__(self, targets: Sequence[Target]) -> None:
        self._targets = targets

    def check(self) -> None:
        """See `Target`."""
        for target in self._targets:
            target.check()

    def expect(self, artifacts: Iterable[Artifact], store: Store, *, is_named: bool = True) -> None:
        """See `Target`."""
        known = list(artifacts)
        for target in self._targets:
            target.expect(known, store, is_named=is_named)

    def is_wanted(self, digest: Digest) -> bool:
        """See `Target`."""
        return any(target.is_wanted(digest) for target in self._targets)

    def deliver(self, digest: Digest, size: int, content: Content) -> bool:
        """See `Target`."""
        wanting = next(target for target in self._targets if target.is_wanted(digest))
        return wanting.deliver(digest, size, content)

    def give_up(self) -> None:
        """See `Target`."""
        for target in self._targets:
            target.give_up()

    def publish(self, store: Store, progress: Progress) -> None:
        """See `Target`."""
        for target in self._targets:
            target.publish(store, progress)

    def check_names(self, names: Sequence[Name]) -> None:
        """See `Target`."""
        for target in self._targets:
            target.check_names(names)

    def activate(self, names: Sequence[Name], store: Store, progress: Progress) -> None:
        """See `Target`."""
        for target in self._targets:
            target.activate(names, store, progress)

    def withdraw(self, names: Sequence[Name]) -> list[str]:
        """See `Target`."""
        return [stays for target in self._targets for stays in target.withdraw(names)]

    def shown(self, names: Sequence[Name]) -> list[str]:
        """See `Target`."""
        return [name for target in self._targets for name in target.shown(names)]


def tags(names: Iterable[Name]) -> Iterator[tuple[str, str, Digest]]:
    """Yield path, tag and digest of the OCI names among `names`."""
    for name in names:
        path, colon, tag = name.key.rpartition(":")
        if name.service == "v2" and colon:
            yield path, tag, Digest(name.value["digest"])
