"""The manifest: what a release engineer asks for, in YAML. See docs/manifest.md and `airlift schema manifest`.

The models say what one entry may be; `load` also compares the entries with each other, as far as their text alone
decides. What only a chart's or a registry's content can tell is `airlift.connected.resolver`'s to find out.
"""

from __future__ import annotations

import difflib
import re
import urllib.parse
from collections.abc import Hashable, Iterable, Iterator
from pathlib import Path, PurePosixPath
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

from airlift import oci, reference, yamldoc
from airlift.kinds import files
from airlift.yamldoc import Document, Problem, Where

API_VERSION = "airlift/v1"
KIND = "Drop"

Name = Annotated[
    str,
    StringConstraints(pattern=r"^[a-z0-9]([a-z0-9._-]*[a-z0-9])?$", max_length=63),
    Field(examples=["vision", "edge-2"]),
]
Text = Annotated[str, StringConstraints(min_length=1, max_length=1024)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$"), Field(examples=["64 lower-case hex digits"])]


def _platform(value: str) -> str:
    return str(oci.parse_platform(value))


def _path(value: str) -> str:
    if value.startswith("/") or "\x00" in value:
        raise ValueError(f"expected a path relative to the manifest, got {value!r}")
    return value


def _url(value: str) -> str:
    parts = urllib.parse.urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"expected a URL such as https://example.com/path, got {value[:100]!r}")
    try:
        _ = parts.port
    except ValueError:
        raise ValueError(f"expected a port below 65536 in {value[:100]!r}") from None
    if "@" in parts.netloc:
        # The lock repeats this URL, and it goes where the lock goes.
        raise ValueError(
            f"a URL must not carry credentials (host {parts.hostname}); put them into the client's own configuration"
        )
    return value


def _file_name(value: str) -> str:
    if any(part in ("", ".", "..") for part in value.split("/")):
        raise ValueError(f"expected a name without empty, '.' or '..' parts, got {value!r}")
    return value


def _complete(value: str) -> str:
    with yamldoc.refusals():
        return str(reference.parse(value))


PlatformName = Annotated[Text, AfterValidator(_platform)]
RelativePath = Annotated[Text, AfterValidator(_path)]
Url = Annotated[Text, AfterValidator(_url)]


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
        if not self.is_remote and self.as_ is None:
            raise ValueError("an image from a path or a daemon needs `as:`, its full name at the site")
        with yamldoc.refusals():
            named = self.site_name
            if self.is_remote:
                reference.parse(self.ref)
        if self.as_ is not None and named.digest:
            raise ValueError("`as:` names a tag, not a digest")
        return self

    @property
    def site_name(self) -> reference.Reference:
        """The full name under which the site will have it."""
        return reference.parse(self.as_ or self.ref)


class Target(Model):
    """One Python environment that wheels are for."""

    python: Annotated[
        str,
        StringConstraints(pattern=r"^3\.[0-9]{1,2}(\.[0-9]{1,2})?$"),
        Field(examples=["3.12"]),
    ]
    platform: PlatformName = "linux/amd64"
    libc: Annotated[
        str,
        StringConstraints(pattern=r"^(glibc|musl)-[0-9]{1,2}\.[0-9]{1,2}$"),
        Field(examples=["glibc-2.28", "musl-1.2"]),
    ] = "glibc-2.28"

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

    repo: Url | None = None
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
        if self.ref is not None:
            if not self.ref.startswith("oci://"):
                raise ValueError(f"expected oci://HOST/PATH:VERSION, got {self.ref[:100]!r}")
            with yamldoc.refusals():
                self._reference(self.ref)
        return self

    @staticmethod
    def _reference(ref: str) -> reference.Reference:
        # Helm writes a version's + as _ in a tag, and people write the version.
        return reference.parse(ref.removeprefix("oci://").replace("+", "_"))

    @property
    def likely_name(self) -> str:
        """The chart's name as far as the manifest tells: for a path, its last part, which Chart.yaml may contradict."""
        if self.ref is not None:
            return self._reference(self.ref).repository.rpartition("/")[2]
        return self.name or PurePosixPath(self.path or "").name


class ModelWeights(Model):
    """Model weights: {repo, revision} of a hub, or a directory {path, name}."""

    repo: Text | None = None
    revision: Text = "main"
    endpoint: Url | None = Field(default=None, description="base URL of another hub")
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

    url: Url | None = None
    path: RelativePath | None = None
    name: Annotated[
        str,
        StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+/-]*$", max_length=255),
        Field(examples=["k3s", "tools/install.sh"]),
        AfterValidator(_file_name),
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
    namespace: Annotated[
        str,
        StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"),
        Field(examples=["vision"]),
    ] = "default"
    release: (
        Annotated[
            str,
            StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,48}[a-z0-9])?$"),
            Field(examples=["vision-edge"]),
        ]
        | None
    ) = None
    values: list[RelativePath] = Field(default_factory=list)


class K3s(Model):
    """What the nodes themselves get."""

    preload: list[Annotated[Text, AfterValidator(_complete)]] = Field(
        default_factory=list,
        description="images that go to agent/images as tarballs",
    )


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
    images: list[Annotated[Image, BeforeValidator(_short_image, json_schema_input_type=Image | str)]] = Field(
        default_factory=list
    )
    python: list[Python] = Field(default_factory=list)
    charts: list[Annotated[Chart, BeforeValidator(_short_chart, json_schema_input_type=Chart | str)]] = Field(
        default_factory=list
    )
    models: list[ModelWeights] = Field(default_factory=list)
    files: list[File] = Field(default_factory=list)
    deploy: list[Deploy] = Field(default_factory=list)
    k3s: K3s = Field(default_factory=K3s)


def load(path: Path) -> Manifest:
    """Read a manifest.

    Raises:
        UnsupportedVersionError: it is a document of another version or kind.
        ManifestError: it cannot be read, or is not a manifest; the message has a line for every problem.
    """
    return decode(yamldoc.load(path))


def decode(document: Document) -> Manifest:
    """Return the manifest that a document is; see `load`."""
    yamldoc.check_version(document, api_version=API_VERSION, kind=KIND)
    manifest = yamldoc.validate(Manifest, document)
    problems = list(_conflicts(manifest))
    if problems:
        raise yamldoc.refusal(document, problems)
    return manifest


def _conflicts(manifest: Manifest) -> Iterator[Problem]:
    """What is wrong between entries that are each right."""
    # Names that differ in case only would be one file on the media and desktops that drops travel over.
    yield from _twice("images", ((str(item.site_name), str(item.site_name)) for item in manifest.images))
    yield from _twice("python", ((item.name, item.name) for item in manifest.python))
    yield from _twice("charts", map(_chart_key, manifest.charts))
    yield from _twice("models", (((item.id.lower(), item.revision), item.id) for item in manifest.models))
    yield from _twice("files", ((item.name.lower(), item.name) for item in manifest.files))
    names = [item.name for item in manifest.files]
    for number, other in files.nested(names):
        yield Problem(("files", number), f"{names[number]} is below {names[other]}, which is a file: files[{other}]")
    yield from _twice(
        "deploy",
        (
            ((item.namespace, item.release or item.chart), f"{item.namespace}/{item.release or item.chart}")
            for item in manifest.deploy
        ),
    )
    for number, target in enumerate(manifest.python):
        yield from _twice(("python", number, "targets"), ((str(item), str(item)) for item in target.targets))
    yield from _unknown_charts(manifest)


def _chart_key(chart: Chart) -> tuple[Hashable, str]:
    if chart.path is not None:
        return ("path", PurePosixPath(chart.path)), chart.path
    if chart.ref is not None:
        return ("ref", chart.ref, chart.version), chart.ref
    return ("name", chart.name, chart.version), f"{chart.name} {chart.version}"


def _twice(where: str | Where, keys: Iterable[tuple[Hashable, str]]) -> Iterator[Problem]:
    place: Where = (where,) if isinstance(where, str) else where
    first: dict[Hashable, int] = {}
    for number, (key, shown) in enumerate(keys):
        if key in first:
            yield Problem((*place, number), f"{shown} is there twice, first as {yamldoc.show((*place, first[key]))}")
        first.setdefault(key, number)


def _unknown_charts(manifest: Manifest) -> Iterator[Problem]:
    if any(chart.path is not None for chart in manifest.charts):
        return
    names = {chart.likely_name for chart in manifest.charts}
    for number, item in enumerate(manifest.deploy):
        if item.chart not in names:
            close = difflib.get_close_matches(item.chart, sorted(names), n=1)
            hint = f"did you mean {close[0]!r}?" if close else "list the chart under `charts`"
            yield Problem(("deploy", number, "chart"), f"no chart of this manifest is named {item.chart!r}", hint)
