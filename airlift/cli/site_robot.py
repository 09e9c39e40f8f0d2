"""``airlift site robot``: make the account that a Harbor is filled with."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click

from airlift import fs, limits
from airlift.cli import console, environment, options
from airlift.site import robots
from airlift.site.config import load_site
from airlift.transport.credentials import Credentials
from airlift.trust.fields import format_time


@click.command()
@click.option("--site", "folder", type=options.FOLDER, required=True, help="The site's directory.")
@click.option("--admin", required=True, help="An administrator of the Harbor; the login is not kept.")
@click.option(
    "--admin-password-file",
    type=options.EXISTING,
    required=True,
    help="Its first line is the administrator's password.",
)
@click.option("--days", type=click.IntRange(1, 3650), help="The robot's life; without it, it has no end.")
@click.option("--renew", is_flag=True, help="Renew the robot of this name: its rights, its life, and last its secret.")
@options.as_json
def robot(folder: Path, admin: str, admin_password_file: Path, days: int | None, *, renew: bool, as_json: bool) -> None:
    """Make the robot that site.yaml names in the site's Harbor, and write its secret into the password_file.

    It may push, pull and delete, make projects, and read quotas and rules; nothing else.
    """
    made = robots.make_account(
        load_site(folder),
        Credentials(admin, fs.first_line(admin_password_file, limits.ERROR_BODY)),
        days=robots.FOR_EVER if days is None else days,
        anew=renew,
        http=environment.http_settings(),
        progress=console.progress(),
    )
    if as_json:
        console.result_json({"name": made.name, "expires_at": made.expires_at})
        return
    console.answer(f"robot {made.name}, {_until(made.expires_at)}; its secret is in the site's password_file")


def _until(seconds: int) -> str:
    if seconds < 0:
        return "without an end"
    try:
        return f"until {format_time(datetime.fromtimestamp(seconds, UTC))}"
    except (ValueError, OverflowError, OSError):
        # Harbor said so, and the robot is there.
        return f"until {seconds} seconds after 1970"
