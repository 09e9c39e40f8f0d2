"""Whether this machine's clock can be right: nothing that was signed, or done to the site, lies in the future."""

from __future__ import annotations

import contextlib
from datetime import datetime

from airlift import fs
from airlift.errors import BundleError, StoreError
from airlift.site.config import Site
from airlift.site.history import Entry
from airlift.site.kept import ENVELOPE
from airlift.trust.fields import format_time, parse_time
from airlift.trust.signing import MAX_ENVELOPE, Release, parse_envelope, parse_release


def behind(site: Site, release: Release, last: Entry | None, now: datetime) -> str:
    """Say what is later than the clock shows, the latest of it, or nothing.

    Of what was done to the site only the last counts: a clock that was ahead once is forgotten with the next command
    after it was set. What cannot be read is left out; others tell of it.

    Args:
        site: what was imported there before.
        release: the bundle's.
        last: what was done there last.
        now: what the clock shows.
    """
    times = [(release.issued, "this bundle was issued")]
    with contextlib.suppress(BundleError):
        if last is not None and last.time:
            times.append((parse_time(last.time), f"entry {last.number} of airlift site log was written"))
    for path in sorted(site.drops_dir.glob(f"*/{ENVELOPE}")):
        with contextlib.suppress(BundleError, StoreError):
            kept = parse_release(parse_envelope(fs.read_bounded(path, MAX_ENVELOPE)).body)
            times.append((kept.issued, f"{kept.channel}/{kept.sequence} was issued"))
    later = max(((time, what) for time, what in times if time is not None and now < time), default=None)
    return "" if later is None else f"it is {format_time(now)} here, but {later[1]} at {format_time(later[0])}"
