"""Lists of what refers to an image, under the tag ``sha256-<hex>``, where the registry keeps none itself.

The protocol has no conditional write: a list is read, changed and put, and what somebody else put in between is lost.
So what was written is read again a while later, and written again where it is gone.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from airlift import limits, oci
from airlift.digest import Digest
from airlift.errors import IntegrityError
from airlift.oci import Manifest
from airlift.transport.http import HttpStatusError
from airlift.transport.refusals import delivering
from airlift.transport.registry import RegistryClient, fallback_tag

_ROUNDS: Final = 5
"""How often a list is read again; with the pauses between, for a quarter of a minute."""

_NOT_FOUND: Final = 404
_INTERNAL: Final = 500
_UNKNOWN: Final = (400, 404)
"""What registries say to an index that lists a manifest which they do not have."""


class ReferrerLists:
    """The lists of one registry. Safe to use from many threads; of two processes `settle` is aware.

    Args:
        client: the registry.
    """

    def __init__(self, client: RegistryClient) -> None:
        self._client = client
        self._alone = threading.Lock()
        self._written: dict[tuple[str, Digest], dict[Digest, dict[str, Any] | None]] = {}

    def add(self, repository: str, manifest: Manifest) -> bool:
        """List a manifest that has a subject; entries of others stay. Return whether a list was written.

        A registry that keeps lists itself and has lost this entry gets the manifest once more, although it has it.

        Raises:
            DeliveryError: the registry refuses.
            IntegrityError: the tag is something else, or holds too much.
        """
        if manifest.subject is None:
            return False
        kind = manifest.artifact_type or (manifest.config.media_type if manifest.config else None)
        entry = replace(manifest.descriptor, artifact_type=kind, annotations=manifest.annotations)
        with delivering(self._client.registry):
            listed = self._client.listed_referrers(repository, manifest.subject.digest)
            if listed is None:
                return self._want(repository, manifest.subject.digest, {entry.digest: entry.to_json()})
            if entry.digest not in {item.digest for item in listed}:
                self._client.put_manifest(repository, entry.digest, manifest.data, manifest.media_type)
        return False

    def remove(self, repository: str, subject: Digest, digest: Digest) -> bool:
        """Take a manifest out of the list of its subject; the tag goes with the last. Return whether it was written.

        Raises:
            DeliveryError: the registry refuses.
        """
        with delivering(self._client.registry):
            if self._client.listed_referrers(repository, subject) is not None:
                return False
            return self._want(repository, subject, {digest: None})

    def settle(self) -> list[str]:
        """Read all lists again that were written, and mend those that another writer has overtaken.

        Returns:
            The lists that were overtaken each time, by full reference.

        Raises:
            DeliveryError: the registry refuses.
            IntegrityError: a tag has become something else.
        """
        for failures in range(1, _ROUNDS + 1):
            if not self._written:
                break
            self._client.http.pause(failures, self._client.base)
            written, self._written = self._written, {}
            for (repository, subject), wanted in written.items():
                self._want(repository, subject, wanted)
        left, self._written = self._written, {}
        return sorted(self._client.name(repository, fallback_tag(subject)) for repository, subject in left)

    def _want(self, repository: str, subject: Digest, wanted: Mapping[Digest, dict[str, Any] | None]) -> bool:
        with self._alone, delivering(self._client.registry):
            if not self._write(repository, subject, wanted):
                return False
            self._written.setdefault((repository, subject), {}).update(wanted)
        return True

    def _write(self, repository: str, subject: Digest, wanted: Mapping[Digest, dict[str, Any] | None]) -> bool:
        """Read the list, change it and put it, with nothing in between that takes time."""
        tag = fallback_tag(subject)
        index = self._read(repository, tag, subject)
        there = set() if index is None else {item.digest for item in index.manifests}
        missing = [entry for digest, entry in wanted.items() if entry is not None and digest not in there]
        gone = {digest for digest, entry in wanted.items() if entry is None and digest in there}
        if not missing and not gone:
            return False
        if index is not None and not index.is_index:
            raise IntegrityError(
                self._client.name(repository, tag), expected="an index of referrers", actual=index.media_type
            )
        document: dict[str, Any] = {"schemaVersion": 2, "mediaType": oci.INDEX, "manifests": []}
        if index is not None:
            document = json.loads(index.data)
        entries = [item for item in document["manifests"] if item["digest"] not in gone] + missing
        if entries or index is None:
            self._put(repository, tag, {**document, "manifests": entries})
        else:
            self._client.delete_manifest(repository, index.descriptor.digest)
        return True

    def _read(self, repository: str, tag: str, subject: Digest) -> Manifest | None:
        try:
            return self._client.manifest(repository, tag)
        except HttpStatusError as error:
            if error.status == _INTERNAL:
                # A docker-registry that lost its power leaves tags without content: nobody can read what this one said.
                # One that is merely in trouble does not answer for the subject either.
                self._client.head(repository, subject)
            elif error.status != _NOT_FOUND:
                raise
            return None

    def _put(self, repository: str, tag: str, document: dict[str, Any]) -> None:
        try:
            self._put_as_it_is(repository, tag, document)
        except HttpStatusError as error:
            if error.status not in _UNKNOWN:
                raise
            # Somebody deleted a manifest and left its entry, which keeps the registry from taking any list with it.
            alive = [item for item in document["manifests"] if self._client.head(repository, item["digest"])]
            if len(alive) == len(document["manifests"]):
                raise
            self._put_as_it_is(repository, tag, {**document, "manifests": alive})

    def _put_as_it_is(self, repository: str, tag: str, document: dict[str, Any]) -> None:
        data = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
        if len(data) > limits.SMALL_BLOB:
            raise IntegrityError(
                self._client.name(repository, tag),
                expected=f"at most {limits.SMALL_BLOB} bytes",
                actual=f"{len(data)} bytes",
            )
        self._client.put_manifest(repository, tag, data, oci.INDEX)
