"""Names of images, charts and what else an OCI registry holds. Parsing never connects anywhere.

The normal form is always complete: ``docker.io/library/redis:7.4``, never ``redis`` (distribution's reference grammar
with containerd's normalisation of short names).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from airlift import limits
from airlift.digest import Digest
from airlift.digest import parse as parse_digest
from airlift.errors import AirliftError, ManifestError

DEFAULT_REGISTRY = "docker.io"

_HOST = re.compile(
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*(?::[0-9]{1,5})?"
)
_IPV6 = re.compile(r"\[[0-9a-fA-F:.]+\](?::[0-9]{1,5})?")
_REPOSITORY = re.compile(r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")


@dataclass(frozen=True, slots=True)
class Reference:
    """One name in a registry; at least one of `tag` and `digest` is set.

    Attributes:
        registry: host, with a port where it has one; ``docker.io`` for Docker Hub.
        repository: path without a leading slash, lower case.
        tag: the tag, or None.
        digest: the digest, or None. With both, the digest decides what is meant.
    """

    registry: str
    repository: str
    tag: str | None
    digest: Digest | None

    @property
    def name(self) -> str:
        """``registry/repository``."""
        return f"{self.registry}/{self.repository}"

    @property
    def path(self) -> str:
        """``registry/repository`` as one repository path of a mirror: ``host:port`` becomes ``host_port``."""
        return f"{self.registry.replace(':', '_')}/{self.repository}"

    @property
    def target(self) -> str:
        """What to ask the registry for: the digest, else the tag."""
        return self.digest or self.tag or ""

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.name}{tag}{digest}"

    def with_digest(self, digest: Digest) -> Reference:
        """Return the same name, pinned."""
        return replace(self, digest=digest)

    def without_digest(self) -> Reference:
        """Return the tag's name alone; with no tag the name is returned as it is."""
        return replace(self, digest=None) if self.tag else self


def parse(text: str) -> Reference:
    """Return the complete form of a reference; without tag and digest the tag is ``latest``.

    Raises:
        ManifestError: the text is no reference.
    """
    if len(text) > limits.NAME:
        raise ManifestError(f"reference of {len(text)} characters, at most {limits.NAME} are accepted")
    name, at, digest_text = text.partition("@")
    digest = None
    if at:
        try:
            digest = parse_digest(digest_text, subject=f"digest of {text!r}")
        except AirliftError as error:
            raise ManifestError(error.message) from None
    head, slash, tail = name.partition("/")
    if slash and ("." in head or ":" in head or head == "localhost" or head != head.lower()):
        registry, rest = head, tail
    else:
        registry, rest = DEFAULT_REGISTRY, name
    repository, colon, tag = rest.partition(":")
    if registry in ("index.docker.io", "registry-1.docker.io"):
        registry = DEFAULT_REGISTRY
    if registry == DEFAULT_REGISTRY and "/" not in repository:
        repository = f"library/{repository}"
    if not (_HOST.fullmatch(registry) or _IPV6.fullmatch(registry)):
        raise _bad(text, f"{registry!r} is not a host name")
    if not _REPOSITORY.fullmatch(repository):
        raise _bad(
            text,
            f"{repository!r} is not a repository path (lower case letters, digits, '.', '_', '-', '/')",
        )
    if colon and not _TAG.fullmatch(tag):
        raise _bad(text, f"{tag!r} is not a tag")
    return Reference(registry, repository, tag or (None if digest else "latest"), digest)


def _bad(text: str, why: str) -> ManifestError:
    return ManifestError(
        f"not an image reference: {text!r}: {why}",
        hint="write it in full, such as docker.io/library/redis:7.4",
    )
