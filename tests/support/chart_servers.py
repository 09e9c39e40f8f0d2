"""Real servers that charts come from: nginx with a directory, docker-registry with an empty store."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from tests.components import require

_CONFIG = """
daemon off; worker_processes 1; pid {work}/pid; error_log stderr warn;
events {{ worker_connections 64; }}
http {{
  access_log {work}/access.log;
  client_body_temp_path {work}/b; proxy_temp_path {work}/p; fastcgi_temp_path {work}/f;
  uwsgi_temp_path {work}/u; scgi_temp_path {work}/s;
  {sections}
}}
"""
_SERVER = """
  types {{ application/x-yaml yaml; }}
  default_type application/octet-stream;
  server {{
    listen 127.0.0.1:{port};
    root {root};
    {more}
  }}
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def _running(arguments: list[str], port: int, **more: object) -> Iterator[None]:
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **more)  # type: ignore[call-overload]
    try:
        for _ in range(200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            assert process.poll() is None, f"{arguments[0]} ended with {process.returncode}"
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait(10)


@contextlib.contextmanager
def nginx(root: Path, work: Path, more: str = "") -> Iterator[str]:
    """Serve `root` with nginx until the block ends; gives the URL. `more` goes into its server section."""
    port = free_port()
    with nginx_with(_SERVER.format(port=port, root=root, more=more), port, work):
        yield f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def nginx_with(sections: str, port: int, work: Path) -> Iterator[None]:
    """Run nginx with what is inside of ``http`` until the block ends."""
    program = require("nginx")
    work.mkdir(parents=True, exist_ok=True)
    work.chmod(0o755)
    config = work / "nginx.conf"
    config.write_text(_CONFIG.format(work=work, sections=sections) + "\n")
    user = ["-g", "user root;"]
    with _running([str(program), "-p", str(work), "-c", str(config), *user], port):
        yield


@contextlib.contextmanager
def docker_registry(work: Path) -> Iterator[str]:
    """Run docker-registry until the block ends; gives ``host:port``."""
    program = require("docker-registry")
    work.mkdir(parents=True, exist_ok=True)
    port = free_port()
    config = work / "config.yml"
    config.write_text(
        "version: 0.1\nlog: {level: error}\n"
        f"storage: {{filesystem: {{rootdirectory: {work}/data}}, delete: {{enabled: true}}}}\n"
        f"http: {{addr: '127.0.0.1:{port}'}}\n"
    )
    with _running([str(program), "serve", str(config)], port):
        yield f"127.0.0.1:{port}"


def helm(*arguments: str | Path, cwd: Path | None = None) -> str:
    """Run helm and return what it says; a failure is an assertion with its words."""
    done = subprocess.run(
        [str(require("helm")), *map(str, arguments)], cwd=cwd, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr
