"""What site.yaml says (docs/site.md, ``airlift schema site``)."""

from __future__ import annotations

import re
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from airlift import limits

DEFAULT_LISTEN = "127.0.0.1:8080"
MAPPING = "{registry}/{repository}"
_CA = "file with the certificates that it is checked against, or directory of them as openssl rehash makes it"


def _address(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError(f"expected a URL such as http://mirror.example:8080, got {value[:100]!r}")
    if "@" in parts.netloc:
        raise ValueError("a URL must not carry credentials; use username and password_file")
    try:
        _ = parts.port
    except ValueError:
        raise ValueError(f"expected a port below 65536 in {value[:100]!r}") from None
    # Case says nothing in these two, but names of images and files of nodes are made of them.
    return parts._replace(scheme=parts.scheme.lower(), netloc=parts.netloc.lower()).geturl()


def _url(value: str) -> str:
    return _address(value).rstrip("/")


def _before_repositories(value: str) -> str:
    path = urlsplit(value).path.strip("/")
    if path and not re.fullmatch(r"(?:[a-z0-9]+(?:[._-]+[a-z0-9]+)*/)+", f"{path}/"):
        raise ValueError(
            f"expected lower-case letters, digits and . _ - in the path, as repositories have: {path[:100]!r}"
        )
    return value


def _listen(value: str) -> str:
    split_listen(value)
    return value


def split_listen(value: str) -> tuple[str, int]:
    """Return host and port of ``HOST:PORT`` or ``[IPv6]:PORT``; port 0 lets the system choose.

    Raises:
        ValueError: it has another form.
    """
    host, colon, port = value.rpartition(":")
    is_v6 = host.startswith("[") and host.endswith("]")
    number = int(port) if port.isascii() and port.isdecimal() else -1
    if not colon or not host or (":" in host and not is_v6) or not 0 <= number <= 65535:  # noqa: PLR2004 - TCP's bound
        raise ValueError(f"expected HOST:PORT such as {DEFAULT_LISTEN}, got {value[:100]!r}")
    return host.strip("[]"), number


Text = Annotated[str, StringConstraints(min_length=1, max_length=limits.NAME, pattern=r"^[^\x00-\x1f\x7f]+$")]


def _place(value: str) -> str:
    if value.startswith("~"):
        raise ValueError(
            f"~ stands for no directory here: write the whole path in place of {value[:100]!r}; ./~ begins the name of"
            " a file that begins with ~"
        )
    return value


def _mapping(value: str) -> str:
    rest = value.replace("{registry}", "r", 1).removesuffix("{repository}")
    if not value.endswith("{repository}") or not re.fullmatch(r"(?:[a-z0-9]+(?:[._-]+[a-z0-9]+)*/)*", rest):
        raise ValueError(f"expected a path such as {MAPPING} that ends with {{repository}}, got {value[:100]!r}")
    return value


Place = Annotated[Text, AfterValidator(_place)]
"""A path; one that is relative is relative to the site's directory."""

Mapping = Annotated[Text, AfterValidator(_mapping), Field(examples=[MAPPING])]
Url = Annotated[Text, AfterValidator(_url), Field(examples=["http://mirror.example:8080"])]
RegistryUrl = Annotated[Url, AfterValidator(_before_repositories)]
Address = Annotated[Text, AfterValidator(_address)]
"""A URL as it is written: some indexes tell ``/legacy`` and ``/legacy/`` apart."""

Listen = Annotated[Text, AfterValidator(_listen), Field(examples=[DEFAULT_LISTEN])]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class PullAccount(_Strict):
    """An account that may only pull."""

    username: Text
    password_file: Place = Field(description="file whose first line is the password")


class RegistryConfig(_Strict):
    """A registry that takes the images and charts in place of the embedded one."""

    url: RegistryUrl = Field(description="its address; a path behind it is put before every repository")
    ca: Place | None = Field(default=None, description=_CA)
    username: Text | None = None
    password_file: Place | None = Field(default=None, description="file whose first line is the password")

    kind: Literal["oci", "harbor"] = Field(default="oci", description="harbor: its projects, quotas and rules are used")
    mapping: Mapping = Field(default=MAPPING, description="the repository of an image")
    depth: int | None = Field(
        default=None, ge=1, le=60, description="most parts of {repository}; the last takes the rest, joined with -"
    )
    project: Text | None = Field(
        default=None, pattern=r"^[a-z0-9]+(?:[._-][a-z0-9]+)*$", description="one project that takes everything"
    )
    pull: PullAccount | Literal["anonymous"] | None = Field(
        default=None, description="what nodes of K3s pull with; without it the account of the import"
    )
    public: bool = Field(default=False, description="whether projects that are made may be pulled from by everybody")
    storage_limit: int = Field(
        default=-1, ge=-1, le=2**50, description="bytes for a project that is made; -1: no bound; 0: as Harbor has it"
    )

    @model_validator(mode="after")
    def _has_account(self) -> RegistryConfig:
        if self.kind == "harbor" and (self.username is None or self.password_file is None):
            raise ValueError("kind: harbor needs username and password_file")
        return self

    @property
    def host(self) -> str:
        """``host[:port]``."""
        return urlsplit(self.url).netloc

    @property
    def place(self) -> str:
        """Where images are: another one says that what was there is to be looked for elsewhere."""
        prefix = urlsplit(self.url).path.strip("/")
        mapped = "/".join(part for part in (prefix, self.project, self.mapping.strip("/")) if part)
        depth = "" if self.depth is None else f" (depth {self.depth})"
        return f"{self.host}/{mapped.removesuffix(MAPPING)}".rstrip("/") + depth

    def repository(self, path: str) -> str:
        """Return the repository of a mirror path, such as ``docker.io/library/redis``, in this registry.

        A path without a slash is a source registry; what is returned is before all its repositories.
        """
        registry, _, rest = path.partition("/")
        parts = rest.split("/")
        if self.depth is not None and len(parts) > self.depth:
            parts[self.depth - 1 :] = ["-".join(parts[self.depth - 1 :])]
        mapped = self.mapping.replace("{registry}", registry).replace("{repository}", "/".join(parts))
        prefix = urlsplit(self.url).path.strip("/")
        return "/".join(part for part in (prefix, self.project, mapped.strip("/")) if part)


class IndexConfig(_Strict):
    """A Python package index that gets the wheels beside the embedded one."""

    upload: Address = Field(description="where twine would upload to", examples=["https://devpi.example/ops/site/"])
    index: Address = Field(description="what pip reads", examples=["https://devpi.example/ops/site/+simple/"])
    ca: Place | None = Field(default=None, description=_CA)
    username: Text | None = None
    password_file: Place | None = Field(default=None, description="file whose first line is the password")


class TlsConfig(_Strict):
    """The certificate that `airlift serve` answers with."""

    certificate: Place = Field(description="file with the PEM chain, the site's own certificate first")
    key: Place = Field(description="file with its PEM key, without a passphrase")


class SiteConfig(_Strict):
    """site.yaml. Relative paths are relative to its directory."""

    url: Url = Field(description="where clients reach the site")
    listen: Listen = Field(default=DEFAULT_LISTEN, description="where `airlift serve` listens")
    identity: Place | None = Field(default=None, description="the site's private key, which opens its bundles")
    passphrase_file: Place | None = Field(default=None, description="file whose first line opens the identity")
    registry: RegistryConfig | None = None
    python: IndexConfig | None = None
    tls: TlsConfig | None = None
