"""What K3s does with its manifests folder: each file is an AddOn, applied when its content is another than before."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from airlift import digest
from airlift.site.deploy.helmchart import MANIFESTS
from tests import components

_ENDINGS = {".yaml", ".yml", ".json"}
_SYSTEM = "kube-system"
_LABEL = "objectset.rio.cattle.io/hash"
CRD = """\
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: addons.k3s.cattle.io}
spec:
  group: k3s.cattle.io
  scope: Namespaced
  names: {kind: Addon, plural: addons, singular: addon}
  versions:
    - name: v1
      served: true
      storage: true
      schema:
        openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}
"""


def _owner(stem: str) -> dict[str, str]:
    """What K3s writes into each object of an AddOn."""
    names = {"id": "", "owner-gvk": "k3s.cattle.io/v1, Kind=Addon", "owner-name": stem, "owner-namespace": _SYSTEM}
    return {f"objectset.rio.cattle.io/{name}": value for name, value in names.items()}


@dataclass
class Manifests:
    """The files, and which of them are to be applied.

    Attributes:
        root: what stands for the node's ``/``.
        applied: the digest of each AddOn that was applied.
    """

    root: Path
    applied: dict[str, str] = field(default_factory=dict)

    def start(self) -> None:
        """After a start every file is applied again, whatever it has."""
        self.applied.clear()

    def changed(self) -> Iterator[tuple[str, Path, bytes]]:
        """Yield AddOn, file and content of what is to be applied; it counts as applied when the next one is asked for."""
        for path in sorted((self.root / MANIFESTS).rglob("[!.]*")):
            if path.suffix not in _ENDINGS or path.with_name(f"{path.name}.skip").exists():
                continue
            stem, content = path.name.partition(".")[0], path.read_bytes()
            checksum = digest.of(content)
            if self.applied.get(stem) != checksum:
                yield stem, path, content
                self.applied[stem] = checksum


@dataclass
class Deployer:
    """Applies manifests to a cluster, and removes what they no longer name."""

    manifests: Manifests
    kubeconfig: Path
    enter: Sequence[str]

    def kubectl(self, *arguments: str, text: str = "") -> str:
        """Run kubectl and return what it prints.

        Raises:
            RuntimeError: it failed, with its words.
        """
        command = [*self.enter, str(components.require("kubectl")), f"--kubeconfig={self.kubeconfig}", *arguments]
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=120, check=False)
        if done.returncode:
            raise RuntimeError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def run(self) -> list[str]:
        """Apply what changed; return what was said about those that could not be, which are tried again."""
        said = []
        changed = self.manifests.changed()
        try:
            for stem, path, content in changed:
                self._apply(stem, path, content.decode())
        except (RuntimeError, subprocess.SubprocessError, UnicodeDecodeError) as error:
            said.append(str(error))
        return said

    def _apply(self, stem: str, path: Path, content: str) -> None:
        label = f"{_LABEL}={digest.hex_of(digest.of(stem.encode()))[:40]}"
        made = json.loads(self.kubectl("create", "--dry-run=client", "-o", "json", "-f", "-", text=content))
        items = made["items"] if made["kind"] == "List" else [made]
        for item in items:
            key, _, value = label.partition("=")
            item["metadata"].setdefault("labels", {})[key] = value
            item["metadata"].setdefault("annotations", {}).update(_owner(stem))
        new = [self._kind(item) for item in items]
        before = self._addon(stem).get("status", {}).get("gvks", [])
        kinds = [f"--prune-allowlist={kind}" for kind in sorted({*before, *new})]
        body = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
        self.kubectl("apply", "-f", "-", "--prune", "-l", label, *kinds, text=body)
        addon = {
            "apiVersion": "k3s.cattle.io/v1",
            "kind": "Addon",
            "metadata": {"name": stem, "namespace": _SYSTEM},
            "spec": {"source": str(path), "checksum": digest.hex_of(digest.of(content.encode()))},
            "status": {"gvks": sorted(set(new))},
        }
        self.kubectl("apply", "-f", "-", text=json.dumps(addon))

    def _kind(self, item: dict[str, str]) -> str:
        group, _, version = item["apiVersion"].rpartition("/")
        return f"{group or 'core'}/{version}/{item['kind']}"

    def _addon(self, stem: str) -> dict[str, dict[str, list[str]]]:
        text = self.kubectl("-n", _SYSTEM, "get", "addons.k3s.cattle.io", stem, "--ignore-not-found", "-o", "json")
        found: dict[str, dict[str, list[str]]] = json.loads(text) if text.strip() else {}
        return found
