"""`airlift check` looks at the static trees that exports made, file by file, and `export --static` mends them."""

from __future__ import annotations

import json
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from airlift.digest import hex_of
from airlift.digest import of as digest_of
from airlift.errors import UsageError
from airlift.progress import Silent
from airlift.site import drops, static_tree
from airlift.site.config import Site
from tests.support.charts import chart
from tests.support.cli import airlift, ok
from tests.support.site_bundles import Cargo, make_site, ship, take


def month(number: int) -> Cargo:
    cargo = Cargo()
    cargo.chart(chart("app", f"{number}.0.0"))
    cargo.file("tool", b"tool of month %d" % number)
    cargo.model("acme/fraud", {"config.json": b"{}", "model.bin": b"weights of month %d" % number})
    return cargo


@pytest.fixture
def site(tmp_path: Path) -> Site:
    made = make_site(tmp_path / "site")
    for number in (1, 2):
        take(made, ship(month(number), tmp_path / f"{number}.airlift", sequence=number))
    export(made, tmp_path / "tree")
    return made


def export(site: Site, tree: Path) -> bool:
    return bool(ok("export", "--static", tree, "--site", site.root, "--json", home=site.root.parent).json["changed"])


def check(site: Site, *more: str | Path) -> tuple[int, list[dict[str, Any]]]:
    ran = airlift("check", "--site", site.root, "--json", *more, home=site.root.parent)
    return ran.code, ran.json["findings"]


def test_a_tree_that_shows_another_drop_than_the_active_one_is_told_in_one_finding(site: Site, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    assert check(site) == (0, [])
    assert ok("status", "--site", site.root, "--json", home=tmp_path).json["trees"] == [str(tree)]
    drops.rollback(site, None)
    ran = airlift("check", "--site", site.root, home=tmp_path)
    assert (ran.code, ran.out.splitlines()) == (
        17,
        [
            f"tree     {tree}: shows stable/2, active is stable/1",
            "         of: stable/1",
            f"         do: airlift export --static {tree} --site DIR",
            "1 finding",
        ],
    )
    assert export(site, tree)
    assert check(site) == (0, [])


def test_every_file_that_was_changed_is_found_and_the_next_export_mends_them(site: Site, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    spoil(tree)
    code, found = check(site)
    moved = tree / "hf/acme/fraud/resolve/main/model.bin"
    assert (code, sorted((item["subject"], item["problem"]) for item in found)) == (
        17,
        sorted(
            [
                (f"{tree}/files/tool", f"damaged: its bytes have the digest {digest_of(b'Tool of month 2')}"),
                (str(chart_of(tree)), "missing"),
                (str(moved), f"points to elsewhere, expected {told(tree)}"),
                (
                    f"{tree}/charts/index.yaml",
                    f"damaged: 0 bytes, expected {len(whole(tmp_path, 'charts/index.yaml'))}",
                ),
                (f"{tree}/files.json", "damaged: another content than the drops give"),
                (f"{tree}/files/strange", "is there, and no export made it"),
            ]
        ),
    )
    of = {item["subject"].removeprefix(f"{tree}/"): (item["artifacts"], item["drops"]) for item in found}
    tool = {"kind": "file", "name": f"files/tool:{digest_of(b'tool of month 2')[7:19]}", "drops": ["stable/2"]}
    assert of["files/tool"] == ([tool], ["stable/2"])
    assert of[str(chart_of(tree).relative_to(tree))][0] == [
        {"kind": "chart", "name": "charts/app:2.0.0", "drops": ["stable/2"]}
    ]
    assert [item["kind"] for item in of["hf/acme/fraud/resolve/main/model.bin"][0]] == ["model"]
    assert of["charts/index.yaml"] == ([], ["stable/2"])
    assert export(site, tree)
    assert check(site) == (0, [])
    assert not export(site, tree)


def test_repair_writes_the_tree_again(site: Site, tmp_path: Path) -> None:
    spoil(tmp_path / "tree")
    assert check(site, "--repair") == (0, [])
    assert (tmp_path / "tree/files/tool").read_bytes() == b"tool of month 2"


def test_a_blob_that_is_damaged_in_store_and_tree_is_mended_in_both(site: Site, tmp_path: Path) -> None:
    tree, digest = tmp_path / "tree", digest_of(b"tool of month 2")
    assert (tree / "files/tool").samefile(site.store.path(digest))
    with site.store.path(digest).open("r+b") as stream:
        stream.write(b"T")
    # They are one file, and the store is where it is told.
    assert [(item["place"], item["subject"]) for item in check(site)[1]] == [("store", digest)]
    assert check(site, "--repair", tmp_path / "2.airlift") == (0, [])
    assert (tree / "files/tool").read_bytes() == b"tool of month 2"


def test_a_copy_on_another_disk_is_read(site: Site, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    copied(tree / "files/tool", b"tool of month 2")
    assert check(site) == (0, [])
    assert not export(site, tree)


def test_the_command_that_makes_a_tree_again_can_be_typed_where_its_path_has_a_space(
    site: Site, tmp_path: Path
) -> None:
    tree = tmp_path / "the tree"
    assert export(site, tree)
    tree.unlink()
    code, (found,) = check(site)
    assert (code, found["subject"]) == (17, str(tree))
    assert f"airlift export --static '{tree}' --site DIR" in found["remedy"]


def test_a_tree_that_is_gone_is_told_until_its_line_is_taken_out(site: Site, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.unlink()
    code, (found,) = check(site)
    assert (code, found["subject"], found["problem"]) == (17, str(tree), "the tree is missing")
    assert "take its path out of static.json" in found["remedy"]
    assert "if its disk is not mounted, mount it; else airlift export --static" in found["remedy"]
    # Nor is it made again by a repair, which would write under the place where a disk belongs.
    assert check(site, "--repair") == (17, [found])
    assert not tree.is_symlink()
    (tree.with_name("mine")).mkdir()
    tree.symlink_to("mine")
    assert check(site)[1][0]["problem"] == f"{tree} is a link to mine, which no export made"
    listed = site.root / "static.json"
    assert json.loads(listed.read_text()) == [str(tree)]
    assert airlift("export", "--static", tmp_path / "no" / "tree", "--site", site.root, home=tmp_path).code == 16
    assert json.loads(listed.read_text()) == [str(tree)]
    listed.write_text("[ ]")
    assert check(site) == (0, [])


def test_a_damaged_list_of_trees_is_told_and_nothing_is_written_beside_it(site: Site, tmp_path: Path) -> None:
    listed = site.root / "static.json"
    listed.write_text("{}")
    problem = f"{listed}: expected a JSON list of absolute paths"
    remedy = "remove it, and run airlift export --static once more for each tree"
    assert check(site)[1][0]["problem"] == problem
    ran = ok("status", "--site", site.root, "--json", home=tmp_path)
    assert (ran.json["trees"], ran.err) == ([], f"airlift: warning: {problem}; {remedy}\n")
    before = (tmp_path / "tree").readlink()
    drops.rollback(site, None)
    for name in ("tree", "other"):
        ran = airlift("export", "--static", tmp_path / name, "--site", site.root, home=tmp_path)
        assert (ran.code, ran.err) == (16, f"airlift: error: {problem}\nairlift: hint: {remedy}\n")
    assert (tmp_path / "tree").readlink() == before
    assert not (tmp_path / "other").is_symlink()


class Waiting(Silent):
    """Stops an export that has to wait for another command, until it may go on."""

    def __init__(self) -> None:
        self.waits, self.may_go = threading.Event(), threading.Event()

    def note(self, message: str) -> None:
        self.waits.set()
        assert self.may_go.wait(60), message


@pytest.mark.parametrize("last", ["stable/1", "stable/2"])
def test_an_export_that_waited_for_another_begins_with_what_that_one_left(
    site: Site, tmp_path: Path, last: str
) -> None:
    tree, waiting = tmp_path / "tree", Waiting()
    with ThreadPoolExecutor(1) as pool:
        with site.locked("testing", Silent()):
            late = pool.submit(static_tree.export, site, tree, waiting)
            assert waiting.waits.wait(60)
        drops.activate(site, "stable/1")
        between = static_tree.export(site, tree, Silent()).generation
        drops.activate(site, last)
        waiting.may_go.set()
        assert late.result(60).changed is (last == "stable/2")
    assert (tree / "files/tool").read_bytes() == b"tool of month %d" % int(last[-1])
    # A web server may be on its way through it.
    assert between.is_dir()


def test_a_name_that_somebody_else_has_is_told_before_an_export_waits(site: Site, tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as pool, site.locked("testing", Silent()):
        late = pool.submit(static_tree.export, site, tmp_path, Silent())
        with pytest.raises(UsageError, match="exists and is no export"):
            late.result(60)


def spoil(tree: Path) -> None:
    copied(tree / "files/tool", b"Tool of month 2")
    chart_of(tree).unlink()
    link = tree / "hf/acme/fraud/resolve/main/model.bin"
    link.unlink()
    link.symlink_to("elsewhere")
    (tree / "charts/index.yaml").write_bytes(b"")
    page = tree / "files.json"
    page.write_bytes(page.read_bytes()[::-1])
    (tree / "files/strange").write_bytes(b"mine")


def copied(path: Path, data: bytes) -> None:
    """What an export to another disk has: a file of its own."""
    path.unlink()
    path.write_bytes(data)


def chart_of(tree: Path) -> Path:
    return tree / "charts" / hex_of(digest_of(chart("app", "2.0.0"))) / "app-2.0.0.tgz"


def told(tree: Path) -> str:
    """Where the link of a model's file leads, from one that nobody changed."""
    (revision,) = [p.name for p in (tree / "hf/acme/fraud/resolve").iterdir() if shown(p / "model.bin")]
    return str((tree / f"hf/acme/fraud/resolve/{revision}/model.bin").readlink())


def shown(link: Path) -> bool:
    return link.exists() and (link / "content").read_bytes() == b"weights of month 2"


def whole(folder: Path, name: str) -> bytes:
    """A page as it is without damage."""
    shutil.copytree(folder / "site", folder / "copy")
    ok("export", "--static", folder / "other", "--site", folder / "copy", home=folder)
    return (folder / "other" / name).read_bytes()
