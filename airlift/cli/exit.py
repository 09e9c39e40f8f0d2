"""Exit codes, all of them (docs/exit-codes.md). New ones may appear; unknown means failure."""

from __future__ import annotations

from typing import Final

from airlift.errors import (
    AirliftError,
    BundleError,
    DeliveryError,
    DeployError,
    FetchError,
    IntegrityError,
    ManifestError,
    PartialDeliveryError,
    PolicyError,
    ResolveError,
    StoreError,
    TrustError,
    UsageError,
)

OK: Final = 0
FAILURE: Final = 1
INTERRUPTED: Final = 130

CODES: Final[dict[type[AirliftError], int]] = {
    UsageError: 2,
    PartialDeliveryError: 3,
    ManifestError: 10,
    ResolveError: 11,
    FetchError: 11,
    IntegrityError: 12,
    BundleError: 13,
    TrustError: 14,
    PolicyError: 15,
    StoreError: 16,
    DeliveryError: 17,
    DeployError: 18,
}


def code_of(error: AirliftError) -> int:
    """Return the code of the nearest class that has one."""
    for kind in type(error).__mro__:
        if kind in CODES:
            return CODES[kind]
    return FAILURE
