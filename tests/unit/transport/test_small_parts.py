"""URLs, answers, challenges, docker's configuration: what is parsed before anything is sent."""

from __future__ import annotations

import base64
import threading
from pathlib import Path

import pytest

from airlift.errors import DeliveryError, FetchError
from airlift.transport import answers, challenges, credentials, urls
from airlift.transport.challenges import Challenge
from airlift.transport.credentials import Credentials
from airlift.transport.upload import BlobUpload, Body


def test_an_origin_is_scheme_host_and_port() -> None:
    assert urls.origin("https://Example.com/x") == ("https", "example.com", 443)
    assert urls.origin("http://127.0.0.1:5000/") == ("http", "127.0.0.1", 5000)


@pytest.mark.parametrize("url", ["ftp://x/y", "file:///etc/passwd", "https://", "https://x:port/", "nothing"])
def test_what_is_no_http_url_is_refused(url: str) -> None:
    with pytest.raises(FetchError, match="not a"):
        urls.origin(url)


def test_a_shown_url_has_no_secret() -> None:
    assert urls.shown("https://user:pass@example.com:8443/a/b?X-Signature=abc#f") == "https://example.com:8443/a/b"


def test_user_and_password_of_a_url_become_basic() -> None:
    url, value = urls.without_user("https://us%40er:p%3Ass@example.com/x?q=1")
    assert url == "https://example.com/x?q=1"
    assert value == "Basic " + base64.b64encode(b"us@er:p:ss").decode()
    assert urls.without_user("https://example.com/") == ("https://example.com/", None)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("localhost", True),
        ("::1", True),
        ("10.0.0.1", False),
        ("x.io", False),
    ],
)
def test_loopback_is_judged_by_the_name(host: str, expected: bool) -> None:
    assert urls.is_loopback(host) is expected


@pytest.mark.parametrize(
    ("url", "no_proxy", "expected"),
    [
        ("https://x.io/", "", True),
        ("https://x.io/", "x.io", False),
        ("https://a.x.io/", ".x.io", False),
        ("https://a.x.io/", "*.x.io", False),
        ("https://ax.io/", "x.io", True),
        ("https://10.1.2.3/", "10.0.0.0/8", False),
        ("https://10.1.2.3/", "192.168.0.0/16", True),
        ("https://x.io:8443/", "x.io:8443", False),
        ("https://x.io/", "*", False),
        ("https://127.0.0.1/", "", False),
        ("http://x.io/", "", False),
    ],
)
def test_no_proxy_names_hosts_domains_and_networks(url: str, no_proxy: str, expected: bool) -> None:
    found = urls.proxies_for(url, {"https": "http://proxy:3128"}, no_proxy)
    assert bool(found) is expected


def test_retry_after_is_seconds_or_a_date() -> None:
    assert answers.retry_after({"Retry-After": "7"}) == 7
    dates = {"Retry-After": "Wed, 21 Oct 2026 07:28:30 GMT", "Date": "Wed, 21 Oct 2026 07:28:00 GMT"}
    assert answers.retry_after(dates) == 30
    past = {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT", "Date": "Wed, 21 Oct 2026 07:28:30 GMT"}
    assert answers.retry_after(past) == 0
    assert answers.retry_after({"Retry-After": "soon"}) is None
    assert answers.retry_after({}) is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("bytes 5-9/10", (5, 9, 10)),
        ("bytes 5-9/*", (5, 9, None)),
        ("bytes */10", None),
        ("items 0-1/2", None),
        ("", None),
    ],
)
def test_content_range(value: str, expected: object) -> None:
    assert answers.content_range({"Content-Range": value}) == expected


def test_an_excerpt_is_what_the_registry_says() -> None:
    body = b'{"errors":[{"code":"DENIED","message":"quota\\nused up","detail":{"x":1}},{"code":"B"}]}'
    assert answers.excerpt(body) == "DENIED quota used up; B"
    assert answers.excerpt(b'{"error_description":"bad login"}') == "bad login"
    assert answers.excerpt(b"<html>502</html>") == ""
    assert answers.excerpt(b"plain\x1b[31m words") == "plain [31m words"
    assert len(answers.excerpt(b"x" * 5000)) == 500


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (
            'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push"',
            [Challenge("bearer", {"realm": "https://auth.docker.io/token", "service": "registry.docker.io", "scope": "repository:a/b:pull,push"})],
        ),
        ("Bearer realm=https://x/token, service=y", [Challenge("bearer", {"realm": "https://x/token", "service": "y"})]),
        (
            'Basic realm="a \\"quoted\\" one", Bearer realm="https://x/t"',
            [Challenge("basic", {"realm": 'a "quoted" one'}), Challenge("bearer", {"realm": "https://x/t"})],
        ),
        ("Negotiate, Basic realm=x", [Challenge("negotiate", {}), Challenge("basic", {"realm": "x"})]),
        ("", []),
        ('realm="x"', []),
    ],
)  # fmt: skip
def test_challenges_are_read_quoted_or_not_one_or_several(header: str, expected: list[Challenge]) -> None:
    assert list(challenges.parse(header)) == expected


@pytest.mark.parametrize("header", ["Basic realm=x" + " " * 8000 + '"', "Basic" + " " * 8100, ", " * 4000])
def test_a_challenge_of_blanks_takes_no_time(header: str) -> None:
    # What is quadratic takes seconds for each.
    assert {len(challenges.parse(header)) for _ in range(200)} <= {0, 1}


def auth(text: str) -> dict[str, str]:
    return {"auth": base64.b64encode(text.encode()).decode()}


def test_docker_hub_has_its_old_name_in_the_configuration() -> None:
    config = {"auths": {"https://index.docker.io/v1/": auth("me:pass:word")}}
    assert credentials.find(config, "docker.io", {}) == Credentials("me", "pass:word")
    assert credentials.find(config, "ghcr.io", {}) is None


def test_a_registry_may_be_written_as_a_url() -> None:
    config = {"auths": {"https://registry.example.com:5000/v2/": auth("a:b")}}
    assert credentials.find(config, "registry.example.com:5000", {}) == Credentials("a", "b")


def test_an_identity_token_has_no_password() -> None:
    config = {"auths": {"x.io": {**auth("me:"), "identitytoken": "secret"}}}
    found = credentials.find(config, "x.io", {})
    assert found == Credentials("me", "", "secret")
    assert "secret" not in repr(found)


def test_a_malformed_entry_is_said_without_its_content() -> None:
    with pytest.raises(FetchError, match=r"^docker's configuration: auth of x\.io is not base64$"):
        credentials.find({"auths": {"x.io": {"auth": "s3cret!"}}}, "x.io", {})
    with pytest.raises(FetchError, match="auths is list, expected an object"):
        credentials.find({"auths": []}, "x.io", {})


def helper(folder: Path, script: str) -> dict[str, str]:
    program = folder / "docker-credential-test"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return {"PATH": f"{folder}:/usr/bin:/bin"}


def test_a_helper_is_asked_for_the_registry(tmp_path: Path) -> None:
    env = helper(tmp_path, 'read host; echo "{\\"Username\\":\\"u-$host\\",\\"Secret\\":\\"s\\"}"')
    for config in ({"credHelpers": {"x.io": "test"}}, {"credsStore": "test"}):
        assert credentials.find(config, "x.io", env) == Credentials("u-x.io", "s")
    assert credentials.find({"credHelpers": {"other.io": "test"}}, "x.io", env) is None


def test_a_helper_may_have_a_token_or_nothing(tmp_path: Path) -> None:
    env = helper(tmp_path, 'echo "{\\"Username\\":\\"<token>\\",\\"Secret\\":\\"s\\"}"')
    assert credentials.find({"credsStore": "test"}, "x.io", env) == Credentials("", "", "s")
    env = helper(tmp_path, "echo credentials not found in native keychain; exit 1")
    assert credentials.find({"credsStore": "test", "auths": {"x.io": auth("a:b")}}, "x.io", env) == Credentials(
        "a", "b"
    )


def test_a_broken_helper_is_named_and_its_output_is_not_shown(tmp_path: Path) -> None:
    env = helper(tmp_path, "echo s3cret")
    with pytest.raises(FetchError, match=r"^docker-credential-test for x\.io: expected a JSON object"):
        credentials.find({"credsStore": "test"}, "x.io", env)
    with pytest.raises(FetchError, match=r"docker-credential-absent for x\.io, which is not on the PATH"):
        credentials.find({"credsStore": "absent"}, "x.io", env)
    with pytest.raises(FetchError, match="is not a name of a credential helper"):
        credentials.find({"credsStore": "../../bin/sh"}, "x.io", env)


def test_an_upload_that_ends_in_an_unforeseen_way_is_no_success(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda _: None)

    def broken(body: Body) -> None:
        raise RuntimeError("unforeseen")

    def put(upload: BlobUpload) -> None:
        upload.write(b"abc")
        upload.commit()

    upload = BlobUpload("r.example/a@sha256:0", 3, broken, lambda: False)
    # Whether the thread is still there when the bytes come is a matter of luck.
    with pytest.raises(DeliveryError, match="the upload ended without an answer"):
        put(upload)
