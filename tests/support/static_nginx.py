"""nginx with the tree of `airlift export`, by the configuration that is delivered."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from tests.components import ROOT
from tests.support.chart_servers import nginx_with
from tests.support.servers import free_port

# What Debian's nginx.conf has around it, and would change answers.
_AROUND = (
    "sendfile on; tcp_nopush on; gzip on; types { text/html html; application/json json; application/gzip tgz; }\n"
)


@contextlib.contextmanager
def appliance_nginx(tree: Path, work: Path) -> Iterator[str]:
    """The example as it is delivered, with another address and another tree."""
    text = (ROOT / "appliance" / "nginx.conf").read_text()
    port = free_port()
    changes = (
        ("listen 127.0.0.1:8081;", f"listen 127.0.0.1:{port};"),
        ("set $airlift_tree /srv/airlift/tree;", f"set $airlift_tree {tree};"),
    )
    for delivered, here in changes:
        assert text.count(delivered) == 1
        text = text.replace(delivered, here)
    with nginx_with(_AROUND + text, port, work):
        yield f"http://127.0.0.1:{port}"
