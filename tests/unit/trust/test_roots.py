from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from airlift.errors import ManifestError, TrustError, UnsupportedVersionError, UsageError
from airlift.trust.roots import dump_trust, load_trust, make_trust, parse_trust
from tests.components import ROOT
from tests.support.bundles import ANN, BOB, EVE, SITE, trust


def document() -> dict[str, Any]:
    value: dict[str, Any] = json.loads(dump_trust(trust("ann", "bob", threshold=2)))
    return value


def test_a_trust_comes_back_from_its_file(tmp_path: Path) -> None:
    made = make_trust(
        ["stable"], [("ann", [ANN.public_pem]), ("bob", [BOB.public_pem, EVE.public_pem])], 2, 5, allow_plain=True
    )
    path = tmp_path / "trust.json"
    path.write_bytes(dump_trust(made))
    read = load_trust(path)
    assert read == made
    assert read.channels["stable"].min_sequence == 5
    assert read.fingerprint == made.fingerprint


def test_the_fingerprint_is_sixteen_groups_and_does_not_depend_on_order_or_encoding() -> None:
    one = trust("ann", "bob")
    other = document() | {"threshold": 1}
    other["signers"].reverse()
    other["signers"][0]["keys"][0] = other["signers"][0]["keys"][0].replace("\n", "\r\n")
    assert parse_trust(other, file=None).fingerprint == one.fingerprint
    groups = one.fingerprint.split(" ")
    assert len(groups) == 16
    assert all(len(group) == 4 for group in groups)
    assert one.fingerprint != trust("ann", "bob", threshold=2).fingerprint
    assert one.fingerprint != trust("ann", "bob", allow_plain=True).fingerprint
    assert one.fingerprint != trust("ann", "bob", min_sequence=2).fingerprint


def test_suites_and_allow_plain_have_safe_defaults() -> None:
    value = document()
    del value["suites"], value["allow_plain"]
    read = parse_trust(value, file=None)
    assert (read.suites, read.allow_plain) == (("default",), False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"extra": 1}, "t.json: extra: unknown key; known are: apiVersion, kind, signers, threshold, channels, suites"),
        ({"kind": "Drop"}, "t.json: kind: expected Trust, got 'Drop'"),
        ({"signers": []}, "t.json: signers: a list of 1 to 100 entries was expected"),
        ({"signers": {}}, "t.json: signers: a list of 1 to 100 entries was expected"),
        ({"threshold": 0}, "t.json: threshold: a whole number from 1 was expected, got '0'"),
        ({"threshold": True}, "t.json: threshold: a whole number from 1 was expected, got 'True'"),
        ({"threshold": "2"}, "t.json: threshold: a whole number from 1 was expected, got '2'"),
        ({"threshold": 3}, "t.json: threshold: 3 persons have to sign, but only 2 are listed"),
        ({"channels": {}}, "t.json: channels: a mapping of at least one channel was expected"),
        ({"channels": {"A b": {"min_sequence": 1}}}, "t.json: channels: 'A b' is not 1 to 64 of a-z"),
        ({"channels": {"s": {}}}, "t.json: channels.s.min_sequence: is missing"),
        ({"channels": {"s": {"min_sequence": 1, "x": 1}}}, "t.json: channels.s.x: unknown key"),
        ({"channels": {"s": {"min_sequence": -1}}}, "t.json: channels.s.min_sequence: a whole number from 0"),
        ({"suites": ["none"]}, "t.json: suites[0]: 'none' is not known; known are: default"),
        ({"suites": ["default", "default"]}, "t.json: suites[1]: default is listed twice"),
        ({"allow_plain": "yes"}, "t.json: allow_plain: true or false was expected"),
    ],
)
def test_what_is_wrong_in_a_trust_file_is_named_with_its_place(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ManifestError) as caught:
        parse_trust(document() | change, file="t.json")
    assert caught.value.message.startswith(message)


@pytest.mark.parametrize("key", ["\u00b2", "9" * 900, "a[b].c"])
def test_a_key_that_looks_like_a_number_is_an_unknown_key_with_its_line(key: str, tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    for value in (document() | {key: 1}, document() | {"signers": [{**document()["signers"][0], key: 1}]}):
        path.write_text(json.dumps(value))
        with pytest.raises(ManifestError, match=r"unknown key") as caught:
            load_trust(path)
        assert caught.value.line == 1


def test_another_api_version_is_named_as_that() -> None:
    with pytest.raises(UnsupportedVersionError, match="apiVersion: expected airlift/v1, got 'airlift/v9'"):
        parse_trust(document() | {"apiVersion": "airlift/v9"}, file="t.json")


@pytest.mark.parametrize("key", ["apiVersion", "kind", "signers", "threshold", "channels"])
def test_a_missing_key_is_named(key: str) -> None:
    value = document()
    del value[key]
    with pytest.raises(ManifestError, match=f"t.json: {key}: is missing"):
        parse_trust(value, file="t.json")


def _with_keys(keys: list[list[bytes]]) -> dict[str, Any]:
    persons = [{"person": f"p{index}", "keys": [pem.decode() for pem in pems]} for index, pems in enumerate(keys)]
    return document() | {"signers": persons, "threshold": 1}


def _crlf(pem: bytes) -> bytes:
    return pem.replace(b"\n", b"\r\n")


@pytest.mark.parametrize(
    "keys",
    [
        [[ANN.public_pem, _crlf(ANN.public_pem)]],
        [[ANN.public_pem], [ANN.public_pem]],
        [[ANN.public_pem], [BOB.public_pem, _crlf(ANN.public_pem)]],
    ],
)
def test_a_key_that_is_held_twice_is_refused(keys: list[list[bytes]]) -> None:
    with pytest.raises(ManifestError, match=f"key {ANN.key_id} is held twice; p0 has it already"):
        parse_trust(_with_keys(keys), file="t.json")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("ann", "ann"),
        ("Ann Lee", "ann lee"),
        ("Andr\u00e9", "Andre\u0301"),
        ("\ufb01n", "fin"),
        ("Stra\u00dfe", "STRASSE"),
    ],
)
def test_a_person_who_is_listed_twice_is_refused_however_the_name_is_written(one: str, other: str) -> None:
    value = document()
    value["signers"][0]["person"], value["signers"][1]["person"] = one, other
    with pytest.raises(ManifestError, match=rf"signers\[1\].person: {other} is listed twice"):
        parse_trust(value, file="t.json")


@pytest.mark.parametrize("name", ["", " ann", "ann\u200b", "a\u202enn", "a\u00a0n", "a\nb", "\ud800", "a" * 201])
def test_a_name_that_nobody_sees_as_it_is_is_refused(name: str) -> None:
    value = document()
    value["signers"][1]["person"] = name
    with pytest.raises(ManifestError, match=r"signers\[1\].person: a name of 1 to 200 printable characters"):
        parse_trust(value, file="t.json")


@pytest.mark.parametrize("pem", [SITE.public_pem.decode(), "nonsense", ""])
def test_something_else_than_a_signers_key_is_refused_with_its_place(pem: str) -> None:
    value = document()
    value["signers"][1]["keys"] = [pem]
    with pytest.raises(ManifestError, match=r"t.json: signers\[1\].keys\[0\]: the public key is "):
        parse_trust(value, file="t.json")


def test_a_key_that_stands_there_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "trust.json"
    path.write_bytes(dump_trust(trust()).replace(b'"threshold": 1,', b'"threshold": 1, "threshold": 2,'))
    with pytest.raises(ManifestError, match="threshold"):
        load_trust(path)


@pytest.mark.parametrize("text", ["{", '{"a": NaN}', "{" + '"a":{' * 2000, "a: [b", "\ufeff\0"])
def test_a_file_that_cannot_be_parsed_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "trust.json"
    path.write_text(text)
    with pytest.raises(ManifestError):
        load_trust(path)


YAML = """\
apiVersion: airlift/v1
kind: Trust
signers:
  - person: ann
    keys:
      - |
        {}
threshold: 1
channels: {{stable: {{min_sequence: 1}}}}
"""


def test_a_trust_file_may_be_yaml(tmp_path: Path) -> None:
    path = tmp_path / "trust.yaml"
    path.write_text(YAML.format(ANN.public_pem.decode().replace("\n", "\n        ")))
    assert load_trust(path) == trust()


def test_a_mistake_in_a_file_has_its_line(tmp_path: Path) -> None:
    path = tmp_path / "trust.yaml"
    path.write_text(YAML.format("no key"))
    with pytest.raises(ManifestError) as caught:
        load_trust(path)
    assert caught.value.message == f"{path}:6: signers[0].keys[0]: the public key is not a public key in PEM"
    path.write_text(YAML.format("no key").replace("threshold: 1\n", ""))
    with pytest.raises(ManifestError) as caught:
        load_trust(path)
    assert caught.value.message == f"{path}:1: threshold: is missing"


def test_the_published_schema_takes_what_we_write_and_refuses_what_we_refuse() -> None:
    schema = json.loads((ROOT / "airlift" / "trust" / "trust.schema.json").read_bytes())
    validator = Draft202012Validator(schema)
    validator.validate(document())
    for change in ({"extra": 1}, {"kind": "Drop"}, {"threshold": 0}, {"channels": {}}, {"suites": []}):
        assert list(validator.iter_errors(document() | change))


def test_making_a_trust_that_cannot_work_is_a_mistake_in_the_call() -> None:
    with pytest.raises(UsageError, match="threshold: 2 persons have to sign, but only 1 are listed"):
        make_trust(["stable"], [("ann", [ANN.public_pem])], 2)
    with pytest.raises(UsageError, match="is held twice"):
        make_trust(["stable"], [("ann", [ANN.public_pem]), ("bob", [ANN.public_pem])])


def test_a_persons_keys_may_be_given_apart() -> None:
    made = make_trust(["stable"], [("ann", [ANN.public_pem]), ("ann", [BOB.public_pem])])
    assert [len(person.keys) for person in made.signers] == [2]


def test_a_typed_fingerprint_is_compared_without_its_spaces_colons_and_case() -> None:
    made = trust()
    for given in (made.fingerprint, made.fingerprint.upper().replace(" ", ":"), made.fingerprint.replace(" ", "")):
        made.check_fingerprint(given)
    for given in ("", made.fingerprint[:-1], made.fingerprint[:-1] + "?", "0" * 64):
        with pytest.raises(TrustError, match="the trust file has the fingerprint"):
            made.check_fingerprint(given)
