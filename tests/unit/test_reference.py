from __future__ import annotations

import pytest

from airlift import reference
from airlift.digest import Digest
from airlift.errors import ManifestError

DIGEST = Digest("sha256:" + "0" * 64)


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("redis", "docker.io/library/redis:latest"),
        ("redis:7.4", "docker.io/library/redis:7.4"),
        ("org/app", "docker.io/org/app:latest"),
        ("docker.io/redis:7", "docker.io/library/redis:7"),
        ("index.docker.io/library/redis:7", "docker.io/library/redis:7"),
        ("registry-1.docker.io/org/app:7", "docker.io/org/app:7"),
        ("ghcr.io/org/app:1", "ghcr.io/org/app:1"),
        ("localhost/app", "localhost/app:latest"),
        ("localhost:5000/app:1", "localhost:5000/app:1"),
        ("Host/app:1", "Host/app:1"),
        ("[::1]:5000/app:1", "[::1]:5000/app:1"),
        ("127.0.0.1:5000/a/b-c/d__e.f:V_1.2-x", "127.0.0.1:5000/a/b-c/d__e.f:V_1.2-x"),
        (f"redis@{DIGEST}", f"docker.io/library/redis@{DIGEST}"),
        (f"redis:7@{DIGEST}", f"docker.io/library/redis:7@{DIGEST}"),
    ],
)
def test_every_spelling_has_one_complete_form(text: str, whole: str) -> None:
    parsed = reference.parse(text)
    assert str(parsed) == whole
    assert reference.parse(whole) == parsed


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "'library/' is not a repository path (lower case letters, digits, '.', '_', '-', '/')"),
        ("Redis", "'library/Redis' is not a repository path (lower case letters, digits, '.', '_', '-', '/')"),
        ("a//b", "'a//b' is not a repository path (lower case letters, digits, '.', '_', '-', '/')"),
        ("ghcr.io/../x", "'../x' is not a repository path (lower case letters, digits, '.', '_', '-', '/')"),
        ("a_.b/c:1", "'a_.b' is not a host name"),
        ("https://ghcr.io/a", "'https:' is not a host name"),
        ("redis:", "'' is not a tag"),
        ("redis:-x", "'-x' is not a tag"),
        ("redis:" + "x" * 129, "'" + "x" * 129 + "' is not a tag"),
        ("redis:a:b", "'a:b' is not a tag"),
        ("red is", "'library/red is' is not a repository path (lower case letters, digits, '.', '_', '-', '/')"),
        ("redis\n", "'library/redis\\n' is not a repository path (lower case letters, digits, '.', '_', '-', '/')"),
    ],
)
def test_what_is_no_reference_is_refused(text: str, why: str) -> None:
    with pytest.raises(ManifestError) as caught:
        reference.parse(text)
    assert str(caught.value) == f"not an image reference: {text!r}: {why}"
    assert caught.value.hint == "write it in full, such as docker.io/library/redis:7.4"


def test_a_digest_of_another_form_is_refused() -> None:
    with pytest.raises(ManifestError) as caught:
        reference.parse("redis@sha512:00")
    assert str(caught.value) == (
        "digest of 'redis@sha512:00': expected sha256:<64 lower-case hex digits>, got 'sha512:00'"
    )


def test_length_is_bounded() -> None:
    with pytest.raises(ManifestError, match=r"^reference of 1025 characters, at most 1024 are accepted$"):
        reference.parse("a" * 1025)


def test_parts_of_a_name() -> None:
    parsed = reference.parse(f"localhost:5000/org/app:1@{DIGEST}")
    assert (parsed.name, parsed.path, parsed.target) == ("localhost:5000/org/app", "localhost_5000/org/app", DIGEST)
    assert str(parsed.without_digest()) == "localhost:5000/org/app:1"
    assert parsed.without_digest().target == "1"
    bare = reference.parse(f"x@{DIGEST}")
    assert bare.without_digest() == bare
    assert reference.parse("x:1").with_digest(DIGEST) == reference.parse(f"x:1@{DIGEST}")
