"""Releases rendered again at the site, with the values that they are deployed with: which images they will run.

What the connected side saw holds for the values of the chart's own entry. The values under ``deploy:`` may switch on
more, so where a helm is at hand its word counts, and every image that it shows has to be in the drop.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from airlift import fs, helm, limits
from airlift.artifact import DropConfig
from airlift.digest import Digest
from airlift.errors import DeployError, IntegrityError, ResolveError
from airlift.helm import Helm
from airlift.kinds import charts, podspecs
from airlift.site.deploy import carried
from airlift.site.deploy.blobs import BlobSource, read_archive
from airlift.site.deploy.helmchart import Release, archive_of
from airlift.site.deploy.images import Wanted
from airlift.store import Store

NAME: Final = "helm"


@contextlib.contextmanager
def helm_at_site(
    drops: Sequence[DropConfig], store: Store, environment: Mapping[str, str], architecture: str
) -> Iterator[Helm | None]:
    """Give the helm that a drop carries (a file named ``helm`` or ``helm-ARCH``), else that of PATH, else None.

    Args:
        drops: the active drops.
        store: the site's.
        environment: the process's, for PATH.
        architecture: this machine's, such as ``amd64``.

    Raises:
        IntegrityError: the carried one is damaged.
        DeployError, StoreError: it cannot be had.
    """
    root = store.root.parent
    # A site on a disk that is mounted read-only is looked at, and deployed from, all the same.
    parent = root if os.access(root, os.W_OK) else Path(tempfile.gettempdir())
    with fs.work_directory(parent, "rendering") as folder:
        work = folder / "work"
        file = carried.find(drops, [f"{NAME}-{architecture}", NAME], store)
        if file is None:
            yield helm.find(environment, work)
            return
        program = folder / NAME
        carried.place(file, store, program)
        yield helm.at(program, work)


class Renderer:
    """Says which images a release runs, by rendering it."""

    def __init__(self, program: Helm, source: BlobSource, values: Callable[[Digest], bytes]) -> None:
        """Render with a helm.

        Args:
            program: the helm.
            source: where charts are.
            values: gives a values file.
        """
        self._helm = program
        self._source = source
        self._values = values

    def __call__(self, release: Release) -> tuple[Wanted, ...]:
        """Return the images of all workloads of a release.

        Raises:
            DeployError: helm cannot render it with these values, or it shows something that is no image.
            IntegrityError: the chart is damaged.
            StoreError, FetchError: something cannot be read.
        """
        subject = f"release {release.name}"
        layer = archive_of(release.chart, self._source)
        if layer.size > limits.CHART:
            raise DeployError(f"{subject}: its chart has {layer.size} bytes, at most {limits.CHART} expected")
        archive = read_archive(self._source, release.chart, layer)
        values = {f"{number + 1}:{name}": self._values(pin) for number, (name, pin) in enumerate(release.values)}
        try:
            chart = charts.read_archive(archive, subject=release.chart.name)
            if chart.is_library:
                return ()
            text = self._helm.render(chart, archive, values, release=release.name, namespace=release.namespace)
            seen = podspecs.find(text, subject=f"{subject}, rendered")
        except ResolveError as error:
            raise DeployError(
                f"{subject}: {error.message}",
                hint="the release engineer has to mend the values under `deploy:`, then resolve and build",
            ) from None
        except IntegrityError as error:
            raise DeployError(f"{subject}: {error.message}") from None
        odd = [f"  {item.image!r} ({item.where})" for item in seen if not item.is_reference]
        if odd:
            raise DeployError("\n".join([f"{subject} would run what is no image reference", *odd]))
        where = f"{release.chart.name} as release {release.name}"
        return tuple(Wanted(item["image"], where, tuple(item["where"])) for item in podspecs.group(seen))
