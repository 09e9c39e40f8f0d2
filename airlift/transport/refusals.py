"""What a registry's refusal of a write means, and what to do about it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Final

from airlift.errors import DeliveryError, FetchError
from airlift.transport.http import HttpStatusError

_UNAUTHORIZED: Final = 401
_INTERNAL: Final = 500

TYPE: Final = (
    "the registry takes no manifest, config or layer of this type; let its administrator allow it (Quay: "
    "FEATURE_GENERAL_OCI_SUPPORT and ALLOWED_OCI_ARTIFACT_TYPES; zot: http.compat), or leave that artifact out"
)

_HINTS: Final = {
    401: "give the registry's username and password_file in site.yaml, or mend them: a password may have changed,"
    " or the account may not write there",
    403: "the account may not write here, the registry is read-only, or its quota is used up",
    405: "the registry is read-only, or does not take uploads at this address",
    412: "the tag is immutable and holds other content; take it away at the registry, or use another tag",
    413: "a proxy in front of the registry limits the size of requests",
    415: TYPE,
}

FULL: Final = "the project's quota is used up; raise it, or prune and collect garbage"
NO_REPOSITORY: Final = (
    "the registry makes no repository by itself, or none at this address; make it there, or give mapping or project in"
    " site.yaml"
)
_IMMUTABLE: Final = "the tag is immutable there; take it away at the registry, or ship the content under a new tag"
_LOST: Final = (
    "the registry lost the upload; where several of them answer at one address, they need one storage and one"
    " http.secret"
)
_BROKEN: Final = "see the registry's log: its disk may be full, or its storage away; then run the same command again"

POLICY: Final = (
    "a policy of the project hides unsigned or unscanned images; switch it on after the import, or sign them"
)

_SAYINGS: Final = (
    (403, "read only mode", "the registry is read-only; let its administrator end that"),
    (403, "exceed the configured upper limit", FULL),
    (403, "proxy project", "a proxy-cache project takes no push; give project or mapping in site.yaml"),
    (401, "project ", "the project is missing at the registry, or was removed meanwhile"),
    (401, "un-recognized request", "the registry does not allow this name; give project or mapping in site.yaml"),
    (401, "unauthorized to access repository", "the account lacks the right to push there; or a robot has expired"),
    (401, "unauthorized: unauthorized", "mend the password; a robot may be disabled or expired, or a database be down"),
    (
        500,
        "UNKNOWN internal server error",
        "Harbor's database or Redis is away, or it cannot read a config; see its log",
    ),
    (400, "MANIFEST_BLOB_UNKNOWN", "the registry takes an index only with all its platforms; ship it with all of them"),
    (400, "is immutable", _IMMUTABLE),
    (400, "does not allow updating", _IMMUTABLE),
    (400, "MANIFEST_INVALID", TYPE),
    (400, "BLOB_UPLOAD_", _LOST),
    (404, "BLOB_UPLOAD_", _LOST),
    (404, "NAME_UNKNOWN", NO_REPOSITORY),
)
"""What Harbor, and then others, say with a status that has several meanings, and what to do."""


def _hint(error: HttpStatusError) -> str | None:
    for status, words, hint in _SAYINGS:
        if error.status == status and words in error.said:
            return hint
    challenge = error.headers.get("WWW-Authenticate")
    if error.status == _UNAUTHORIZED and challenge is not None and not challenge.strip():
        return "the project is missing at the registry, or it does not allow the name"
    return error.hint or _BROKEN if error.status == _INTERNAL else _HINTS.get(error.status, error.hint)


@contextlib.contextmanager
def delivering(registry: str) -> Iterator[None]:
    """Let `FetchError` out as `DeliveryError`: what fails here fails towards a mirror."""
    try:
        yield
    except FetchError as error:
        hint, status = (_hint(error), error.status) if isinstance(error, HttpStatusError) else (error.hint, None)
        raise DeliveryError(
            error.message, mirror=registry, temporary=error.temporary, status=status, hint=hint
        ) from None
