"""Real wheels for two targets, fetched once from the machine's package index, and a static index of them."""

from __future__ import annotations

import hashlib
import html
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from airlift.kinds.wheels import parse_filename, parse_metadata, read_metadata
from tests.components import ROOT, missing

PROJECTS = ("cryptography", "numpy", "rich", "pydantic", "click")
_FOREIGN = ("--python-version", "3.12", "--implementation", "cp", "--platform", "musllinux_1_2_aarch64")

NGINX = r"""
location /simple/ {
  types { text/html html; application/vnd.pypi.simple.v1+json json; }
  add_header Vary Accept;
  index index.html;
  if ($http_accept ~ "simple\.v1\+json") { rewrite ^(/simple/.*)/$ $1/index.json; }
}
"""

NGINX_HTML = "location /simple/ { types { text/html html; } index index.html; }"


def real_wheels() -> list[Path]:
    """Wheels of `PROJECTS` with all they need, for this Python on this machine and for 3.12 on ARM with musl."""
    folder = ROOT / ".cache" / "wheels"
    if not (folder / "complete").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        for target in ((), (*_FOREIGN, "--platform", "musllinux_1_1_aarch64")):
            command = [sys.executable, "-m", "pip", "download", "-q", "--only-binary", ":all:", "-d", str(folder)]
            done = subprocess.run([*command, *target, *PROJECTS], capture_output=True, text=True, check=False)
            if done.returncode != 0:
                missing(f"no package index gives real wheels: {done.stderr.strip()[-300:]}")
        (folder / "complete").touch()
    return sorted(folder.glob("*.whl"))


def static_index(root: Path, wheels: Sequence[Path], *, with_json: bool = True, with_metadata: bool = True) -> None:
    """Write what a static server needs to be an index of these wheels."""
    (root / "files").mkdir(parents=True)
    pages: dict[str, list[dict[str, object]]] = {}
    for wheel in wheels:
        name = parse_filename(wheel.name)
        (root / "files" / wheel.name).symlink_to(wheel)
        with wheel.open("rb") as stream:
            metadata = read_metadata(stream, wheel=name)
            sha256 = hashlib.file_digest(stream, "sha256").hexdigest() if stream.seek(0) == 0 else ""
        said = parse_metadata(metadata, wheel=name)
        file: dict[str, object] = {
            "filename": wheel.name,
            "url": f"../../files/{quote(wheel.name)}",
            "hashes": {"sha256": sha256},
            "size": wheel.stat().st_size,
            "requires-python": said.requires_python,
        }
        if with_metadata:
            (root / "files" / f"{wheel.name}.metadata").write_bytes(metadata)
            file["core-metadata"] = {"sha256": hashlib.sha256(metadata).hexdigest()}
        pages.setdefault(name.project, []).append(file)
    for project, files in pages.items():
        place = root / "simple" / project
        place.mkdir(parents=True)
        (place / "index.html").write_text("\n".join(_anchor(file) for file in files))
        if with_json:
            page = {"meta": {"api-version": "1.1"}, "name": project, "files": files}
            (place / "index.json").write_text(json.dumps(page))


def _anchor(file: dict[str, object]) -> str:
    hashes, core = file["hashes"], file.get("core-metadata")
    python = html.escape(str(file["requires-python"] or ""))
    more = f' data-core-metadata="sha256={core["sha256"]}"' if isinstance(core, dict) else ""
    sha256 = hashes["sha256"] if isinstance(hashes, dict) else ""
    return f'<a href="{file["url"]}#sha256={sha256}" data-requires-python="{python}"{more}>{file["filename"]}</a><br>'
