"""Which tag a rule of immutability is about: what is refused because of one must really be covered."""

from __future__ import annotations

from typing import Any

import pytest

from airlift.transport.harbor_rules import covers


def rule(tags: str = "**", repositories: str = "**", **changes: Any) -> dict[str, Any]:
    whole: dict[str, Any] = {
        "action": "immutable",
        "template": "immutable_template",
        "tag_selectors": [{"kind": "doublestar", "decoration": "matches", "pattern": tags}],
        "scope_selectors": {
            "repository": [{"kind": "doublestar", "decoration": "repoMatches", "pattern": repositories}]
        },
    }
    return {**whole, **changes}


@pytest.mark.parametrize(
    ("tags", "repositories", "repository", "tag", "is_covered"),
    [
        ("**", "**", "library/redis", "7", True),
        ("*", "**", "redis", "7.2-alpine", True),
        ("v*", "**", "redis", "v1", True),
        ("v*", "**", "redis", "1", False),
        ("v?", "**", "redis", "v12", False),
        ("{1,2}.*", "**", "redis", "2.5", True),
        ("{1,2}.*", "**", "redis", "3.5", False),
        ("1.2.3", "**", "redis", "1x2y3", False),
        ("**", "*", "library/redis", "7", False),
        ("**", "library/*", "library/redis", "7", True),
        ("**", "library/**", "library/a/b", "7", True),
        ("**", "library/**", "library", "7", False),
        ("[", "**", "redis", "[", True),
        ("{", "**", "redis", "{", True),
        ("{a,b{c,d}}e", "**", "redis", "bde", True),
        ("{a,b{c,d}}e", "**", "redis", "be", False),
        ("v{,1}", "**", "redis", "v", True),
        ("", "**", "redis", "7", False),
        ("v[0-9]*", "**", "redis", "v1.2", True),
        ("v[0-9]*", "**", "redis", "vx", False),
        ("v[!0-9]*", "**", "redis", "vx", False),
        ("v[^0-9]*", "**", "redis", "vx", True),
        ("v[^0-9]*", "**", "redis", "v1", False),
        ("[abx-z]", "**", "redis", "y", True),
        ("[abx-z]", "**", "redis", "c", False),
        ("[abx-z]", "**", "redis", "ab", False),
        ("[z-a]", "**", "redis", "m", False),
        (r"[\]a]x", "**", "redis", "ax", True),
        (r"v1\.0", "**", "redis", "v1.0", True),
        (r"v1\.0", "**", "redis", "v1x0", False),
        ("**", "library[^a]redis", "library/redis", "7", False),
        ("{v[0-9],x}", "**", "redis", "v7", True),
    ],
)
def test_a_pattern_means_what_doublestar_means(
    tags: str, repositories: str, repository: str, tag: str, *, is_covered: bool
) -> None:
    assert covers(rule(tags, repositories), repository, tag) is is_covered


@pytest.mark.parametrize(
    "harmless",
    [
        {},
        None,
        "a rule",
        rule(disabled=True),
        rule(tag_selectors=None),
        rule(tag_selectors=[]),
        rule(scope_selectors=None),
        rule(scope_selectors={"repository": []}),
        rule(tag_selectors=["v*"]),
        # Harbor stores these without a word, and they cover nothing.
        rule(tag_selectors=[{"kind": "regex", "decoration": "matches", "pattern": ".*"}]),
        rule(tag_selectors=[{"kind": "doublestar", "decoration": "nonsense", "pattern": "**"}]),
    ],
)
def test_a_rule_that_selects_nothing_covers_nothing(harmless: object) -> None:
    assert covers(harmless, "library/redis", "7") is False


def test_an_exclusion_covers_everything_else() -> None:
    excluded = [{"kind": "doublestar", "decoration": "excludes", "pattern": "dev-*"}]
    assert covers(rule(tag_selectors=excluded), "redis", "v1") is True
    assert covers(rule(tag_selectors=excluded), "redis", "dev-1") is False


def test_a_pattern_without_an_end_takes_no_time() -> None:
    assert covers(rule("*" * 1000 + "x"), "redis", "y" * 128) is False
    assert covers(rule("*a" * 500), "redis", "a" * 128) is False
    assert covers(rule("*a" * 60 + "*x"), "redis", "a" * 128) is False
    assert covers(rule("*[a-z]" * 150), "redis", "a" * 127 + "1") is False
    assert covers(rule("{a,b}" * 200), "redis", "a" * 200) is False
