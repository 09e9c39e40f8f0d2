"""nginx in front of the stand-in of a Harbor, with TLS and the locations that Harbor's own nginx has."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import trustme

from tests.support.chart_servers import nginx_with
from tests.support.harbor_state import Harbor
from tests.support.servers import free_port

_HEADS = (
    "proxy_set_header X-Real-IP $remote_addr; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; "
    "proxy_set_header X-Forwarded-Proto $x_forwarded_proto; proxy_buffering off; proxy_request_buffering off;"
)


@contextlib.contextmanager
def behind_nginx(harbor: Harbor, authority: Path, work: Path) -> Iterator[None]:
    """Let the stand-in be reached through nginx until the block ends, by its URL as everywhere.

    Args:
        harbor: a stand-in without TLS.
        authority: the certificate of what signed nginx's is written here.
        work: for nginx's files.
    """
    work.mkdir(parents=True)
    issuer, port, core = trustme.CA(), free_port(), harbor.host
    issuer.cert_pem.write_to_path(str(authority))
    issuer.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(work / "cert.pem"))

    def location(path: str, host: str, more: str = 'proxy_cookie_path / "/; Secure";') -> str:
        return f"location {path} {{ proxy_pass http://core{path}; proxy_set_header Host {host}; {_HEADS} {more} }}"

    sections = f"""
        tcp_nodelay on;
        proxy_http_version 1.1;
        upstream core {{ server {core}; }}
        map $http_x_forwarded_proto $x_forwarded_proto {{ default $http_x_forwarded_proto; "" $scheme; }}
        server {{
            listen 127.0.0.1:{port} ssl;
            server_tokens off;
            ssl_certificate {work}/cert.pem;
            ssl_certificate_key {work}/cert.pem;
            client_max_body_size 0;
            {location("/c/", "$host")}
            {location("/api/", "$host")}
            {location("/service/", "$http_host")}
            {location("/v2/", "$http_host", "proxy_send_timeout 900; proxy_read_timeout 900;")}
            location /v1/ {{ return 404; }}
            location /service/notifications {{ return 404; }}
            location / {{ return 200 "the portal"; }}
        }}
    """
    with nginx_with(sections, port, work):
        harbor.host, harbor.scheme = f"127.0.0.1:{port}", "https"
        yield
