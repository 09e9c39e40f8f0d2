from __future__ import annotations

from pathlib import Path

import pytest

from airlift.kinds import semver

_VECTORS = Path(__file__).resolve().parents[2] / "vectors" / "charts" / "semver-ranges.tsv"
_ROWS = [line.split("\t") for line in _VECTORS.read_text().splitlines() if not line.startswith("#")]


def _answer(wanted: str, version: str) -> str:
    try:
        inside = semver.parse_range(wanted)
    except ValueError:
        return "badrange"
    try:
        return str(semver.parse_version(version) in inside).lower()
    except ValueError:
        return "badversion"


def test_every_vector_of_the_library_in_helm_gets_its_answer() -> None:
    wrong = [row for row in _ROWS if _answer(row[0], row[1]) != row[2]]
    assert len(_ROWS) > 400
    assert wrong == []


def test_versions_are_ordered_by_precedence() -> None:
    texts = [
        "1.0.0-alpha",
        "1.0.0-alpha.1",
        "1.0.0-alpha.beta",
        "1.0.0-beta.2",
        "1.0.0-beta.11",
        "1.0.0-rc.1",
        "v1",
        "1.1",
    ]
    versions = [semver.parse_version(text) for text in texts]
    backwards = versions[::-1]
    backwards.sort()
    assert backwards == versions


def test_a_v_short_forms_and_build_metadata_do_not_matter_for_equality() -> None:
    assert semver.parse_version("v1.2") == semver.parse_version("1.2.0+build.7")


def test_among_equals_the_newest_is_the_one_without_v_and_with_the_last_metadata() -> None:
    versions = [semver.parse_version(text) for text in ("v1.0.0", "1.0.0+1", "1.0.0+2", "0.9.0")]
    assert semver.newest(versions).text == "1.0.0+2"


@pytest.mark.parametrize(
    "text", ["", "1.2.3.4", "1..2", "latest", "1.0.0-01", "x", "1" * 300, "99999999999999999999.0.0"]
)
def test_what_is_no_version_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a semantic version"):
        semver.parse_version(text)


def test_ranges_are_bounded() -> None:
    with pytest.raises(ValueError, match="at most 512"):
        semver.parse_range("1 " * 300)
    with pytest.raises(ValueError, match="at most 32"):
        semver.parse_range("||".join(["1"] * 40))


def test_a_hostile_range_is_read_in_no_time() -> None:
    with pytest.raises(ValueError, match="is not a version range"):
        semver.parse_range("1" + "   1" * 120 + " !")
