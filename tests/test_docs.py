"""What the pages say is run, parsed or followed here."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from airlift import manifest, yamldoc
from airlift.cli import exit as exits
from airlift.cli.main import VERBS, group
from tests import components
from tests.components import ROOT
from tests.support.cli import index_settings

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
PAGE_IDS = [str(page.relative_to(ROOT)) for page in PAGES]

# Commands of the pages that are not run from here, and why.
NOT_RUN = {
    "scripts/test": "it runs these tests",
    "scripts/demo": "tests/integration/test_demo.py runs it",
    "scripts/bench": "it takes minutes",
    "scripts/check": "CI runs it beside the tests",
}


@dataclass(frozen=True)
class Block:
    page: str
    line: int
    language: str
    text: str


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page."""
    start, language, lines = 0, "", []
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if not line.startswith("```"):
            lines.append(line)
        elif start:
            yield Block(page.name, start, language, "\n".join(lines))
            start = 0
        else:
            start, language, lines = number, line.removeprefix("```").strip(), []
    assert not start, f"{page.name}:{start}: the block does not end"


def commands(page: Path) -> list[tuple[int, str]]:
    """The commands of a page's ``console`` blocks, lines that end with a backslash joined, comments left out."""
    found = []
    for block in blocks(page):
        if block.language != "console":
            continue
        text = block.text.replace("\\\n", "  ")
        found += [(block.line, line.strip()) for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return found


def test_the_readme_is_short_enough_to_be_read() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 200


# What follows one page in a group goes on where that page left off.
WALKS = (("README.md",), ("docs/release-engineer.md", "docs/site-administrator.md", "docs/auditor.md"))


@pytest.mark.parametrize("pages", WALKS, ids=lambda pages: pages[-1])
def test_every_command_of_a_page_works_in_the_order_it_is_given(pages: tuple[str, ...], tmp_path: Path) -> None:
    for name in ("manifests", "docs", "scripts"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    environment = {
        "PATH": components.search_path(),
        "HOME": str(tmp_path / "home"),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "LC_ALL": "C.UTF-8",
        **index_settings(),
    }
    (tmp_path / "home").mkdir()
    for page in pages:
        ran = 0
        for line, command in commands(ROOT / page):
            program = command.split()[0]
            if program.startswith("scripts/"):
                assert os.access(ROOT / program, os.X_OK), f"{page}:{line}: {program} is not a program"
            if program in NOT_RUN:
                continue
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", command],
                cwd=tmp_path,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=300,
                check=False,
            )
            assert done.returncode == 0, f"{page}, block of line {line}: {command}\n{done.stdout}{done.stderr}"
            assert "Traceback" not in done.stderr
            ran += 1
        assert ran > 5, f"{page} has {ran} commands"


@pytest.mark.parametrize("page", PAGES, ids=PAGE_IDS)
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target) or target.startswith("#"):
            continue
        path = (page.parent / target.partition("#")[0]).resolve()
        assert path.exists(), f"{page.name}: {target}"


@pytest.mark.parametrize("page", PAGES, ids=PAGE_IDS)
def test_every_yaml_block_of_a_page_is_what_it_says(page: Path) -> None:
    for block in blocks(page):
        place = f"{block.page}:{block.line}"
        if block.language == "yaml" and "kind: Drop" in block.text:
            manifest.decode(yamldoc.parse(block.text.encode(), place))
        elif block.language == "yaml":
            assert list(yaml.parse(block.text)), place


@pytest.mark.parametrize("page", PAGES, ids=PAGE_IDS)
def test_every_airlift_command_of_a_page_names_a_verb_that_exists(page: Path) -> None:
    for line, command in commands(page):
        words = command.split()
        if words[0] == "airlift" and not words[1].startswith("-"):
            assert words[1] in VERBS, f"{page.name}, block of line {line}: {command}"


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_and_stands_in_a_page(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert group.main([verb, "--help"], prog_name="airlift", standalone_mode=False) == 0
    assert "Usage: airlift " + verb in capsys.readouterr().out
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert re.search(rf"airlift {verb}\b", text), f"no page names airlift {verb}"


def test_the_page_of_exit_codes_has_all_of_them() -> None:
    text = (ROOT / "docs" / "exit-codes.md").read_text(encoding="utf-8")
    listed = {int(code) for code in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)}
    assert listed == {exits.OK, exits.FAILURE, exits.INTERRUPTED, *exits.CODES.values()}


def test_the_manifests_key_reference_names_every_key() -> None:
    text = (ROOT / "docs" / "manifest.md").read_text(encoding="utf-8")
    schema = manifest.Manifest.model_json_schema()
    for name, model in {"": schema, **schema["$defs"]}.items():
        for key in model.get("properties", ()):
            assert f"`{key}`" in text, f"docs/manifest.md does not name `{key}` of {name or 'the manifest'}"
