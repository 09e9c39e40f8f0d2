"""``airlift deploy status`` and ``diff``: the cluster against the active drops."""

from __future__ import annotations

import time
from pathlib import Path

import click

from airlift.canonical import JsonObject
from airlift.cli import console, deploy_running, environment, options
from airlift.site.config import load_site
from airlift.site.deploy import active, differences, kubectl, record
from airlift.site.deploy import status as releases
from airlift.site.deploy.status import State

_DEFAULT_S = 300


@click.command()
@click.option("--site", "folder", type=options.FOLDER, required=True, help="The site's directory.")
@click.option(
    "--kubeconfig", type=options.EXISTING, help="Which cluster; default: $KUBECONFIG, else K3s on this machine."
)
@click.option(
    "--timeout", type=click.FloatRange(min=0), default=_DEFAULT_S, show_default=True, help="Seconds; 0 looks once."
)
@options.as_json
def status(folder: Path, kubeconfig: Path | None, timeout: float, as_json: bool) -> None:
    """Wait until the releases of the active drops are ready, and compare what runs with what was shipped.

    Ends with 18 and the list when a release is not ready or another digest runs.
    """
    site = load_site(folder)
    progress = console.progress()
    cluster = kubectl.find(environment.variables(), kubeconfig)
    wanted, shipped = deploy_running.of_drops(site)
    states = releases.watch(
        lambda: releases.look(cluster, wanted, shipped),
        len(wanted),
        timeout=timeout,
        clock=time.monotonic,
        sleep=time.sleep,
        progress=progress,
    )
    record.keep(site, states, now=environment.now())
    if as_json:
        console.result_json(_json(states))
    else:
        for item in states:
            console.answer(line(item))
    releases.refuse(states, active.asked(site))


def _json(states: tuple[State, ...]) -> JsonObject:
    return {
        "ready": all(item.phase is releases.Phase.READY for item in states),
        "releases": [item.to_json() for item in states],
    }


def line(state: State) -> str:
    """Return a release in one line for people."""
    version = state.version if state.revision is None else state.revision.chart.version
    number = "" if state.revision is None else f", revision {state.revision.number}"
    count = sum(item.problem is None and item.running is not None for item in state.containers)
    shown = f"{state.phase:9} {state.release.namespace}/{state.release.name} {version}{number}"
    return f"{shown}, {count} of {len(state.containers)} containers run what was shipped"


@click.command()
@click.option("--site", "folder", type=options.FOLDER, required=True, help="The site's directory.")
@click.option(
    "--kubeconfig", type=options.EXISTING, help="Which cluster; default: $KUBECONFIG, else K3s on this machine."
)
@options.as_json
def diff(folder: Path, kubeconfig: Path | None, as_json: bool) -> None:
    """Say what differs between the cluster and the active drops; changes nothing."""
    site = load_site(folder)
    cluster = kubectl.find(environment.variables(), kubeconfig)
    states = releases.look(cluster, *deploy_running.of_drops(site))
    found = differences.between(cluster, states)
    if as_json:
        console.result_json({"differences": [item.to_json() for item in found]})
    else:
        for item in found:
            console.answer(f"{item.what:8} {item.release}: {item.cluster} -> {item.drop}")
        if not found:
            console.answer("nothing differs")
