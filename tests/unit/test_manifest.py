from __future__ import annotations

from pathlib import Path

import pytest

from airlift import manifest, yamldoc
from airlift.connected import starter
from airlift.errors import ManifestError, UnsupportedVersionError
from airlift.manifest import Manifest

HEAD = "apiVersion: airlift/v1\nkind: Drop\nmetadata: {name: vision}\n"

FULL = """\
apiVersion: airlift/v1
kind: Drop
metadata: {name: vision, channel: stable, labels: {residency.region: eu}}
platforms: [linux/amd64]
images:
  - docker.io/library/redis:7.4
  - {ref: "oci-layout:./build/app:1.2", as: registry.example.com/vision/app:1.2, platforms: [linux/amd64, linux/arm64]}
  - {ref: "docker-daemon:tool:3", as: registry.example.com/vision/tool:3}
  - {ref: ghcr.io/org/all, platforms: all}
python:
  - name: inference
    requirements: [requirements.in]
    targets: [{python: "3.12", platform: linux/amd64, libc: glibc-2.28}, {python: "3.11", platform: linux/arm64, libc: musl-1.2}]
charts:
  - {repo: "https://charts.example.com", name: ingress, version: "~4.11", values: [values/ingress.yaml]}
  - oci://ghcr.io/org/charts/app:1.2.3
  - ./charts/site
models:
  - {repo: org/detector, revision: main, include: ["*.safetensors", "*.json"]}
  - {path: ./models/fraud, name: acme/fraud, licence: proprietary}
files:
  - {url: "https://example.com/k3s", name: k3s, sha256: "0000000000000000000000000000000000000000000000000000000000000000"}
deploy:
  - {chart: site, namespace: vision, values: [values/site.yaml]}
k3s: {preload: ["rancher/mirrored-pause:3.6"]}
"""


def load(text: str) -> Manifest:
    return manifest.decode(yamldoc.parse(text.encode(), "m.yaml"))


def problems(text: str) -> list[str]:
    with pytest.raises(ManifestError) as caught:
        load(HEAD + text)
    return [line.removeprefix("m.yaml:") for line in str(caught.value).splitlines()]


def test_the_whole_face_is_read() -> None:
    made = load(FULL)
    assert (made.metadata.name, made.metadata.channel) == ("vision", "stable")
    assert made.metadata.labels == {"residency.region": "eu"}
    assert [str(image.site_name) for image in made.images] == [
        "docker.io/library/redis:7.4",
        "registry.example.com/vision/app:1.2",
        "registry.example.com/vision/tool:3",
        "ghcr.io/org/all:latest",
    ]
    assert [image.is_remote for image in made.images] == [True, False, False, True]
    assert made.images[3].platforms == "all"
    assert [str(target) for target in made.python[0].targets] == [
        "3.12-linux-amd64-glibc-2.28",
        "3.11-linux-arm64-musl-1.2",
    ]
    assert [chart.likely_name for chart in made.charts] == ["ingress", "app", "site"]
    assert [model.id for model in made.models] == ["org/detector", "acme/fraud"]
    assert made.k3s.preload == ["docker.io/rancher/mirrored-pause:3.6"]


def test_a_minimal_manifest_has_defaults() -> None:
    made = load(HEAD)
    assert (made.metadata.channel, made.platforms, made.images) == ("stable", ["linux/amd64"], [])


def test_a_manifest_is_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "drop.yaml"
    path.write_text(FULL)
    assert manifest.load(path) == load(FULL)
    path.write_text("kind: 3.10\n")
    with pytest.raises(ManifestError) as caught:
        manifest.load(path)
    assert caught.value.file == str(path)
    assert caught.value.line == 1


def test_the_starter_is_a_manifest_also_with_every_example_switched_on() -> None:
    text = starter.text().decode()
    assert manifest.decode(yamldoc.parse(text.encode(), "drop.yaml")).metadata.name == "example"
    keys = ("platforms", "images", "python", "charts", "models", "files", "deploy", "k3s")
    lines = []
    for line in text.splitlines():
        body = line.removeprefix("# ")
        is_example = body.startswith(tuple(f"{key}:" for key in keys)) or body.lstrip().startswith(
            ("- ", "requirements:", "targets:", "preload:")
        )
        inside = line.replace("  # ", "  ", 1) if line.startswith("  # ") else line
        lines.append(body if line.startswith("# ") and is_example else inside)
    made = manifest.decode(yamldoc.parse("\n".join(lines).encode(), "drop.yaml"))
    counts = [len(getattr(made, key)) for key in ("images", "python", "charts", "models", "files", "deploy")]
    assert counts == [4, 1, 3, 2, 2, 1]
    assert made.k3s.preload


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("image: []\n", ["4: image: unknown key"]),
        ("images: redis\n", ["4: images: expected a list, got 'redis'"]),
        ("images: [5]\n", ["4: images[0]: expected a mapping, got 5"]),
        ("images: [{ref: redis, as_: x}]\n", ["4: images[0].as_: unknown key"]),
        (
            "images: [{ref: redis, platforms: [linux]}]\n",
            ["4: images[0].platforms[0]: 'linux' is not os/architecture[/variant], such as linux/amd64"],
        ),
        ("images: [{ref: redis, platforms: some}]\n", ["4: images[0].platforms: expected a list or 'all', got 'some'"]),
        (
            'images: [{ref: "oci-layout:./x:1"}]\n',
            ["4: images[0]: an image from a path or a daemon needs `as:`, its full name at the site"],
        ),
        (
            'images: [{ref: "oci-layout:./x:1", as: "r.example.com/x@sha256:' + "0" * 64 + '"}]\n',
            ["4: images[0]: `as:` names a tag, not a digest"],
        ),
        (
            'images: ["Redis"]\n',
            [
                (
                    "4: images[0]: not an image reference: 'Redis': 'library/Redis' is not a repository path "
                    "(lower case letters, digits, '.', '_', '-', '/')"
                )
            ],
        ),
        (
            'images: ["redis@sha256:12"]\n',
            ["4: images[0]: digest of 'redis@sha256:12': expected sha256:<64 lower-case hex digits>, got 'sha256:12'"],
        ),
        ("platforms: []\n", ["4: platforms: expected at least 1 item(s), got an empty list"]),
        ("metadata: {name: x}\n", ["4: metadata: key is there twice, first on line 3"]),
        (
            "python: [{name: a, targets: [{python: '3.12'}]}]\n",
            ["4: python[0]: expected `requirements` or `packages`"],
        ),
        (
            "python: [{name: A b, packages: [x], targets: []}]\n",
            [
                "4: python[0].name: expected text such as vision or edge-2, got 'A b'",
                "4: python[0].targets: expected at least 1 item(s), got an empty list",
            ],
        ),
        (
            "python: [{name: a, packages: [x], targets: [{python: '2.7', libc: glibc}]}]\n",
            [
                "4: python[0].targets[0].python: expected text such as 3.12, got '2.7'",
                "4: python[0].targets[0].libc: expected text such as glibc-2.28 or musl-1.2, got 'glibc'",
            ],
        ),
        (
            "python: [{name: a, requirements: [/etc/requirements.in], targets: [{python: '3.12'}]}]\n",
            ["4: python[0].requirements[0]: expected a path relative to the manifest, got '/etc/requirements.in'"],
        ),
        ("charts: [{name: x}]\n", ["4: charts[0]: expected exactly one of `repo`, `ref`, `path`"]),
        (
            "charts: [{repo: 'https://c.example.com', name: x}]\n",
            ["4: charts[0]: a chart from a repository needs `name` and `version` (a range is fine)"],
        ),
        (
            "charts: [{repo: 'ftp://c.example.com', name: x, version: '1'}]\n",
            ["4: charts[0].repo: expected a URL such as https://example.com/path, got 'ftp://c.example.com'"],
        ),
        (
            "charts: [{repo: 'https://c.example.com:99999', name: x, version: '1'}]\n",
            ["4: charts[0].repo: expected a port below 65536 in 'https://c.example.com:99999'"],
        ),
        ("charts: [{ref: ghcr.io/x/y:1}]\n", ["4: charts[0]: expected oci://HOST/PATH:VERSION, got 'ghcr.io/x/y:1'"]),
        ("models: [{licence: MIT}]\n", ["4: models[0]: expected exactly one of `repo`, `path`"]),
        ("models: [{path: ./x}]\n", ["4: models[0]: a model from a path needs `name`, such as acme/fraud"]),
        ("models: [{repo: ../x}]\n", ["4: models[0]: '../x' is not a model id, such as org/model"]),
        ("files: [{name: a}]\n", ["4: files[0]: expected exactly one of `url`, `path`"]),
        (
            "files: [{name: a/../b, path: x}, {name: a//b, path: x}, {name: /a, path: x}]\n",
            [
                "4: files[0].name: expected a name without empty, '.' or '..' parts, got 'a/../b'",
                "4: files[1].name: expected a name without empty, '.' or '..' parts, got 'a//b'",
                "4: files[2].name: expected text such as k3s or tools/install.sh, got '/a'",
            ],
        ),
        (
            "files: [{name: a, url: 'https://user:secret@example.com/a'}]\n",
            [
                (
                    "4: files[0].url: a URL must not carry credentials (host example.com); "
                    "put them into the client's own configuration"
                )
            ],
        ),
        (
            "files: [{name: a, path: x, sha256: abc}]\n",
            ["4: files[0].sha256: expected text such as 64 lower-case hex digits, got 'abc'"],
        ),
        (
            "k3s: {preload: ['x:!']}\n",
            ["4: k3s.preload[0]: not an image reference: 'x:!': '!' is not a tag"],
        ),
        ("deploy: [{chart: a, namespace: A}]\n", ["4: deploy[0].namespace: expected text such as vision, got 'A'"]),
    ],
)
def test_what_is_wrong_in_an_entry_is_said_with_line_and_place(text: str, expected: list[str]) -> None:
    assert problems(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "images:\n  - redis\n  - x\n  - {ref: docker.io/library/redis:latest}\n",
            "7: images[2]: docker.io/library/redis:latest is there twice, first as images[0]",
        ),
        (
            'images:\n  - redis:7\n  - {ref: "oci-layout:./x:1", as: redis:7}\n',
            "6: images[1]: docker.io/library/redis:7 is there twice, first as images[0]",
        ),
        (
            ("python:\n  - {name: a, packages: [x], targets: [{python: '3.12'}]}\n"
            "  - {name: a, packages: [y], targets: [{python: '3.12'}]}\n"),
            "6: python[1]: a is there twice, first as python[0]",
        ),
        (
            "python:\n  - {name: a, packages: [x], targets: [{python: '3.12'}, {python: '3.12', libc: glibc-2.28}]}\n",
            "5: python[0].targets[1]: 3.12-linux-amd64-glibc-2.28 is there twice, first as python[0].targets[0]",
        ),
        (
            "charts:\n  - ./charts/site\n  - charts/site/\n",
            "6: charts[1]: charts/site/ is there twice, first as charts[0]",
        ),
        (
            ("charts:\n  - {repo: 'https://a.example', name: x, version: '1'}\n"
            "  - {repo: 'https://b.example', name: x, version: '1'}\n"),
            "6: charts[1]: x 1 is there twice, first as charts[0]",
        ),
        (
            "models:\n  - {repo: org/a}\n  - {repo: Org/A}\n",
            "6: models[1]: Org/A is there twice, first as models[0]",
        ),
        (
            "files:\n  - {name: README, path: x}\n  - {name: readme, path: y}\n",
            "6: files[1]: readme is there twice, first as files[0]",
        ),
        (
            "files:\n  - {name: tools/x/y, path: x}\n  - {name: Tools, path: y}\n",
            "5: files[0]: tools/x/y is below Tools, which is a file: files[1]",
        ),
        (
            "charts: [oci://ghcr.io/org/app:1]\ndeploy:\n  - {chart: app}\n  - {chart: app, namespace: default}\n",
            "7: deploy[1]: default/app is there twice, first as deploy[0]",
        ),
        (
            "charts: [oci://ghcr.io/org/app:1]\ndeploy:\n  - {chart: application}\n",
            "6: deploy[0].chart: no chart of this manifest is named 'application'",
        ),
    ],
)  # fmt: skip
def test_entries_that_contradict_each_other_are_refused(text: str, expected: str) -> None:
    assert problems(text) == [expected]


def test_a_chart_of_a_directory_may_have_any_name() -> None:
    assert load(HEAD + "charts: [./charts/x]\ndeploy: [{chart: other}]\n").deploy[0].chart == "other"


def test_a_mistyped_chart_gets_a_hint() -> None:
    with pytest.raises(ManifestError) as caught:
        load(HEAD + "charts: [oci://ghcr.io/org/ingress:1]\ndeploy: [{chart: ingres}, {chart: x}]\n")
    assert caught.value.hint == "did you mean 'ingress'?\nlist the chart under `charts`"


def test_different_versions_and_revisions_of_one_thing_are_fine() -> None:
    load(
        HEAD + "images: [redis:7, redis:8]\nmodels: [{repo: a/b}, {repo: a/b, revision: v2}]\n"
        "charts: [{repo: 'https://a.example', name: x, version: '1'}, {repo: 'https://a.example', name: x, version: '2'}]\n"
    )


def test_another_version_of_the_manifest_is_said_as_such() -> None:
    with pytest.raises(UnsupportedVersionError) as caught:
        load("apiVersion: airlift/v2\nkind: Drop\nthings: {}\n")
    assert str(caught.value) == "m.yaml:1: apiVersion: expected 'airlift/v1', got 'airlift/v2'"
    with pytest.raises(UnsupportedVersionError, match=r"^m.yaml:2: kind: expected 'Drop', got 'Trust'$"):
        load("apiVersion: airlift/v1\nkind: Trust\n")


def test_missing_head_is_said() -> None:
    with pytest.raises(ManifestError) as caught:
        load("images: []\n")
    assert str(caught.value).splitlines() == [
        "m.yaml:1: apiVersion: required key is missing",
        "m.yaml:1: kind: required key is missing",
        "m.yaml:1: metadata: required key is missing",
    ]


def test_a_models_own_field_names_cannot_be_changed_after_reading() -> None:
    made = load(HEAD)
    with pytest.raises(ValueError, match="frozen"):
        made.metadata.name = "other"
