from __future__ import annotations

import contextlib

import pytest

from airlift.errors import IntegrityError
from airlift.kinds import podspecs

_DIGEST = "sha256:" + "a" * 64

_ALL = f"""
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web}}
spec:
  template:
    spec:
      initContainers: [{{name: i, image: busybox}}]
      containers: [{{name: c, image: "ghcr.io/org/web:1"}}, {{name: d, image: "org/side"}}]
      ephemeralContainers: [{{name: e, image: debug:2}}]
      volumes:
        - {{name: m, image: {{reference: "ghcr.io/org/model:3", pullPolicy: IfNotPresent}}}}
        - {{name: s, secret: {{secretName: x}}}}
---
apiVersion: batch/v1
kind: CronJob
metadata: {{name: nightly}}
spec: {{jobTemplate: {{spec: {{template: {{spec: {{containers: [{{name: c, image: "quay.io/org/job@{_DIGEST}"}}]}}}}}}}}}}
---
apiVersion: v1
kind: List
items:
  - apiVersion: batch/v1
    kind: Job
    metadata: {{name: hook, annotations: {{helm.sh/hook: pre-install}}}}
    spec: {{template: {{spec: {{containers: [{{name: c, image: "hook:1"}}]}}}}}}
---
apiVersion: v1
kind: PodTemplate
metadata: {{name: t}}
template: {{spec: {{containers: [{{name: c, image: "reg.example.com:5000/x/y:1@{_DIGEST}"}}]}}}}
---
apiVersion: argoproj.io/v1alpha1
kind: Rollout
metadata: {{generateName: r-}}
spec: {{template: {{spec: {{containers: [{{name: c, image: "rollout:1"}}]}}}}}}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {{name: x}}
spec: {{containers: [{{image: "schema:1"}}]}}
---
apiVersion: v1
kind: ConfigMap
metadata: {{name: cm}}
data: {{a: "containers: [{{image: text:1}}]"}}
---
"""


def test_every_place_where_a_pod_has_an_image_is_found_and_named() -> None:
    found = podspecs.group(podspecs.find(_ALL.encode(), subject="x"))
    spec = "spec.template.spec"
    assert found == [
        {"image": "docker.io/library/busybox:latest", "where": [f"Deployment/web: {spec}.initContainers[0]"]},
        {"image": "docker.io/library/debug:2", "where": [f"Deployment/web: {spec}.ephemeralContainers[0]"]},
        {"image": "docker.io/library/hook:1", "where": [f"Job/hook: {spec}.containers[0]"]},
        {"image": "docker.io/library/rollout:1", "where": [f"Rollout/r-: {spec}.containers[0]"]},
        {"image": "docker.io/org/side:latest", "where": [f"Deployment/web: {spec}.containers[1]"]},
        {"image": "ghcr.io/org/model:3", "where": [f"Deployment/web: {spec}.volumes[0].image"]},
        {"image": "ghcr.io/org/web:1", "where": [f"Deployment/web: {spec}.containers[0]"]},
        {
            "image": f"quay.io/org/job@{_DIGEST}",
            "where": ["CronJob/nightly: spec.jobTemplate.spec.template.spec.containers[0]"],
        },
        {"image": f"reg.example.com:5000/x/y:1@{_DIGEST}", "where": ["PodTemplate/t: template.spec.containers[0]"]},
    ]


def test_one_image_in_two_places_is_one_line_with_both() -> None:
    pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: %s}\nspec: {containers: [{image: 'a:1'}]}\n---\n"
    found = podspecs.group(podspecs.find((pod % "x" + pod % "y").encode(), subject="x"))
    assert found == [
        {"image": "docker.io/library/a:1", "where": ["Pod/x: spec.containers[0]", "Pod/y: spec.containers[0]"]}
    ]


def test_what_is_no_reference_is_handed_back_as_that() -> None:
    text = b"apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{image: 'repo/App:'}, {image: ''}, {image: 7}]}"
    seen = podspecs.find(text, subject="x")
    assert [(item.image, item.is_reference) for item in seen] == [("repo/App:", False), ("", False)]


def test_nothing_rendered_shows_nothing() -> None:
    assert podspecs.find(b"---\n# Source: x\n---\n", subject="x") == []


def test_an_alias_bomb_in_what_was_rendered_is_stopped() -> None:
    lines = ["a0: &a0 {containers: [{image: x}]}"]
    lines += [f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    with pytest.raises(IntegrityError, match="at most 1000000 values"):
        podspecs.find("\n".join(lines).encode(), subject="x")


def test_a_merge_bomb_in_what_was_rendered_does_no_harm() -> None:
    lines = ["m0: &m0 {" + ", ".join(f"k{n}: 1" for n in range(50)) + "}"]
    lines += [f"m{n}: &m{n}\n  <<: [{','.join([f'*m{n - 1}'] * 30)}]\n  x{n}: 1" for n in range(1, 8)]
    # PyYAML 6.0.4 takes every merged key once by itself; older ones are stopped by our bound.
    with contextlib.suppress(IntegrityError):
        assert podspecs.find("\n".join(lines).encode(), subject="x") == []


def test_ordinary_anchors_are_followed() -> None:
    text = b"apiVersion: v1\nkind: Pod\nmetadata: &m {name: p}\nspec: {containers: [&c {image: 'a:1'}, *c]}"
    assert [item.where for item in podspecs.find(text, subject="x")] == [
        "Pod/p: spec.containers[0]",
        "Pod/p: spec.containers[1]",
    ]
