"""``airlift resolve``: a manifest becomes a lock."""

from __future__ import annotations

from pathlib import Path

import click

from airlift import fs
from airlift import lock as locks
from airlift import manifest as manifests
from airlift.cli import console, environment, options
from airlift.connected import places, resolver
from airlift.errors import ResolveError, UsageError


@click.command()
@click.argument("manifest", type=options.EXISTING)
@click.option("-o", "--output", type=options.FILE, help="The lock; default: MANIFEST without its ending + .lock.json.")
@click.option("--update", multiple=True, metavar="NAME|all", help="Move the pins of this entry (repeat), or of all.")
@click.option("--check", is_flag=True, help="Compare manifest and lock, offline; change nothing.")
@options.cache
@options.as_json
def command(
    manifest: Path,
    output: Path | None,
    update: tuple[str, ...],
    check: bool,
    cache_dir: Path | None,
    no_cache: bool,
    as_json: bool,
) -> None:
    """Pin everything that MANIFEST asks for, by digest and size."""
    asked = manifests.load(manifest)
    target = output or manifest.with_name(f"{manifest.stem}.lock.json")
    if not target.parent.is_dir():
        raise UsageError(f"{target.parent} is not a directory")
    old = _last(target) if target.exists() else None
    settings = options.settings(manifest.parent, target.parent, tuple(asked.platforms), cache_dir, no_cache=no_cache)
    if check:
        if old is None:
            raise UsageError(f"--check: there is no lock {target}", hint="run airlift resolve")
        resolver.check(asked, old, settings)
        lock = old
    else:
        lock = resolver.resolve(asked, settings, previous=old, update=update)
        data = lock.encode()
        places.remember(environment.cache_folder(cache_dir), data, target, manifest.parent)
        if old is None or old.encode() != data:
            fs.write(target, data)
    artifacts = list(lock.artifacts())
    size = sum(blob.size for blob in lock.blobs())
    state = "up to date" if old == lock else "written"
    console.say(f"{target}: {state}, {console.count(len(artifacts), 'artifact')}, {console.size(size)}")
    if as_json:
        console.result_json(
            {
                "lock": str(target),
                "changed": old != lock,
                "content_id": lock.layout().content_id,
                "size": size,
                "entries": [
                    {
                        "kind": e.kind.value,
                        "name": e.name,
                        "artifacts": [str(a.artifact.root.digest) for a in e.artifacts],
                    }
                    for e in lock.entries
                ],
            }
        )


def _last(target: Path) -> locks.Lock:
    try:
        return locks.load(target)
    except ResolveError as error:
        # A lock's own hint is to resolve again, which would come back to here.
        error.hint = f"restore {target}, or move it away and resolve again, which moves every pin"
        raise
