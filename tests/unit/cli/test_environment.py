from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from airlift.cli import environment
from airlift.errors import UsageError


def test_source_date_epoch_is_read_as_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    assert environment.source_date() == datetime(1970, 1, 2, tzinfo=UTC)
    monkeypatch.delenv("SOURCE_DATE_EPOCH")
    assert environment.source_date() is None
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    with pytest.raises(UsageError, match="SOURCE_DATE_EPOCH is 'yesterday', expected seconds since 1970"):
        environment.source_date()


def test_a_time_without_zone_is_utc() -> None:
    assert environment.moment("2026-12-31", "--expires") == datetime(2026, 12, 31, tzinfo=UTC)
    assert environment.moment("2026-12-31T01:00:00+01:00", "--expires") == datetime(2026, 12, 31, tzinfo=UTC)
    for text in ("soon", "9999-12-31T23:59:59-12:00", "0001-01-01T00:00:00+12:00", "2026-02-30"):
        with pytest.raises(UsageError, match=rf"--expires '{re.escape(text)}': expected a time such as 2026-12-31T12"):
            environment.moment(text, "--expires")


def test_the_passphrase_is_the_first_line_and_may_not_be_empty(tmp_path: Path) -> None:
    file = tmp_path / "p"
    file.write_bytes(b"correct horse\r\nsecond line\n")
    assert environment.passphrase(file)() == b"correct horse"
    file.write_bytes(b"\nx")
    with pytest.raises(UsageError, match="the first line is empty"):
        environment.passphrase(file)()
    with pytest.raises(UsageError, match="the private key has a passphrase"):
        environment.passphrase(None)()


def test_proxies_and_the_ca_bundle_come_from_the_usual_variables(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("http_proxy", "https_proxy", "HTTPS_PROXY", "ALL_PROXY", "no_proxy", "NO_PROXY", "REQUESTS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    ca = tmp_path / "ca.pem"
    ca.write_text("x")
    monkeypatch.setenv("SSL_CERT_FILE", str(ca))
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example.com:3128")
    monkeypatch.setenv("NO_PROXY", "localhost")
    settings = environment.http_settings()
    assert settings.ca_bundle == ca
    assert dict(settings.proxies) == {"https": "http://proxy.example.com:3128"}
    assert settings.no_proxy == "localhost"
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "absent"))
    with pytest.raises(UsageError, match="does not exist"):
        environment.http_settings()


def test_the_cache_can_be_named_or_switched_off_but_not_both(tmp_path: Path) -> None:
    assert environment.cache(None, disabled=True) is None
    store = environment.cache(tmp_path / "c", disabled=False)
    assert store is not None
    assert store.root == tmp_path / "c"
    with pytest.raises(UsageError, match="exclude each other"):
        environment.cache(tmp_path / "c", disabled=True)


def test_dockers_configuration_has_to_be_an_object(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    assert environment.docker_config() == {}
    (tmp_path / "config.json").write_text('{"auths": {}}')
    assert environment.docker_config() == {"auths": {}}
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(UsageError, match="expected an object"):
        environment.docker_config()
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UsageError, match="not JSON"):
        environment.docker_config()


def test_without_a_variable_what_the_system_trusts_is_trusted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(environment, "_AUTHORITIES", (tmp_path / "debian.crt", tmp_path / "fedora.crt"))
    assert environment.http_settings().ca_bundle is None
    (tmp_path / "debian.crt").touch()
    (tmp_path / "fedora.crt").write_text("x")
    assert environment.http_settings().ca_bundle == tmp_path / "fedora.crt"
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path))
    assert environment.http_settings().ca_bundle == tmp_path


def test_dockers_certificates_are_taken_where_docker_has_some(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(environment, "_DOCKER_CERTS", tmp_path / "certs.d")
    assert environment.http_settings().certs_dir is None
    (tmp_path / "certs.d").mkdir()
    assert environment.http_settings().certs_dir == tmp_path / "certs.d"


def test_the_cache_is_rid_of_what_killed_runs_left(tmp_path: Path) -> None:
    store = environment.cache(tmp_path, disabled=False)
    assert store is not None
    (store.root / "ingest" / "x.1.ab").write_bytes(b"half")
    environment.cache(tmp_path, disabled=False)
    assert list((store.root / "ingest").iterdir()) == []
