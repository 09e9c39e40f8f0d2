from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from airlift.cli.main import run
from airlift.connected import starter
from airlift.errors import ManifestError
from airlift.trust import roots


def test_init_writes_the_starter_and_never_overwrites(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "a" / "b"
    assert run(["init", str(folder)]) == 0
    path = folder / "drop.yaml"
    assert path.read_bytes() == starter.text()
    path.write_text("mine")
    capsys.readouterr()
    assert run(["init", str(folder)]) == 2
    assert path.read_text() == "mine"
    assert capsys.readouterr().err == (
        f"airlift: error: {path} is there already\nairlift: hint: name another directory, or move that file away\n"
    )


def test_init_follows_no_dangling_link(tmp_path: Path) -> None:
    (tmp_path / "drop.yaml").symlink_to(tmp_path / "elsewhere")
    assert run(["init", str(tmp_path)]) == 2
    assert not (tmp_path / "elsewhere").exists()


def schema(name: str, capsys: pytest.CaptureFixture[str]) -> Any:
    assert run(["schema", name]) == 0
    value = json.loads(capsys.readouterr().out)
    jsonschema.Draft202012Validator.check_schema(value)
    return jsonschema.Draft202012Validator(value)


def test_the_manifests_schema_takes_the_starter_and_short_forms(capsys: pytest.CaptureFixture[str]) -> None:
    validator = schema("manifest", capsys)
    value = yaml.safe_load(starter.text())
    value["charts"] = ["oci://ghcr.io/org/charts/app:1.2.3", {"path": "./x"}]
    validator.validate(value)
    assert not validator.is_valid({**value, "image": []})
    assert not validator.is_valid({**value, "images": [5]})


def test_the_sites_schema_takes_a_site(capsys: pytest.CaptureFixture[str]) -> None:
    validator = schema("site", capsys)
    validator.validate({"url": "http://mirror.example:8080", "registry": {"url": "https://harbor.example"}})
    assert not validator.is_valid({"url": "http://mirror.example:8080", "port": 1})


def test_the_trust_files_schema_agrees_with_its_reader(capsys: pytest.CaptureFixture[str]) -> None:
    validator = schema("trust", capsys)
    right = {
        "apiVersion": "airlift/v1",
        "kind": "Trust",
        "signers": [{"person": "alice", "keys": ["-----BEGIN PUBLIC KEY-----"]}],
        "threshold": 1,
        "channels": {"stable": {"min_sequence": 1}},
        "suites": ["default"],
        "allow_plain": False,
    }
    validator.validate(right)
    # The reader goes on to the key, which is none: everything before it was right.
    with pytest.raises(ManifestError, match=r"signers\[0\]\.keys\[0\]"):
        roots.parse_trust(right, file="trust.json")
    wrong: list[dict[str, Any]] = [
        {**right, "more": 1},
        {**right, "kind": "Drop"},
        {**right, "threshold": 0},
        {**right, "signers": []},
        {**right, "channels": {}},
        {**right, "channels": {"Stable!": {"min_sequence": 1}}},
        {**right, "suites": []},
        *({key: item for key, item in right.items() if key != gone} for gone in ("apiVersion", "signers", "channels")),
    ]
    for value in wrong:
        assert not validator.is_valid(value), value
        with pytest.raises(ManifestError):
            roots.parse_trust(value, file="trust.json")
