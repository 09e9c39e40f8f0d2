"""What runs, compared once after a deployment: a drop may change no more than the content of a tag."""

from __future__ import annotations

from pathlib import Path

from airlift.cli import console, environment
from airlift.site.config import Site
from airlift.site.deploy import active, expected, kubectl
from airlift.site.deploy import status as releases
from airlift.site.deploy.cluster import AwayError, Cluster
from airlift.site.deploy.expected import Expected
from airlift.site.deploy.images import Images
from airlift.site.deploy.program import BINARY
from airlift.site.deploy.running import Shipped

WHICH = "The cluster that is compared afterwards; default: K3s on this machine, where --root is /."


def cluster_of(root: Path, kubeconfig: Path | None) -> Cluster | None:
    """Return the cluster whose files lie below a root: the one that is named, else that of the server on this machine.

    Raises:
        UsageError: there is no kubectl.
    """
    if kubeconfig is not None:
        return kubectl.find(environment.variables(), kubeconfig)
    is_here = root.resolve() == Path("/") and kubectl.K3S_KUBECONFIG.is_file() and Path(f"/{BINARY}").is_file()
    return kubectl.of_node(environment.variables()) if is_here else None


def compare(site: Site, cluster: Cluster) -> None:
    """Refuse pods that keep running something else than the active drops have under their names.

    A release that the cluster has not taken yet is not judged: `airlift deploy status` waits for it.

    Raises:
        DeployError: with the list, and what to type.
        AirliftError: the drops cannot be read.
    """
    wanted, shipped = of_drops(site)
    try:
        states = releases.look(cluster, wanted, shipped)
    except AwayError as error:
        console.say(f"note: what runs was not compared ({error.message}); do so with: airlift deploy status")
        return
    releases.refuse_others(states)


def of_drops(site: Site) -> tuple[tuple[Expected, ...], Shipped]:
    """Return what the active drops have, to compare a cluster with.

    Raises:
        AirliftError: it cannot be read.
    """
    drops = active.required_drops(site)
    source = active.blobs(site, environment.http_settings(), console.progress())
    return expected.of_drops(drops, source, site.store.read), Shipped(Images(drops, source))
