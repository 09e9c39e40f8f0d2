from __future__ import annotations

import pytest

from airlift import digest
from airlift.errors import IntegrityError

EMPTY = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_a_digest_has_one_spelling() -> None:
    assert digest.parse(EMPTY) == EMPTY
    assert digest.of(b"") == EMPTY
    assert digest.from_hex(digest.hex_of(digest.of(b""))) == EMPTY


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sha256:",
        EMPTY.upper(),
        EMPTY[:-1],
        EMPTY + "0",
        EMPTY + "\n",
        " " + EMPTY,
        "sha512:" + "0" * 128,
        "md5:x",
        None,
        5,
    ],
)
def test_any_other_spelling_is_refused(text: object) -> None:
    with pytest.raises(IntegrityError) as caught:
        digest.parse(text, subject="the layer")
    assert str(caught.value) == f"the layer: expected sha256:<64 lower-case hex digits>, got {repr(text)[:100]}"


def test_a_stream_that_is_right_passes() -> None:
    verifier = digest.Verifier(digest.of(b"abc"), 3)
    verifier.update(b"a")
    verifier.update(memoryview(b"bc"))
    verifier.finish()
    assert verifier.seen == 3


def test_one_byte_too_many_is_noticed_when_it_comes() -> None:
    verifier = digest.Verifier(digest.of(b"abc"), 3, subject="x")
    with pytest.raises(IntegrityError, match=r"^x: expected 3 bytes, got more$"):
        verifier.update(b"abcd")


def test_missing_bytes_are_noticed_at_the_end() -> None:
    verifier = digest.Verifier(digest.of(b"abc"), 3, subject="x")
    verifier.update(b"ab")
    with pytest.raises(IntegrityError, match=r"^x: expected 3 bytes, got 2 bytes$"):
        verifier.finish()


def test_other_bytes_are_noticed_at_the_end() -> None:
    wanted = digest.of(b"abc")
    verifier = digest.Verifier(wanted, 3)
    verifier.update(b"abd")
    with pytest.raises(IntegrityError) as caught:
        verifier.finish()
    assert (caught.value.subject, caught.value.expected, caught.value.actual) == (wanted, wanted, digest.of(b"abd"))


def test_check_returns_what_is_right() -> None:
    assert digest.check(b"abc", digest.of(b"abc")) == b"abc"
    with pytest.raises(IntegrityError, match=r"^config: expected sha256:"):
        digest.check(b"abd", digest.of(b"abc"), subject="config")


def test_a_collector_gives_its_content_out_only_when_it_is_right() -> None:
    good = digest.Collector(digest.of(b"abc"), 3)
    good.write(b"ab")
    assert good.written == 2
    good.write(memoryview(b"c"))
    assert good.finish() == b"abc"
    short = digest.Collector(digest.of(b"abc"), 3, subject="config")
    short.write(b"ab")
    with pytest.raises(IntegrityError, match="config: expected 3 bytes, got 2 bytes"):
        short.finish()
    wrong = digest.Collector(digest.of(b"abc"), 3)
    wrong.write(b"abd")
    with pytest.raises(IntegrityError):
        wrong.finish()
    with pytest.raises(IntegrityError, match="expected 3 bytes, got more"):
        wrong.write(b"e")
