from __future__ import annotations

from enum import StrEnum
from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from airlift import limits, reference, yamldoc
from airlift.errors import ManifestError, UnsupportedVersionError


def refused(text: str | bytes) -> ManifestError:
    data = text.encode() if isinstance(text, str) else text
    with pytest.raises(ManifestError) as caught:
        yamldoc.parse(data, "m.yaml")
    return caught.value


def test_values_are_text_whole_numbers_truth_values_and_nothing() -> None:
    document = yamldoc.parse(b"a: x\nb: -12\nc: true\nd: False\ne: null\nf:\ng: ~\nh: [0, {i: 'no'}]\n", "m.yaml")
    assert document.value == {
        "a": "x", "b": -12, "c": True, "d": False, "e": None, "f": None, "g": None, "h": [0, {"i": "no"}],
    }  # fmt: skip


def test_json_is_read_too() -> None:
    document = yamldoc.parse(b'{"a": ["\\u00e9\\ud83d\\ude00", 1, true, null], "b": {"c": "\\n"}}', "m.json")
    assert document.value == {"a": ["é😀", 1, True, None], "b": {"c": "\n"}}


def test_an_empty_document_is_nothing() -> None:
    assert yamldoc.parse(b"", "m.yaml").value is None
    assert yamldoc.parse(b"# only this\n", "m.yaml").value is None


def test_a_byte_order_mark_is_skipped() -> None:
    assert yamldoc.parse(b"\xef\xbb\xbfa: 1\n", "m.yaml").value == {"a": 1}


def test_block_text_is_kept() -> None:
    assert yamldoc.parse(b"a: |\n  3.10\n  no\nb: >-\n  010\n", "m.yaml").value == {"a": "3.10\nno\n", "b": "010"}


def test_small_anchors_are_allowed_and_expanded() -> None:
    document = yamldoc.parse(b"a: &t {python: '3.12'}\nb: [*t, *t]\n", "m.yaml")
    assert document.value["b"] == [{"python": "3.12"}, {"python": "3.12"}]
    assert document.line_of(("b", 1, "python")) == 1


def test_every_place_has_a_line() -> None:
    document = yamldoc.parse(b"a: 1\nb:\n  - x\n  - c: 2\n    d:\n      - 3\n", "m.yaml")
    assert document.line_of(()) == 1
    assert document.line_of(("b",)) == 2
    assert document.line_of(("b", 1)) == 4
    assert document.line_of(("b", 1, "d")) == 5
    assert document.line_of(("b", 1, "d", 0)) == 6
    assert document.line_of(("b", 2)) is None
    assert document.line_of(("a", "x")) is None


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("3.10", "a number"),
        ("3.12", "a number"),
        ("1.", "a number"),
        (".5", "a number"),
        ("1e3", "a number"),
        ("010", "a number"),
        ("08", "a number"),
        ("+7", "a number"),
        ("0x1F", "a number"),
        ("0o17", "a number"),
        ("0b11", "a number"),
        ("1_000", "a number"),
        ("12:30", "a number"),
        (".inf", "a number"),
        (".NaN", "a number"),
        ("1234567890123456789", "a number"),
        ("2026-01-01", "a date"),
        ("2026-01-01T00:00:00Z", "a date"),
    ],
)
def test_what_another_reader_takes_for_something_else_has_to_be_quoted(text: str, meaning: str) -> None:
    error = refused(f"a:\n  - {text}\n")
    assert str(error) == f"m.yaml:2: a[0]: unquoted {text} may be read as {meaning}"
    assert error.hint == f'quote it: "{text}"'
    assert yamldoc.parse(f"a: ['{text}', \"{text}\"]".encode(), "m.yaml").value == {"a": [text, text]}


@pytest.mark.parametrize("text", ["no", "NO", "yes", "Yes", "on", "off", "OFF"])
def test_norway_has_to_be_quoted(text: str) -> None:
    error = refused(f"country: {text}\n")
    assert str(error) == f"m.yaml:1: country: unquoted {text} may be read as true or false"
    assert error.hint == f'write true or false, or quote it: "{text}"'


@pytest.mark.parametrize(
    "text", ["1.2.3", "v1", "~4.11", "127.0.0.1:8080", "sha256:12", "y", "n", "linux/amd64", "1h", "-"]
)
def test_plain_text_needs_no_quotes(text: str) -> None:
    assert yamldoc.parse(f"a: ['{text}']\nb: {text if text != '-' else 'x'}\n".encode(), "m.yaml").value["a"] == [text]


def test_all_guesses_are_said_at_once() -> None:
    error = refused("a: 3.10\nb: {c: no}\n")
    assert str(error) == (
        "m.yaml:1: a: unquoted 3.10 may be read as a number\nm.yaml:2: b.c: unquoted no may be read as true or false"
    )
    assert error.hint == 'quote it: "3.10"\nwrite true or false, or quote it: "no"'
    assert (error.file, error.line, error.where) == ("m.yaml", 1, "a")


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("a: 1\nb: 2\na: 3\n", "m.yaml:3: a: key is there twice, first on line 1", None),
        ("x: [{a: 1, a: 1}]\n", "m.yaml:1: x[0].a: key is there twice, first on line 1", None),
        ("a: 1\n---\nb: 2\n", "m.yaml:2: a second document starts here, expected one per file", None),
        (
            "a:\n\t- 1\n",
            "m.yaml:2: not YAML: found character '\\t' that cannot start any token",
            "indent with spaces; YAML does not take tabs",
        ),
        ("a: [1\nb: 2\n", "m.yaml:2: not YAML: expected ',' or ']', but got ':'", None),
        ("a: !!python/object/apply:os.system [x]\n", "m.yaml:1: a: tag !!python/object/apply:os.system is not supported", "leave the tag out; quote what is text"),
        ("a: !!float 1\n", "m.yaml:1: a: tag !!float is not supported", "leave the tag out; quote what is text"),
        ("a: !x 1\n", "m.yaml:1: a: tag !x is not supported", "leave the tag out; quote what is text"),
        ("a: &x {b: 1}\nc:\n  <<: *x\n", "m.yaml:3: c: merge keys (<<) are not supported", "write the keys out"),
        ("a: *x\n", "m.yaml:1: a: alias *x points at nothing that stands before it", None),
        ("a: &x [*x]\n", "m.yaml:1: a[0]: alias *x points at nothing that stands before it", None),
        ("a: &x 1\nb: &x 2\n", "m.yaml:2: b: anchor &x is there twice", None),
        ("1: a\n", "m.yaml:1: expected text as a key, got 1", 'quote it: "1"'),
        ("true: a\n", "m.yaml:1: expected text as a key, got true", 'quote it: "true"'),
        ("a:\n  ? [x]\n  : y\n", "m.yaml:2: a: expected text as a key", None),
        ("a: \x00\n", "m.yaml:1: not YAML: character U+0000 is not allowed", None),
        ('a: "\\ud800"\n', "m.yaml:1: a: half a surrogate pair is not text", None),
        ("a: &b " + "[" * 40 + "]" * 40, "m.yaml:1: a[0][0][0]: nested more than 32 deep", None),
    ],
)  # fmt: skip
def test_what_is_not_strict_is_refused_with_its_line(text: str, message: str, hint: str | None) -> None:
    error = refused(text)
    assert str(error) == message
    assert error.hint == hint


def test_nesting_beyond_pythons_stack_is_refused_all_the_same() -> None:
    assert "nested more than 32 deep" in str(refused("[" * 100_000))
    assert "nested more than 32 deep" in str(refused("- " * 100_000))


def test_an_alias_bomb_is_refused() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    assert str(refused("\n".join(lines))) == "m.yaml:4: a3[7]: aliases expand to more than 10000 values"


def test_what_is_not_utf_8_is_refused() -> None:
    error = refused(b"a: 1\nb: caf\xe9\n")
    assert (str(error), error.hint) == ("m.yaml:2: not UTF-8", "save the file as UTF-8")
    assert str(refused("a: 1\n".encode("utf-16"))) == "m.yaml:1: not UTF-8"


def test_a_document_that_is_too_large_is_refused_before_it_is_parsed() -> None:
    error = refused(b"#" * (limits.DOCUMENT + 1))
    assert str(error) == "m.yaml: 4194305 bytes, at most 4194304 are accepted"


def test_a_file_that_cannot_be_read_is_a_manifest_error(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"^reading .*no.yaml: No such file or directory$"):
        yamldoc.load(tmp_path / "no.yaml")


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    name: str
    image: str | None = None

    @model_validator(mode="after")
    def _parses(self) -> Inner:
        if self.image:
            with yamldoc.refusals():
                reference.parse(self.image)
        return self


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, populate_by_name=True)
    count: int = 1
    is_on: bool = Field(default=False, alias="on_")
    inner: list[Inner] = []
    either: list[Inner] | Inner | None = None
    colour: Colour = Colour.RED
    pair: tuple[str, ...] = ()
    path: Path = Path()
    even: int = 0

    @field_validator("even")
    @classmethod
    def _even(cls, value: int) -> int:
        if value % 2:
            raise ValueError(f"expected an even number, got {value}")
        return value


def problems(text: str) -> tuple[list[str], str | None]:
    with pytest.raises(ManifestError) as caught:
        yamldoc.validate(Outer, yamldoc.parse(text.encode(), "m.yaml"))
    return str(caught.value).splitlines(), caught.value.hint


def test_a_right_document_becomes_a_model() -> None:
    text = "count: 2\ninner: [{name: a}]\ncolour: blue\npair: [x, y]\npath: a/b\non_: true\n"
    made = yamldoc.validate(Outer, yamldoc.parse(text.encode(), "m.yaml"))
    assert (made.count, made.inner[0].name, made.colour, made.pair) == (2, "a", Colour.BLUE, ("x", "y"))
    assert (made.path, made.is_on) == (Path("a/b"), True)


def test_every_problem_has_a_line_of_its_own_in_the_documents_order() -> None:
    lines, hint = problems(
        "inner:\n  - name: a\n    imagee: x\n  - image: 'UP:'\n    name: b\n  - image: x\n"
        "count: '1'\ncolour: green\npair: x\neven: 3\non_: 1\nelse: 1\n"
    )
    assert lines == [
        "m.yaml:3: inner[0].imagee: unknown key",
        "m.yaml:4: inner[1]: not an image reference: 'UP:': 'library/UP' is not a repository path (lower case letters, digits, '.', '_', '-', '/')",
        "m.yaml:6: inner[2].name: required key is missing",
        "m.yaml:7: count: expected a whole number, got '1'",
        "m.yaml:8: colour: expected 'red' or 'blue', got 'green'",
        "m.yaml:9: pair: expected a list, got 'x'",
        "m.yaml:10: even: expected an even number, got 3",
        "m.yaml:11: on_: expected true or false, got 1",
        "m.yaml:12: else: unknown key",
    ]
    assert hint == (
        "did you mean `image`?\n"
        "write it in full, such as docker.io/library/redis:7.4\n"
        "known keys: colour, count, either, even, inner, on_, pair, path"
    )


def test_a_number_where_text_is_wanted_has_to_be_quoted() -> None:
    assert problems("inner: [{name: 7}, {name: true}, {name: }]\n") == (
        [
            "m.yaml:1: inner[0].name: expected text, got 7",
            "m.yaml:1: inner[1].name: expected text, got true",
            "m.yaml:1: inner[2].name: expected text, got nothing",
        ],
        'quote it: "7"\nquote it: "true"',
    )


def test_of_alternatives_the_deepest_problem_is_said() -> None:
    assert problems("either: 5\n")[0] == ["m.yaml:1: either: expected a list or a mapping, got 5"]
    assert problems("either: [{name: 5}]\n")[0] == ["m.yaml:1: either[0].name: expected text, got 5"]


def test_python_names_of_fields_are_no_keys() -> None:
    assert problems("is_on: true\n")[0] == ["m.yaml:1: is_on: unknown key"]


def test_long_values_are_cut() -> None:
    (line,), _ = problems(f"count: {'x' * 500}\n")
    assert line == f"m.yaml:1: count: expected a whole number, got '{'x' * 79}..."


def test_another_version_or_kind_is_said_before_anything_else() -> None:
    document = yamldoc.parse(b"apiVersion: airlift/v2\nkind: Drop\nnew: 1\n", "m.yaml")
    with pytest.raises(UnsupportedVersionError) as caught:
        yamldoc.check_version(document, api_version="airlift/v1", kind="Drop")
    assert str(caught.value) == "m.yaml:1: apiVersion: expected 'airlift/v1', got 'airlift/v2'"
    assert caught.value.hint == "this airlift reads `apiVersion: airlift/v1` with `kind: Drop`"
    document = yamldoc.parse(b"apiVersion: airlift/v1\nkind: Trust\n", "m.yaml")
    with pytest.raises(UnsupportedVersionError, match=r"^m.yaml:2: kind: expected 'Drop', got 'Trust'$"):
        yamldoc.check_version(document, api_version="airlift/v1", kind="Drop")
    yamldoc.check_version(yamldoc.parse(b"[]", "m.yaml"), api_version="airlift/v1", kind="Drop")
