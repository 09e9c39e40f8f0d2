"""The house keeps its shape: what the linters do not see."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from pathlib import Path

import pytest

from airlift import errors
from airlift.cli.main import VERBS
from tests.components import ROOT

SOURCES = sorted(ROOT.glob("airlift/**/*.py"))
IDS = [str(path.relative_to(ROOT)) for path in SOURCES]
FIVE = ["charts", "files", "images", "models", "wheels"]


@pytest.mark.parametrize("path", SOURCES, ids=IDS)
def test_a_file_has_fewer_than_400_lines(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) < 400


@pytest.mark.parametrize("path", SOURCES, ids=IDS)
def test_a_file_of_code_says_what_it_is_for(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), "expected a docstring of the module"


def test_no_module_is_a_drawer_for_everything() -> None:
    drawers = {"utils", "util", "common", "core", "helpers", "misc", "manager", "handler", "handlers", "base"}
    assert [path for path in SOURCES if path.stem in drawers] == []


def test_no_verb_is_longer_than_150_lines() -> None:
    long = {
        path.name: lines
        for path in (ROOT / "airlift" / "cli" / f"{module}.py" for module in VERBS.values())
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > 150
    }
    assert long == {}


@pytest.mark.parametrize("folder", ["kinds", "connected/sources", "site/mirrors", "site/server"])
def test_the_five_kinds_are_everywhere(folder: str) -> None:
    names = {path.stem for path in (ROOT / "airlift" / folder).glob("*.py")}
    assert set(FIVE) - names == set()


def test_the_tree_in_errors_is_the_tree_of_the_classes() -> None:
    drawn = re.findall(r"^( +)([A-Z]\w+Error)\b", inspect.getdoc(errors) or "", re.MULTILINE)
    parents: dict[int, str] = {}
    found = {}
    for indent, name in drawn:
        depth = len(indent)
        above = [parents[level] for level in sorted(parents) if level < depth]
        found[name] = above[-1] if above else "Exception"
        parents = {level: parent for level, parent in parents.items() if level < depth} | {depth: name}
    classes = {
        name: item.__mro__[1].__name__
        for name, item in vars(errors).items()
        if inspect.isclass(item) and issubclass(item, errors.AirliftError)
    }
    assert found == classes


def test_a_public_list_of_names_is_sorted_and_true() -> None:
    for path in SOURCES:
        module = (
            importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"))
            if ("__all__" in path.read_text(encoding="utf-8"))
            else None
        )
        if module is not None:
            assert list(module.__all__) == sorted(
                module.__all__, key=lambda name: (not name.isupper(), not name[0].isupper(), name)
            )
            assert all(hasattr(module, name) for name in module.__all__)


def test_no_file_carries_a_path_of_a_developers_machine() -> None:
    pattern = re.compile(r"/(?:home/[a-z]+|root|Users|work/[a-z]+)/")
    found = []
    for folder in ("airlift", "scripts", "docs", "tests", "manifests", "appliance", ".ci"):
        for path in sorted((ROOT / folder).rglob("*")):
            if (
                path.is_file()
                and path != Path(__file__)
                and path.suffix in {".py", ".md", ".yaml", ".json", ".toml", ".sh", ""}
                and "__pycache__" not in path.parts
            ):
                text = path.read_text(encoding="utf-8", errors="replace")
                found += [f"{path.relative_to(ROOT)}: {match[0]}" for match in pattern.finditer(text)]
    assert found == []
