"""What clients are told so that they use a site; for `airlift status --client`."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping
from typing import Final
from urllib.parse import urlsplit

from airlift.artifact import Kind
from airlift.errors import UsageError
from airlift.reference import DEFAULT_REGISTRY
from airlift.site import drops
from airlift.site.config import Site


def client_config(site: Site, client: str) -> str:
    """Return configuration for a client, with where it belongs in comments.

    Args:
        site: what to use.
        client: ``pip``, ``uv``, ``helm``, ``containerd`` or ``hf``.

    Raises:
        UsageError: the client is another.
        StoreError: the active drops cannot be read.
    """
    writer = CLIENTS.get(client)
    if writer is None:
        raise UsageError(f"no configuration for client {client!r}", hint=f"one of {', '.join(sorted(CLIENTS))}")
    return writer(site)


def _pip(site: Site) -> str:
    url = _package_index(site)
    parts = urlsplit(url)
    trusted = f"trusted-host = {parts.netloc}\n" if parts.scheme == "http" else ""
    return f"# /etc/pip.conf or ~/.config/pip/pip.conf\n[global]\nindex-url = {url}\n{trusted}"


def _package_index(site: Site) -> str:
    python = site.config.python
    return f"{site.config.url}/simple/" if python is None else f"{python.index.rstrip('/')}/"


def _uv(site: Site) -> str:
    return (
        "# /etc/uv/uv.toml or ~/.config/uv/uv.toml\n"
        f'[[index]]\nname = "airlift"\nurl = "{_package_index(site)}"\ndefault = true\n'
    )


def _helm(site: Site) -> str:
    registry = site.config.registry
    base = site.config.url if registry is None else registry.url
    parts = urlsplit(base)
    plain = " --plain-http" if parts.scheme == "http" else ""
    if registry is not None and registry.ca is not None:
        plain = f" --ca-file {shlex.quote(_ca(site, registry.ca))}"
    path = "charts" if registry is None else registry.repository("charts")
    lines = ["# a chart from a path or a chart repository; one from a registry keeps its registry in the path"]
    if registry is None:
        lines = [f"helm repo add airlift {site.config.url}/charts", "helm pull airlift/NAME --version VERSION", *lines]
    else:
        lines.append(f"helm registry login {parts.netloc}")
    return "\n".join([*lines, f"helm pull oci://{parts.netloc}/{path}/NAME --version VERSION{plain}", ""])


def _containerd(site: Site) -> str:
    registry = site.config.registry
    blocks = []
    for source in _source_registries(site):
        if registry is None:
            base, is_path = site.config.url, bool(urlsplit(site.config.url).path)
            endpoint = f"{base}/v2" if is_path else base
        else:
            # It does not know ?ns=, so each source registry is a path of its own.
            parts = urlsplit(registry.url)
            path = registry.repository(source.replace(":", "_"))
            endpoint, is_path = f"{parts.scheme}://{parts.netloc}/v2/{path}", True
        lines = [
            f"# /etc/containerd/certs.d/{source}/hosts.toml",
            f'[host."{endpoint}"]',
            '  capabilities = ["pull", "resolve"]',
        ]
        if is_path:
            lines.append("  override_path = true")
        if registry is not None and registry.ca is not None:
            # A string of TOML is one of JSON.
            lines.append(f"  ca = {json.dumps(_ca(site, registry.ca), ensure_ascii=False)}")
        blocks.append("\n".join([*lines, ""]))
    hint = (
        '# containerd 2: config_path = "/etc/containerd/certs.d" under plugins."io.containerd.cri.v1.images".registry\n'
        "# K3s has no hosts.toml of its own: airlift deploy k3s writes its registries.yaml\n"
    )
    return "\n".join([hint, *blocks])


def _ca(site: Site, path: str) -> str:
    """Return a path of site.yaml that holds wherever a client starts."""
    return str((site.root / path).absolute())


def _hf(site: Site) -> str:
    return f"# environment of huggingface_hub, transformers, vllm ...\nHF_ENDPOINT={site.config.url}/hf\n"


def _source_registries(site: Site) -> list[str]:
    names = [item.name for drop in drops.active_drops(site) for item in drop.artifacts if item.kind is Kind.IMAGE]
    return sorted({name.partition("/")[0] for name in names} or {DEFAULT_REGISTRY})


CLIENTS: Final[Mapping[str, Callable[[Site], str]]] = {
    "pip": _pip,
    "uv": _uv,
    "helm": _helm,
    "containerd": _containerd,
    "hf": _hf,
}
