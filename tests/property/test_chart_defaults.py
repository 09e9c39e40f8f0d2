"""Charts inside charts, at random: what is taken for Helm's mix of their defaults, against what the real helm records."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from airlift.site.deploy import content
from tests.support.charts import archive
from tests.support.helm_records import record

KEYS = ("a", "b", "c", "deep")
IMPORTS: tuple[Any, ...] = (
    "out",
    {"child": "a", "parent": "b"},
    {"child": "b", "parent": "."},
    {"child": "deep.a", "parent": "c.deep"},
    {"child": "deep", "parent": "imported.x"},
)


def defaults(rng: random.Random, depth: int, inside: tuple[str, ...] = ()) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key in KEYS:
        kind = rng.random()
        if 0.4 < kind < 0.6 and depth:
            found[key] = defaults(rng, depth - 1)
        elif kind >= 0.6:
            found[key] = (
                None if kind < 0.65 else [rng.randint(0, 3)] if kind < 0.75 else rng.choice([1, "t", True, 1.5])
            )
    for key in inside:
        if rng.random() < 0.5:
            found[key] = defaults(rng, 1) | ({"enabled": rng.random() < 0.5} if rng.random() < 0.4 else {})
    if depth == 2:
        found |= {"global": defaults(rng, 1)} if rng.random() < 0.4 else {}
        found |= {"exports": {"out": defaults(rng, 1)}} if rng.random() < 0.5 else {}
    return found


def chart(rng: random.Random, name: str, depth: int) -> dict[str, bytes | str]:
    """The files of a chart with up to two charts inside, each a folder or an archive, named or not."""
    files: dict[str, bytes | str] = {}
    named, keys = [], []
    for number in range(rng.randint(1, 2) if depth else 0):
        inner = f"{name}x{number}"
        below = chart(rng, inner, depth - 1)
        if rng.random() < 0.5:
            files[f"charts/{inner}-1.0.0.tgz"] = archive(below, top=inner)
        else:
            files |= {f"charts/{inner}/{path}": data for path, data in below.items()}
        entry: dict[str, Any] = {"name": inner, "version": "1.0.0", "repository": ""}
        key = inner
        if rng.random() < 0.8:
            if rng.random() < 0.25:
                key = entry["alias"] = f"{inner}al"
            entry |= {"condition": f"{key}.enabled"} if rng.random() < 0.4 else {}
            entry |= {"tags": ["extra"]} if rng.random() < 0.2 else {}
            entry |= {"import-values": rng.sample(IMPORTS, rng.randint(1, 3))} if rng.random() < 0.5 else {}
            named.append(entry)
        keys.append(key)
    about = {"apiVersion": "v2", "name": name, "version": "1.0.0", **({"dependencies": named} if named else {})}
    files["Chart.yaml"] = json.dumps(about)
    files["values.yaml"] = json.dumps(defaults(rng, 2, tuple(keys)))
    files["templates/cm.yaml"] = f"kind: ConfigMap\napiVersion: v1\nmetadata: {{name: {name}}}\n"
    return files


def of_release(files: dict[str, bytes | str], values: str) -> content.Content:
    return content.of_record(record(archive(files), values), subject="app")


@pytest.mark.parametrize("seed", range(24))
def test_the_record_of_a_chart_never_differs_from_it_and_a_change_of_its_own_defaults_always_does(seed: int) -> None:
    rng = random.Random(seed)
    files = chart(rng, "app", 2)
    own = json.loads(files["values.yaml"])
    files["values.yaml"] = json.dumps({**own, "mine": 1})
    values = json.dumps({"tags": {"extra": rng.random() < 0.5}, "appx0": {"enabled": rng.random() < 0.5}})
    mine = content.of_archive(archive(files), subject="app")

    assert list(mine.differing(of_release(files, values))) == []
    assert list(mine.differing(of_release({**files, "values.yaml": json.dumps({**own, "mine": 2})}, values))) == [
        "values.yaml: mine"
    ]
