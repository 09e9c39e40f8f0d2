"""root works on a site that belongs to another user: it makes no file there which that user could not use any more."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from airlift.errors import UsageError
from airlift.site import drops
from airlift.site.config import Site, load_site
from tests.components import require_root
from tests.support.cli import airlift
from tests.support.site_bundles import make_site, month, take

OWNER = 65534


def owners(site: Site) -> dict[str, int]:
    return {str(path.relative_to(site.root)): path.lstat().st_uid for path in [site.root, *site.root.rglob("*")]}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A site of nobody's with two drops, and the bundle of a third."""
    require_root()
    made = make_site(tmp_path / "site")
    for number in (1, 2):
        take(made, month(tmp_path, number))
    month(tmp_path, 3)
    for path in [made.root, *made.root.rglob("*")]:
        os.chown(path, OWNER, OWNER)
    return made


@pytest.mark.parametrize(
    "verb",
    [
        ("import", "3.airlift"),
        ("check", "--repair", "1.airlift"),
        ("check", "--repair"),
        ("site", "recover", "--min-sequence", "stable=2", "--min-sequence", "stable=2"),
    ],
    ids=" ".join,
)
def test_root_makes_nothing_in_a_site_of_another_user(site: Site, tmp_path: Path, verb: tuple[str, ...]) -> None:
    if verb[0] == "check":
        (site.drops_dir / drops.find(site, "stable/1").release / "sbom.cdx.json").unlink()
    if verb[1] == "recover":
        verb = (*verb, "--fingerprint", site.trust.fingerprint)
        for path in site.root.glob("state.db*"):
            path.unlink()
    before = owners(site)
    ran = airlift(*verb, "--site", site.root, home=tmp_path)
    assert ran.code == 2, ran.err
    assert ran.err.splitlines()[-2:] == [
        f"airlift: error: {site.root} belongs to nobody, who could not work any more with what root makes there",
        "airlift: hint: run it as that user: sudo -u nobody airlift ..., or runuser -u nobody -- airlift ...",
    ]
    assert owners(site) == before


def test_what_root_may_do_leaves_the_site_to_its_user(site: Site, tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    for verb in (
        ("status",),
        ("import", "3.airlift", "--dry-run"),
        ("drops", "activate", "stable/1"),
        ("drops", "activate", "stable/2"),
        ("drops", "prune", "--keep", "1", "-o", plan),
        ("drops", "prune", "--execute", plan),
        ("check",),
    ):
        assert airlift(*verb, "--site", site.root, home=tmp_path).code == 0
    assert set(owners(site).values()) == {OWNER}


def test_a_site_of_a_user_without_a_name_is_refused_by_number(site: Site) -> None:
    os.chown(site.root, 54321, 54321)
    with pytest.raises(UsageError, match="belongs to the user 54321") as caught:
        load_site(site.root).refuse_foreign_root()
    assert caught.value.hint == "run it as that user: setpriv --reuid 54321 --clear-groups airlift ..."
