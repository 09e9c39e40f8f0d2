"""A stand-in for Harbor over a real docker-registry; it answers what a Harbor 2.15 was recorded to answer.

Projects, robots, quotas, rules of immutability, read-only mode, the token service, the cookie that makes the next write a
403, and the 401s that mean six things. tests/contract/test_harbor_record.py compares it with the record.
"""

from __future__ import annotations

import contextlib
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import trustme

from tests.support.harbor_api import ApiHandler
from tests.support.harbor_manifests import ManifestHandler
from tests.support.harbor_state import Account, Harbor, Project, immutable
from tests.support.registry import Registry, _Server

__all__ = ["Account", "Harbor", "Project", "immutable", "running_harbor"]

ROBOT, SECRET = "robot$import", "s3cret"
ADMIN, ADMIN_SECRET = "admin", "Harbor12345"


class Handler(ApiHandler, ManifestHandler):
    """All of it."""


@contextlib.contextmanager
def running_harbor(behind: Registry, *, authority: Path | None = None, address: str = "127.0.0.1") -> Iterator[Harbor]:
    """Run a stand-in until the block ends.

    ``robot$import`` with ``s3cret`` may push and make projects; ``admin`` with ``Harbor12345`` may do everything.

    Args:
        behind: stores what is pushed.
        authority: answer with TLS, and write the certificate of what signed it here.
        address: where to listen.
    """
    harbor = Harbor(behind=behind)
    harbor.accounts[ADMIN] = Account(ADMIN_SECRET, is_admin=True, is_robot=False, number=1)
    harbor.project("library", metadata={"public": "true"})
    harbor.robot(ROBOT, SECRET).gain("project:create", "quota:list", namespace="/")
    server = _Server((address, 0), type("Bound", (Handler,), {"front": harbor}))
    harbor.host = f"{address}:{server.server_address[1]}"
    if authority is not None:
        issuer = trustme.CA()
        issuer.cert_pem.write_to_path(str(authority))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        issuer.issue_cert(address).configure_cert(context)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        harbor.scheme = "https"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield harbor
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
