"""What charts come from and go to: nginx with a directory, and helm."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.components import require
from tests.support.servers import free_port, listening

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
    with listening([str(program), "-p", str(work), "-c", str(config), *user], port, work / "error.log"):
        yield


def helm(*arguments: str | Path, cwd: Path | None = None) -> str:
    """Run helm and return what it says; a failure is an assertion with its words."""
    done = subprocess.run(
        [str(require("helm")), *map(str, arguments)], cwd=cwd, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr
