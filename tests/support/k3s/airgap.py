"""The images that K3s itself needs, as a node without a network gets them: pause and klipper-helm, made here."""

from __future__ import annotations

from pathlib import Path

from airlift.site.deploy.tarball import FOLDER
from tests import components
from tests.support.drops import AMD64, drops_at
from tests.support.tarballs import write_tarball

PAUSE = "docker.io/rancher/mirrored-pause:3.6"
KLIPPER = "docker.io/rancher/klipper-helm:v0.9.14-build20260210"
_APPLETS = ("sh", "sleep", "cat", "sed", "grep", "cut", "base64", "ls", "head")
_ENTRY = Path(__file__).with_name("klipper-helm.sh")


def write_images(root: Path, work: Path) -> None:
    """Write them into the node's folder, as somebody who installs K3s without a network does."""
    drops = drops_at(work)
    program = components.require("busybox").read_bytes()
    shell: dict[str, bytes | str] = {"bin/": b"", "bin/busybox": program}
    shell |= {f"bin/{name}": "busybox" for name in _APPLETS}
    pause = drops.image(PAUSE, shell, platforms=[AMD64], command=["/bin/sleep", "2000000000"])
    home = {f"{folder}/": b"" for folder in ("home", "home/klipper-helm", "tmp", "config", "chart")}
    tools = {"bin/helm": components.require("helm").read_bytes(), "bin/entry": _ENTRY.read_bytes()}
    klipper = drops.image(
        KLIPPER,
        {**shell, **home, **tools},
        platforms=[AMD64],
        Entrypoint=["/bin/sh", "/bin/entry"],
        User="1000:1000",
    )
    (root / FOLDER).mkdir(parents=True)
    for name, artifact in (("pause", pause), ("klipper-helm", klipper)):
        write_tarball(root / FOLDER / f"k3s-{name}.tar", drops, artifact)
