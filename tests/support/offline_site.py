"""The offline half of the main job; run by `tests/integration/test_air_gap.py` in an empty network namespace.

usage: offline_site.py AIRLIFT_PYTHON BUNDLE TRUST IDENTITY WORK   (prints one JSON object)

Every client is the stock one, with no cache and no other network.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PORT = 8080
"""Nobody else is in the namespace."""


def run(*command: object, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        [str(item) for item in command],
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}: exit {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done.stdout


@contextlib.contextmanager
def serving(python: str, site: Path, url: str) -> Iterator[None]:
    command = [python, "-m", "airlift", "serve", "--site", str(site), "--listen", f"127.0.0.1:{PORT}"]
    with (site.parent / "serve.log").open("w") as log:
        server = subprocess.Popen(command, stderr=log, stdout=log)
    try:
        for _ in range(200):
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/healthz", timeout=2):
                break
            time.sleep(0.1)
        else:
            sys.exit("the server did not come up\n" + (site.parent / "serve.log").read_text())
        yield
    finally:
        server.terminate()
        server.wait(30)


def alone() -> None:
    """Prove that nothing but loopback is there."""
    run("ip", "link", "set", "lo", "up")
    with contextlib.suppress(OSError), socket.create_connection(("192.0.2.1", 80), timeout=1):
        sys.exit("there is a network")


def clients(url: str, work: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    host = url.removeprefix("http://")
    pip = {"PIP_CONFIG_FILE": "/dev/null", "PIP_INDEX_URL": f"{url}/simple/", "PIP_FIND_LINKS": ""}
    packages = ("flask", "requests")
    run(sys.executable, "-m", "pip", "install", "-q", "--no-cache-dir", "--target", work / "pip", *packages, env=pip)
    found["pip"] = sorted(path.name for path in (work / "pip").glob("*.dist-info"))
    uv = {"UV_DEFAULT_INDEX": f"{url}/simple/", "UV_PYTHON_DOWNLOADS": "never", "UV_PYTHON": sys.executable}
    run("uv", "pip", "install", "-q", "--no-cache", "--no-config", "--target", work / "uv", *packages, env=uv)
    found["uv"] = sorted(path.name for path in (work / "uv").glob("*.dist-info"))
    helm = {name: str(work / "helm") for name in ("HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME")}
    for folder in ("http", "oci"):
        (work / folder).mkdir()
    run("helm", "pull", "site", "--repo", f"{url}/charts", "--version", "1.0.0", "-d", work / "http", env=helm)
    oci = f"oci://{host}/charts/site"
    run("helm", "pull", oci, "--version", "1.0.0", "--plain-http", "-d", work / "oci", env=helm)
    found["helm"] = [path.read_bytes().hex() for path in sorted(work.glob("*/site-1.0.0.tgz"))]
    code = "import sys, huggingface_hub as h; print(h.snapshot_download(sys.argv[1]))"
    hub = {"HF_ENDPOINT": f"{url}/hf", "HF_HOME": str(work / "hf"), "HF_HUB_DISABLE_TELEMETRY": "1"}
    snapshot = Path(run(sys.executable, "-c", code, "demo/vad", env=hub).strip())
    found["model"] = sorted(path.name for path in snapshot.iterdir())
    image = f"docker://{host}/registry.example.com/demo/kubectl:1.0"
    run("skopeo", "copy", "--preserve-digests", "--src-tls-verify=false", image, f"oci:{work / 'image'}:x")
    found["image"] = json.loads((work / "image" / "index.json").read_text())["manifests"][0]["digest"]
    inspected = json.loads(run("skopeo", "inspect", "--tls-verify=false", image))
    found["inspected"] = inspected["Digest"]
    with urllib.request.urlopen(f"{url}/files/motd.txt", timeout=10) as answer:
        found["file"] = answer.read().decode()
    return found


def main() -> None:
    python, bundle, trust, identity = sys.argv[1:5]
    work = Path(sys.argv[5])
    alone()
    site = work / "site"
    url = f"http://127.0.0.1:{PORT}"
    command = [python, "-m", "airlift"]
    run(*command, "verify", bundle, "--trust", trust)
    run(*command, "site", "init", site, "--trust", trust, "--url", url, "--identity", identity)
    found: dict[str, Any] = {"import": json.loads(run(*command, "import", bundle, "--site", site, "--json"))}
    with serving(python, site, url):
        found |= clients(url, work)
    for name in ("first", "second"):
        found[name] = run(*command, "deploy", "k3s", "--site", site, "--root", work / "node", "--json")
    found["status"] = json.loads(run(*command, "status", "--site", site, "--json"))
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
