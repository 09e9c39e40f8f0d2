"""``registries.yaml``: where K3s asks for the images of each source registry.

K3s ignores what it does not know, and an entry with a typo vanishes; so the file is written from a schema of ours. A
registry without an entry under ``mirrors:`` is asked directly, by HTTPS only: every source registry gets one. An entry
under ``configs:`` takes its registry out of ``--disable-default-registry-endpoint``: only endpoints get one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from airlift import reference
from airlift.artifact import DropConfig, Kind
from airlift.errors import DeployError
from airlift.site.deploy import documents
from airlift.site.deploy.files import PlannedFile, locate, plan_bytes

PATH: Final = PurePosixPath("etc/rancher/k3s/registries.yaml")
_MODE: Final = 0o600
_CA_MODE: Final = 0o644
_LOCAL_CHARTS: Final = "charts/"
_HIDDEN: Final = "(not shown)"

Host = Annotated[
    str, StringConstraints(pattern=r"^(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?)(:[0-9]{1,5})?$")
]
Url = Annotated[str, StringConstraints(pattern=r"^https?://[^\s/@?#]+(/[^\s?#]*)?$")]
Text = Annotated[str, StringConstraints(min_length=1, max_length=4096, pattern=r"^[^\x00-\x1f\x7f]+$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Mirror(_Strict):
    """Where one registry's images are asked for."""

    endpoint: Annotated[list[Url], Field(min_length=1)]


class Auth(_Strict):
    """Who asks. K3s knows two more keys here, and no ``token``."""

    username: Text
    password: Text


class Tls(_Strict):
    """Whose certificate is accepted."""

    ca_file: Text


class HostConfig(_Strict):
    """How one endpoint's host is reached."""

    auth: Auth | None = None
    tls: Tls | None = None


class Registries(_Strict):
    """The whole file, as far as we write it."""

    mirrors: dict[Host, Mirror]
    configs: dict[Host, HostConfig] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the site's registry is.

    Attributes:
        base: URL under which each source registry is a path: ``http://10.0.0.1:8080/v2``, or with a path behind it.
        ca_path: where the node gets the certificates that its server is checked against, relative to the root, or None.
        ca: those certificates.
        username, password: credentials, or None.
        place: gives the path of a source registry, written `host_port`, below `base`.
    """

    base: str
    ca_path: PurePosixPath | None = None
    ca: bytes | None = field(default=None, repr=False)
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    place: Callable[[str], str] = str

    @property
    def host(self) -> str:
        """Host and port, as they stand in `base`."""
        return urlsplit(self.base).netloc

    def url(self, registry: str) -> str:
        """Return where a source registry's repositories are."""
        return f"{self.base.rstrip('/')}/{self.place(registry.replace(':', '_'))}".rstrip("/")


def site_endpoint(url: str) -> Endpoint:
    """Return the endpoint of a site that serves its own registry at `url`."""
    return Endpoint(f"{url.rstrip('/')}/v2")


def source_registries(drops: Iterable[DropConfig]) -> tuple[str, ...]:
    """Return every registry that an image or chart of these drops is named after."""
    names = {
        artifact.name
        for drop in drops
        for artifact in drop.artifacts
        if artifact.kind is Kind.IMAGE or (artifact.kind is Kind.CHART and not artifact.name.startswith(_LOCAL_CHARTS))
    }
    return tuple(sorted({reference.parse(name).registry for name in names}))


def plan_registries(root: Path, registries: Sequence[str], endpoint: Endpoint) -> tuple[PlannedFile, ...]:
    """Return the plans for the file, and for the certificates that it names; nothing when no image needs it.

    Entries that an earlier drop needed stay: what runs from it goes on pulling.

    Raises:
        DeployError: a file is there that we did not write, or the endpoint does not make a valid file.
        StoreError: the disk cannot be read.
    """
    place = locate(root, PATH)
    found, data = documents.origin(place)
    documents.refuse_strangers(
        place,
        found,
        hint="move it away and run the same command again; entries of your own cannot live in this file yet",
    )
    hosts = sorted({*registries, *_hosts(data)})
    if not hosts:
        return ()
    content = _build(hosts, endpoint).model_dump(exclude_none=True, exclude_defaults=True)
    comment = "K3s reads this file when it starts: restart it after a change."
    shown = documents.dump(_hide(content), comment=comment).decode()
    data = documents.dump(content, comment=comment)
    own = plan_bytes(root, PATH, data, mode=_MODE, text=shown, is_secret=endpoint.password is not None)
    if endpoint.ca_path is None or endpoint.ca is None:
        return (own,)
    return plan_bytes(root, endpoint.ca_path, endpoint.ca, mode=_CA_MODE, text=endpoint.ca.decode("latin-1")), own


def _build(hosts: Sequence[str], endpoint: Endpoint) -> Registries:
    auth = None
    if endpoint.username is not None:
        auth = {"username": endpoint.username, "password": endpoint.password}
    tls = {"ca_file": f"/{endpoint.ca_path}"} if endpoint.ca_path is not None else None
    try:
        return Registries.model_validate(
            {
                "mirrors": {host: {"endpoint": [endpoint.url(host)]} for host in hosts},
                "configs": {endpoint.host: {"auth": auth, "tls": tls}} if auth or tls else {},
            }
        )
    except ValidationError as error:
        # The input may be a password: only the place is passed on.
        where = ", ".join(".".join(str(part) for part in item["loc"]) for item in error.errors())
        raise DeployError(
            f"registries.yaml would be wrong at {where}", hint="check url and registry in site.yaml"
        ) from None


def _hosts(data: bytes) -> list[str]:
    """Return the mirrored registries of our own earlier file."""
    if not data:
        return []
    try:
        node = yaml.compose(data, Loader=yaml.SafeLoader)
        value = yaml.SafeLoader("").construct_document(node)
        return list(Registries.model_validate(value).mirrors)
    except (yaml.YAMLError, ValidationError):
        # It has our digest, so an older airlift wrote it in another shape: its entries are made anew.
        return []


def _hide(content: Mapping[str, Any]) -> dict[str, Any]:
    configs = {
        host: {**config, **({"auth": {**config["auth"], "password": _HIDDEN}} if "auth" in config else {})}
        for host, config in content.get("configs", {}).items()
    }
    return {**content, **({"configs": configs} if configs else {})}
