"""Bounds on everything that comes from outside. Sizes are bytes.

A length, count or path that was not made here is compared with one of these before it is used.
"""

from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB
GIB: Final = 1024 * MIB

CHUNK: Final = 1 * MIB
"""Unit of streaming reads and writes."""

DOCUMENT: Final = 4 * MIB
"""A manifest, site, trust or requirements file, written by a person."""

LOCK: Final = 256 * MIB
"""A lock file."""

SMALL_BLOB: Final = 4 * MIB
"""An index, image manifest, config or METADATA: what is held in memory whole (Harbor's and distribution's bound)."""

BLOB: Final = 8 * 1024 * GIB
"""One blob; the payload's own bound (2^21 frames of 4 MiB)."""

ARTIFACTS: Final = 200_000
"""Entries of one index, and artifacts of one drop."""

INDEX_DOCUMENT: Final = 256 * MIB
"""The drop's own ``index.json``, and a Helm repository's index.yaml."""

PROJECT_PAGE: Final = 64 * MIB
"""The page that a package index has for one project."""

REMOTE_DIRECTORY: Final = 64 * MIB
"""What is read of a wheel on a server, to get at its directory and METADATA."""

NAME: Final = 1024
"""Characters of a reference, file name or path within an artifact."""

CHART: Final = 64 * MIB
"""A Helm chart archive, held in memory while it is read (Helm itself unpacks at most 100 MiB)."""

ARCHIVE_MEMBERS: Final = 100_000
"""Members of a wheel or chart that we look into."""

ARCHIVE_UNPACKED: Final = 512 * MIB
"""What a chart may unpack to when we look into it."""

ERROR_BODY: Final = 64 * KIB
"""What is read of a server's error answer or token answer."""

IMAGE_MANIFESTS: Final = 5_000
"""Manifests and indexes of one image with all that refers to it."""
