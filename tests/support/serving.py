"""``airlift serve`` as a process of its own."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from tests.support.cli import environment
from tests.support.registry import free_port


@contextlib.contextmanager
def airlift_serve(site: Path, *, port: int = 0) -> Iterator[str]:
    """Serve a site on loopback until the block ends; gives the URL."""
    port = port or free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "airlift", "serve", "--site", str(site), "--listen", f"127.0.0.1:{port}"]
    log = site.parent / "serve.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=stream, env=environment(site.parent), cwd=site.parent)
    try:
        deadline = time.monotonic() + 30
        while True:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/healthz", timeout=5):
                break
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
