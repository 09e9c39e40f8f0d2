"""Charts made on the spot, with every detail of their archive in the test's hand."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Mapping, Sequence

CHART_YAML = "apiVersion: v2\nname: {name}\nversion: {version}\n"


def archive(files: Mapping[str, bytes | str], *, top: str = "app", extra: Sequence[tarfile.TarInfo] = ()) -> bytes:
    """Return a .tgz of these files below `top`, then the `extra` members as they are."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for path, content in files.items():
            data = content.encode() if isinstance(content, str) else content
            info = tarfile.TarInfo(f"{top}/{path}" if top else path)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for info in extra:
            tar.addfile(info, io.BytesIO(bytes(info.size)))
    return gzip.compress(out.getvalue(), mtime=0)


def chart(
    name: str = "app", version: str = "1.0.0", files: Mapping[str, bytes | str] | None = None, more: str = ""
) -> bytes:
    """Return the .tgz of a chart; `more` is added to its Chart.yaml."""
    return archive({"Chart.yaml": CHART_YAML.format(name=name, version=version) + more, **(files or {})}, top=name)


def pod(image: str) -> str:
    """Return a template that runs one image."""
    return (
        "apiVersion: v1\nkind: Pod\nmetadata: {name: '{{ .Release.Name }}-one'}\n"
        f"spec:\n  containers:\n    - name: main\n      image: {image}\n"
    )
