"""The account that a site's registry is filled with."""

from __future__ import annotations

from airlift import fs
from airlift.errors import UsageError
from airlift.progress import Progress
from airlift.site.config import Site
from airlift.transport.credentials import Credentials
from airlift.transport.harbor import HarborClient
from airlift.transport.harbor_robots import Robot, make_robot
from airlift.transport.http import HttpClient
from airlift.transport.settings import HttpSettings

FOR_EVER = -1


def make_account(
    site: Site, administrator: Credentials, *, days: int, anew: bool, http: HttpSettings, progress: Progress
) -> Robot:
    """Make the robot that site.yaml names, and write its secret into the password_file (mode 0600).

    Args:
        site: whose registry is a Harbor.
        administrator: the login of one; it is not kept.
        days: the robot's life, `FOR_EVER` for no end.
        anew: renew a robot of this name; its secret ends last.
        http: how to reach servers.
        progress: hears of waits.

    Raises:
        UsageError: site.yaml names no Harbor.
        StoreError: the password_file cannot be written; when its directory refuses, nothing is made.
        DeliveryError: Harbor refuses.
    """
    config = site.config.registry
    path = site.at(config.password_file) if config is not None else None
    if config is None or config.kind != "harbor" or config.username is None or path is None:
        raise UsageError(
            f"{site.root}: its registry is no Harbor", hint="give registry: with kind: harbor in site.yaml first"
        )
    client = HarborClient(
        config.host,
        http=HttpClient(site.reaching(config, http), progress),
        credentials=administrator,
        plain_http=config.url.startswith("http://"),
    )
    # Opened before the robot is made, for Harbor tells its secret once.
    with fs.atomic(path, mode=0o600) as stream:
        robot = make_robot(client, config.username, days=days, anew=anew)
        stream.write(f"{robot.secret}\n".encode())
    return robot
