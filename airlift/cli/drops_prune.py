"""``airlift drops prune``: let drops go, in two steps."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import click

from airlift import canonical, fs, limits
from airlift.cli import console, environment, options
from airlift.errors import UsageError, first_of
from airlift.site import drops, prune_plan, retention
from airlift.site.config import load_site
from airlift.site.prune_plan import Plan

_SHOWN: Final = 10


@click.command()
@click.option("--site", "folder", type=options.FOLDER, required=True, help="The site's directory.")
@click.option("--keep", type=click.IntRange(min=1), help="How many of each channel's newest drops stay.")
@click.option(
    "--give-up",
    "given_up",
    multiple=True,
    metavar="RELEASE",
    help="Forget this drop, whose import is not complete and whose bundle is lost; may be repeated.",
)
@click.option("-o", "--output", type=options.FILE, help="Where the plan is written, for review.")
@click.option("--execute", "planned", type=options.EXISTING, help="Do what this plan says.")
@options.as_json
def prune(
    folder: Path,
    keep: int | None,
    given_up: tuple[str, ...],
    output: Path | None,
    planned: Path | None,
    as_json: bool,
) -> None:
    """Plan with --keep N -o PLAN, read the plan, then prune with --execute PLAN.

    Active drops stay, with everything that they or other kept drops need. It works on a full disk.
    """
    if (keep is None) == (planned is None):
        raise UsageError("prune in two steps", hint="first --keep N -o PLAN, then --execute PLAN")
    if planned is not None and given_up:
        raise UsageError(
            "--give-up is for the plan", hint="first --keep N --give-up RELEASE -o PLAN, then --execute PLAN"
        )
    site = load_site(folder)
    names = {drop.release: f"{drop.channel}/{drop.sequence}" for drop in drops.list_drops(site)}
    if planned is not None:
        wanted, http = prune_plan.read_plan(planned), environment.http_settings()
        done = retention.execute(site, wanted, console.progress(), http, now=environment.now())
    else:
        done = retention.plan(site, keep or 1, [drops.find(site, release) for release in given_up])
        if output is not None:
            options.refuse_to_replace(output, _is_plan, "plan")
            fs.write(output, canonical.encode(done.to_json()))
    if done.waits_for:
        console.warn(
            f"nothing is deleted in the registry while the import of {', '.join(done.waits_for)} is not complete:"
            f" import its bundle again, or, where that is lost, make and execute a plan with --give-up RELEASE; then"
            f" execute this same plan{' once more' if planned is not None else ''}"
        )
    for mirror, left in done.mirrors_left:
        console.warn(
            f"{mirror} got these drops, and site.yaml does not name it any more: nothing is deleted there, and once"
            f" they are pruned nobody here knows what it has; it may still show {first_of(left, _SHOWN)}"
        )
    if done.unsure_of:
        which = ", ".join(names.get(release, release) for release in done.unsure_of)
        console.warn(
            f"the index of {which} in drops/ is missing or damaged, so nothing is deleted but what the pruned drops"
            " served: airlift check --site DIR --repair BUNDLE with its bundle mends it; make a plan after that for the"
            " rest"
        )
    if as_json:
        console.result_json(done.to_json())
    else:
        _tell(done, names, is_done=planned is not None)


def _tell(done: Plan, names: Mapping[str, str], *, is_done: bool) -> None:
    verb = "pruned" if is_done else "would prune"
    for release in done.releases:
        # One that an earlier run of the same plan took away has no name any more.
        console.answer(f"{verb} {names.get(release, 'an unknown drop')}  {release}")
    for release in done.given_up:
        console.answer(f"{verb} {names.get(release, 'an unknown drop')}, which is not complete  {release}")
    count = console.count(len(done.releases) + len(done.given_up), "drop")
    line = f"{verb} {count} and {console.count(len(done.blobs), 'blob')}, {console.size(done.size)}"
    if done.manifests:
        line += f", in the registry {console.count(len(done.manifests), 'manifest')}"
    if done.wheels_left and not is_done:
        line += f"; {console.count(len(done.wheels_left), 'wheel')} may stay in the package index"
    console.answer(line)


def _is_plan(path: Path) -> bool:
    if path.stat().st_size > limits.LOCK:
        return False
    try:
        prune_plan.read_plan(path)
    except UsageError:
        return False
    return True
