"""The name that K3s gives a machine in its cluster: the administrator's choice, else the machine's, in lower case."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Any, Final

from airlift import fs, limits
from airlift.errors import DeployError, IntegrityError
from airlift.kinds import chart_yaml
from airlift.site.deploy.files import locate
from airlift.site.deploy.prechecks import Finding, Level

SETTINGS: Final = PurePosixPath("etc/rancher/k3s/config.yaml.d")
NODE_ID: Final = PurePosixPath("etc/rancher/node/id")
_HOSTNAME: Final = PurePosixPath("proc/sys/kernel/hostname")
_ENDINGS: Final = frozenset({".yaml", ".yml"})
# It is a label's value, too, and those have at most 63 characters.
_VALID = re.compile(r"(?=.{1,63}$)[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")


def find(root: Path) -> str | None:
    """Return the node's name; None while K3s has not drawn the id that `with-node-id` asks for.

    Raises:
        DeployError: a settings file is not YAML, or a symbolic link leads out of the root.
        StoreError: a file cannot be read.
    """
    chosen = _settings(root)
    name = str(chosen.get("node-name") or _hostname(root)).lower()
    if str(chosen.get("with-node-id", False)).lower() != "true":
        return name
    place = locate(root, NODE_ID)
    return f"{name}-{fs.first_line(place, limits.NAME)}" if place.is_file() else None


def look(root: Path) -> Finding:
    """Return what was found about the name.

    Raises:
        DeployError, StoreError: see `find`.
    """
    name = str(_settings(root).get("node-name") or _hostname(root)).lower()
    if _VALID.fullmatch(name):
        return Finding("name", Level.OK, name)
    return Finding(
        "name",
        Level.REFUSE,
        f"{name!r} is no name for a node: letters, digits, - and ., at most 63",
        f"change it with hostnamectl set-hostname, or write node-name: NAME into /{SETTINGS}/name.yaml",
    )


def _hostname(root: Path) -> str:
    return fs.read_bounded(root / _HOSTNAME, limits.NAME).decode("utf-8", "replace").strip()


def _settings(root: Path) -> dict[str, Any]:
    """Return the administrator's settings; as with K3s a later file wins, in the order of their names."""
    folder = locate(root, SETTINGS / "x").parent
    with fs.guarded("reading"):
        places = sorted(place for place in folder.glob("*") if place.suffix in _ENDINGS and place.is_file())
    found: dict[str, Any] = {}
    for place in places:
        data = fs.read_bounded(place, limits.DOCUMENT)
        try:
            value = next(chart_yaml.load_all(data, subject=str(place), limit=limits.DOCUMENT), None)
        except IntegrityError as error:
            raise DeployError(error.message, hint="mend it: K3s would not start with it") from None
        found |= value if isinstance(value, dict) else {}
    return found
