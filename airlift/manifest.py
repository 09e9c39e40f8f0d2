"""The manifest: what a release engineer asks for, in YAML. See docs/manifest.md and `airlift schema manifest`.

Models only; `airlift.yamldoc` reads the document and says where an error is.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

from airlift import oci, reference

API_VERSION = "airlift/v1"

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9._-]*[a-z0-9])?$", max_length=63)]
Text = Annotated[str, StringConstraints(min_length=1, max_length=1024)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


def _platform(value: str) -> str:
    return str(oci.parse_platform(value))


def _path(value: str) -> str:
    if value.startswith("/") or "\x00" in value:
        raise ValueError("expected a path relative to the manifest")
    return value


PlatformName = Annotated[Text, AfterValidator(_platform)]
RelativePath = Annotated[Text, AfterValidator(_path)]


class Model(BaseModel):
    """Base: unknown keys are errors, values are not coerced, instances do not change."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, populate_by_name=True)


class Metadata(Model):
    """Names the drop."""

    name: Name
    channel: Name = "stable"
    labels: dict[Text, str] = Field(default_factory=dict)


class Image(Model):
    """A container image: from a registry, ``oci-layout:PATH:REF`` or ``docker-daemon:NAME:TAG``."""

    ref: Text
    as_: Text | None = Field(
        default=None,
        alias="as",
        description="name at the site; needed for an image from a path",
    )
    platforms: list[PlatformName] | Literal["all"] | None = Field(default=None, description="default: the manifest's")
    plain_http: bool = Field(
        default=False,
        description="allow http to this registry; loopback is always allowed",
    )

    @property
    def is_remote(self) -> bool:
        """Whether a registry has it."""
        return not self.ref.startswith(("oci-layout:", "docker-daemon:"))

    @model_validator(mode="after")
    def _names(self) -> Self:
        if self.is_remote:
            reference.parse(self.ref)
        elif self.as_ is None:
            raise ValueError("an image from a path or a daemon needs `as:`, its full name at the site")
        if self.as_ is not None and reference.parse(self.as_).digest:
            raise ValueError("`as:` names a tag, not a digest")
        return self

    @property
    def site_name(self) -> reference.Reference:
        """The full name under which the site will have it."""
        return reference.parse(self.as_ or self.ref)


class Target(Model):
    """One Python environment that wheels are for."""

    python: Annotated[str, StringConstraints(pattern=r"^3\.[0-9]{1,2}(\.[0-9]{1,2})?$")]
    platform: PlatformName = "linux/amd64"
    libc: Annotated[str, StringConstraints(pattern=r"^(glibc|musl)-[0-9]{1,2}\.[0-9]{1,2}$")] = "glibc-2.28"

    def __str__(self) -> str:
        return f"{self.python}-{self.platform.replace('/', '-')}-{self.libc}"


class Python(Model):
    """A set of Python requirements, resolved for each target."""

    name: Name
    requirements: list[RelativePath] = Field(default_factory=list)
    packages: list[Text] = Field(default_factory=list)
    targets: Annotated[list[Target], Field(min_length=1)]
    allow_sdist: bool = Field(
        default=False,
        description="build a wheel where an index has only a source distribution",
    )

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.requirements and not self.packages:
            raise ValueError("expected `requirements` or `packages`")
        return self


class Chart(Model):
    """A Helm chart: {repo, name, version}, {ref: oci://...} or {path: ...}."""

    repo: Text | None = None
    name: Text | None = None
    version: Text | None = None
    ref: Text | None = None
    path: RelativePath | None = None
    values: list[RelativePath] = Field(default_factory=list, description="values files to render with, for its images")
    plain_http: bool = False

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(item is not None for item in (self.repo, self.ref, self.path)) != 1:
            raise ValueError("expected exactly one of `repo`, `ref`, `path`")
        if self.repo is not None and (self.name is None or self.version is None):
            raise ValueError("a chart from a repository needs `name` and `version` (a range is fine)")
        if self.ref is not None and not self.ref.startswith("oci://"):
            raise ValueError("expected oci://HOST/PATH:VERSION")
        return self


class ModelWeights(Model):
    """Model weights: {repo, revision} of a hub, or a directory {path, name}."""

    repo: Text | None = None
    revision: Text = "main"
    endpoint: Text | None = Field(default=None, description="base URL of another hub")
    path: RelativePath | None = None
    name: Text | None = None
    licence: Text | None = None
    include: list[Text] = Field(default_factory=list)
    exclude: list[Text] = Field(default_factory=list)
    unsafe_files: list[Text] = Field(
        default_factory=list,
        description="files that may execute code when they are loaded",
    )

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.repo is None) == (self.path is None):
            raise ValueError("expected exactly one of `repo`, `path`")
        if self.path is not None and self.name is None:
            raise ValueError("a model from a path needs `name`, such as acme/fraud")
        if (
            re.fullmatch(
                r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}(/[A-Za-z0-9][A-Za-z0-9._-]{0,95})?",
                self.id,
            )
            is None
        ):
            raise ValueError(f"{self.id!r} is not a model id, such as org/model")
        return self

    @property
    def id(self) -> str:
        """The model's id at the site's hub."""
        return self.name or self.repo or ""


class File(Model):
    """A file by URL or path."""

    url: Text | None = None
    path: RelativePath | None = None
    name: Annotated[
        str,
        StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+/-]*$", max_length=255),
    ]
    sha256: Sha256 | None = None
    plain_http: bool = False

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.url is None) == (self.path is None):
            raise ValueError("expected exactly one of `url`, `path`")
        return self


class Deploy(Model):
    """A chart of this drop that the cluster runs."""

    chart: Text
    namespace: Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")] = "default"
    release: Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,51}[a-z0-9])?$")] | None = None
    values: list[RelativePath] = Field(default_factory=list)


class K3s(Model):
    """What the nodes themselves get."""

    preload: list[Text] = Field(default_factory=list, description="images that go to agent/images as tarballs")


def _short_image(value: Any) -> Any:
    return {"ref": value} if isinstance(value, str) else value


def _short_chart(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return {"ref": value} if value.startswith("oci://") else {"path": value}


class Manifest(Model):
    """The whole document."""

    api_version: Literal["airlift/v1"] = Field(alias="apiVersion")
    kind: Literal["Drop"]
    metadata: Metadata
    platforms: Annotated[list[PlatformName], Field(min_length=1)] = ["linux/amd64"]
    images: list[Annotated[Image, BeforeValidator(_short_image)]] = Field(default_factory=list)
    python: list[Python] = Field(default_factory=list)
    charts: list[Annotated[Chart, BeforeValidator(_short_chart)]] = Field(default_factory=list)
    models: list[ModelWeights] = Field(default_factory=list)
    files: list[File] = Field(default_factory=list)
    deploy: list[Deploy] = Field(default_factory=list)
    k3s: K3s = Field(default_factory=K3s)
