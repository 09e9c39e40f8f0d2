"""A containerd of our own, as K3s has one: its CRI, its image import, its hosts.toml; no cluster.

Prefers the 2.x that scripts/tool-go builds (K3s embeds 2.x) and takes Debian's else. Pods use the host's network unless
it is told of CNI, so that nothing is left behind.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest
from cri_api.v1 import api_pb2 as cri
from cri_api.v1 import api_pb2_grpc as cri_grpc

from tests import components
from tests.support.mounts import unmount_below

_V3 = """\
version = 3
root = "{home}/root"
state = "{home}/state"
disabled_plugins = ["io.containerd.nri.v1.nri", "io.containerd.snapshotter.v1.erofs", "io.containerd.snapshotter.v1.blockfile"]
[grpc]
  address = "{socket}"
[ttrpc]
  address = "{socket}.ttrpc"
[plugins."io.containerd.cri.v1.images"]
  snapshotter = "{snapshotter}"
  [plugins."io.containerd.cri.v1.images".pinned_images]
    sandbox = "{pause}"
  [plugins."io.containerd.cri.v1.images".registry]
    config_path = "{certs}"
[plugins."io.containerd.transfer.v1.local"]
  [[plugins."io.containerd.transfer.v1.local".unpack_config]]
    platform = "linux/amd64"
    snapshotter = "{snapshotter}"
    differ = "walking"
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.cri.v1.runtime".cni]
    {cni}
  [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
      BinaryName = "{runc}"
      SystemdCgroup = false
"""
_V2 = """\
version = 2
root = "{home}/root"
state = "{home}/state"
[grpc]
  address = "{socket}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "{snapshotter}"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        BinaryName = "{runc}"
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "{certs}"
"""


@dataclass
class Containerd:
    """A running containerd.

    Attributes:
        config: what it is told, logins apart.
        command: what starts it.
        environment: of it.
    """

    home: Path
    socket: Path
    ctr_program: Path
    version: str
    log: Path
    config: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(repr=False)
    process: subprocess.Popen[bytes] | None = None

    @property
    def certs(self) -> Path:
        return self.home / "certs.d"

    def start(self) -> None:
        """Start it and wait until it answers."""
        with self.log.open("ab") as stream:
            self.process = subprocess.Popen(self.command, stdout=stream, stderr=stream, env=self.environment)
        _wait(self.process, self.socket, self.ctr_program, self.log)

    def stop(self) -> None:
        """Stop it; pods go on running."""
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(20)
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
            self.process = None

    def log_in(self, accounts: Mapping[str, Mapping[str, str]]) -> None:
        """Tell it who asks which host, by `username` and `password`; it reads that when it starts."""
        plugin = "io.containerd.cri.v1.images" if self.version.startswith("2") else "io.containerd.grpc.v1.cri"
        parts = [self.config]
        for host, account in accounts.items():
            parts.append(f'[plugins."{plugin}".registry.configs."{host}".auth]')
            # A string of TOML's between double quotes is one of JSON's.
            parts += [f"  {name} = {json.dumps(value)}" for name, value in account.items()]
        text, place = "\n".join([*parts, ""]), self.home / "config.toml"
        if not place.exists() or place.read_text() != text:
            place.touch(0o600)
            place.write_text(text)
            if self.process is not None:
                self.stop()
                self.start()

    def ctr(self, *arguments: str) -> str:
        """Run ctr in the namespace that K3s uses, and return what it says."""
        command = [str(self.ctr_program), "-a", str(self.socket), "-n", "k8s.io", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}\n{self.log.read_text()[-3000:]}"
        return done.stdout

    def hosts(self, registry: str, endpoint: str, *, override_path: bool = False, ca: Path | None = None) -> None:
        """Send pulls of a registry to an endpoint and nowhere else, as K3s writes it."""
        folder = self.certs / registry
        folder.mkdir(parents=True, exist_ok=True)
        told = [f"override_path = {str(override_path).lower()}"]
        if ca is not None:
            told.append(f'ca = ["{ca}"]')
        host = [f'[host."{endpoint}"]', '  capabilities = ["pull", "resolve"]', *(f"  {line}" for line in told)]
        (folder / "hosts.toml").write_text("\n".join([f'server = "{endpoint}"', *told, *host, ""]))

    def forget_hosts(self) -> None:
        """Send every pull to its own registry again."""
        for folder in self.certs.iterdir():
            shutil.rmtree(folder)

    def import_images(self, tarball: Path) -> None:
        """Import as K3s does: under each name of the tarball, and under the repository's name with the digest."""
        self.ctr("images", "import", "--label", "io.cri-containerd.pinned=pinned", str(tarball))
        for line in self.ctr("images", "ls").splitlines()[1:]:
            name, _, target = line.split()[:3]
            if "@" not in name and not name.startswith("sha256:"):
                self.ctr("images", "tag", "--force", name, f"{name.rpartition(':')[0]}@{target}")

    @contextlib.contextmanager
    def cri(self) -> Iterator[Cri]:
        with cri_at(self.socket) as found:
            yield found


@dataclass
class Sandbox:
    """A pod that runs."""

    id: str
    config: cri.PodSandboxConfig
    logs: Path

    def output(self, name: str) -> str:
        """What a container printed so far."""
        return "\n".join(line.split(" ", 3)[3] for line in (self.logs / f"{name}.log").read_text().splitlines())


@dataclass
class Cri:
    """What the kubelet says to a containerd."""

    runtime: cri_grpc.RuntimeServiceStub
    images: cri_grpc.ImageServiceStub
    home: Path

    def pull(self, image: str) -> str:
        """Pull and return the image's id."""
        return str(self.images.PullImage(cri.PullImageRequest(image=cri.ImageSpec(image=image)), timeout=60).image_ref)

    def status(self, image: str) -> cri.Image | None:
        answer = self.images.ImageStatus(cri.ImageStatusRequest(image=cri.ImageSpec(image=image)), timeout=20)
        return answer.image if answer.image.id else None

    def start_sandbox(self) -> Sandbox:
        """Start a pod that uses the host's network."""
        logs = Path(tempfile.mkdtemp(dir=self.home, prefix="logs-"))
        options = cri.NamespaceOption(network=cri.NODE, pid=cri.CONTAINER, ipc=cri.POD)
        config = cri.PodSandboxConfig(
            metadata=cri.PodSandboxMetadata(name="p", uid=f"u{time.monotonic_ns()}", namespace="default", attempt=0),
            log_directory=str(logs),
            linux=cri.LinuxPodSandboxConfig(
                cgroup_parent=f"/{self.home.name}",
                security_context=cri.LinuxSandboxSecurityContext(namespace_options=options),
            ),
        )
        made = self.runtime.RunPodSandbox(cri.RunPodSandboxRequest(config=config), timeout=60).pod_sandbox_id
        return Sandbox(str(made), config, logs)

    def stop_sandbox(self, sandbox: Sandbox) -> None:
        self.runtime.StopPodSandbox(cri.StopPodSandboxRequest(pod_sandbox_id=sandbox.id), timeout=60)
        self.runtime.RemovePodSandbox(cri.RemovePodSandboxRequest(pod_sandbox_id=sandbox.id), timeout=60)

    def remove_all(self) -> None:
        """Stop and remove every pod, whoever started it."""
        for item in self.runtime.ListPodSandbox(cri.ListPodSandboxRequest(), timeout=60).items:
            self.runtime.StopPodSandbox(cri.StopPodSandboxRequest(pod_sandbox_id=item.id), timeout=60)
            self.runtime.RemovePodSandbox(cri.RemovePodSandboxRequest(pod_sandbox_id=item.id), timeout=60)

    def start(
        self,
        sandbox: Sandbox,
        image: str,
        command: Sequence[str],
        *,
        name: str = "c",
        arguments: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        mounts: Sequence[cri.Mount] = (),
    ) -> str:
        """Start a container in a pod and return its id."""
        options = sandbox.config.linux.security_context.namespace_options
        config = cri.ContainerConfig(
            metadata=cri.ContainerMetadata(name=name),
            image=cri.ImageSpec(image=image),
            command=list(command),
            args=list(arguments),
            envs=[cri.KeyValue(key=key, value=value) for key, value in (environment or {}).items()],
            mounts=list(mounts),
            log_path=f"{name}.log",
            linux=cri.LinuxContainerConfig(
                security_context=cri.LinuxContainerSecurityContext(namespace_options=options)
            ),
        )
        request = cri.CreateContainerRequest(pod_sandbox_id=sandbox.id, config=config, sandbox_config=sandbox.config)
        made = str(self.runtime.CreateContainer(request, timeout=60).container_id)
        self.runtime.StartContainer(cri.StartContainerRequest(container_id=made), timeout=60)
        return made

    def container(self, made: str) -> cri.ContainerStatus:
        return self.runtime.ContainerStatus(cri.ContainerStatusRequest(container_id=made), timeout=20).status

    def wait(self, made: str, *, seconds: float = 120) -> int:
        """Wait for the end of a container and return its exit code."""
        deadline = time.monotonic() + seconds
        while (status := self.container(made)).state != cri.CONTAINER_EXITED:
            assert time.monotonic() < deadline, f"still running: {status}"
            time.sleep(0.05)
        return int(status.exit_code)

    def run(self, image: str, command: Sequence[str], *, seconds: float = 120) -> tuple[int, str]:
        """Run a pod of one container to its end, and return exit code and output."""
        sandbox = self.start_sandbox()
        try:
            return self.wait(self.start(sandbox, image, command), seconds=seconds), sandbox.output("c")
        finally:
            self.stop_sandbox(sandbox)


def _programs() -> tuple[Path, Path, str]:
    for folder in (components.TOOLS / "go", None):
        path = str(folder) if folder else components.search_path()
        found = [shutil.which(name, path=path) for name in ("containerd", "ctr")]
        if all(found):
            daemon, ctr = (Path(str(item)) for item in found)
            text = subprocess.run([daemon, "--version"], capture_output=True, text=True, check=True, timeout=20).stdout
            return daemon, ctr, text.split()[2].lstrip("v")
    components.missing("containerd is not installed")
    raise AssertionError


@contextlib.contextmanager
def cri_at(socket: Path) -> Iterator[Cri]:
    """Talk to the containerd that listens at a socket in its directory."""
    with grpc.insecure_channel(f"unix://{socket}") as channel:
        yield Cri(cri_grpc.RuntimeServiceStub(channel), cri_grpc.ImageServiceStub(channel), socket.parent)


@contextlib.contextmanager
def containerd(
    *, pause: str, snapshotter: str = "native", prefix: Sequence[str] = (), cni: Sequence[str] = ()
) -> Iterator[Containerd]:
    """Run a containerd in a directory of its own (a short one: socket paths have 107 characters at most).

    `prefix` is put before the program, such as what enters a network namespace; `cni` are its words for pods' addresses.
    """
    components.require_root()
    runc = components.require("runc")
    daemon, ctr, version = _programs()
    home = Path(tempfile.mkdtemp(prefix="ctd-"))
    socket = home / "c.sock"
    fill: Mapping[str, object] = {
        "home": home,
        "socket": socket,
        "snapshotter": snapshotter,
        "pause": pause,
        "certs": home / "certs.d",
        "runc": runc,
        "cni": "\n    ".join(cni),
    }
    (home / "certs.d").mkdir()
    environment = {**os.environ, "PATH": f"{daemon.parent}{os.pathsep}{components.search_path()}"}
    command = [*prefix, str(daemon), "-c", str(home / "config.toml"), "-l", "info"]
    config = (_V3 if version.startswith("2") else _V2).format(**fill)
    made = Containerd(home, socket, ctr, version, home / "log", config, command, environment)
    made.log_in({})
    try:
        made.start()
        yield made
    finally:
        made.stop()
        unmount_below(home)
        for group in Path("/sys/fs/cgroup").glob(f"**/{home.name}"):
            with contextlib.suppress(OSError):
                group.rmdir()
        shutil.rmtree(home, ignore_errors=True)


def _wait(process: subprocess.Popen[bytes], socket: Path, ctr: Path, log: Path) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if process.poll() is not None:
            pytest.fail(f"containerd ended: {log.read_text()[-3000:]}", pytrace=False)
        if socket.exists():
            command = [str(ctr), "-a", str(socket), "--connect-timeout", "2s", "version"]
            if subprocess.run(command, capture_output=True, check=False, timeout=20).returncode == 0:
                return
        time.sleep(0.1)
    pytest.fail(f"containerd does not answer: {log.read_text()[-3000:]}", pytrace=False)
