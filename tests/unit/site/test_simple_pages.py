from __future__ import annotations

import json
from typing import Any

import pytest

from airlift import digest as digests
from airlift.kinds.simple_page import parse_page
from airlift.site.simple_pages import HTML, JSON, TEXT_HTML, choose, project, projects

PIP = (
    "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html; q=0.1, text/html; q=0.01"
)  # fmt: skip
UV = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.01"


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        (None, TEXT_HTML),
        ("", TEXT_HTML),
        ("*/*", TEXT_HTML),
        (PIP, JSON),
        (UV, JSON),
        ("application/vnd.pypi.simple.latest+json", JSON),
        ("application/vnd.pypi.simple.latest+html", HTML),
        ("text/html,application/xhtml+xml,*/*;q=0.8", TEXT_HTML),
        ("application/vnd.pypi.simple.v1+json;q=0.1, text/html;q=0.5", TEXT_HTML),
        ("application/*", HTML),
        ("application/vnd.pypi.simple.v1+json;q=0, */*", TEXT_HTML),
        ("text/html;q=0, application/vnd.pypi.simple.v1+html;q=0, */*;q=0.1", JSON),
        ("TEXT/HTML", TEXT_HTML),
        ("application/json", None),
        ("image/png", None),
        ("*/*;q=0", None),
        ("text/html;q=nonsense", None),
    ],
)
def test_the_form_of_the_answer_is_negotiated(accept: str | None, kind: str | None) -> None:
    assert choose(accept) == kind


def value(filename: str, version: str, **more: Any) -> dict[str, Any]:
    return {
        "digest": digests.of(filename.encode()),
        "filename": filename,
        "size": 7,
        "version": version,
        "metadata": digests.of(b"meta"),
        **more,
    }


VALUES = [
    value("acme-1.10-py3-none-any.whl", "1.10", **{"requires-python": ">=3.9,<4", "upload-time": "2026-01-01T00:00:00Z"}),
    value("acme-1.9+cpu.x-py3-none-any.whl", "1.9+cpu.x", yanked='broken "on" <arm>'),
    value("acme-1.8-py3-none-any.whl", "1.8", yanked=""),
]  # fmt: skip


def test_a_project_in_json_has_what_the_peps_name() -> None:
    page = json.loads(project("acme", [*VALUES, VALUES[0]], JSON))
    assert page["meta"] == {"api-version": "1.1"}
    assert page["versions"] == ["1.8", "1.9+cpu.x", "1.10"]
    one, two, three = page["files"]
    sha256 = digests.hex_of(VALUES[0]["digest"])
    assert one == {
        "filename": "acme-1.10-py3-none-any.whl",
        "url": f"{sha256}/acme-1.10-py3-none-any.whl",
        "hashes": {"sha256": sha256},
        "size": 7,
        "core-metadata": {"sha256": digests.hex_of(digests.of(b"meta"))},
        "yanked": False,
        "requires-python": ">=3.9,<4",
        "upload-time": "2026-01-01T00:00:00Z",
    }
    assert two["yanked"] is True
    assert three["yanked"] == 'broken "on" <arm>'
    assert three["url"].endswith("/acme-1.9%2Bcpu.x-py3-none-any.whl")
    assert "dist-info-metadata" not in one


def test_a_project_in_html_says_the_same_and_is_escaped() -> None:
    text = project("acme", VALUES, HTML).decode()
    sha256, meta = digests.hex_of(VALUES[0]["digest"]), digests.hex_of(digests.of(b"meta"))
    assert (
        f'<a href="{sha256}/acme-1.10-py3-none-any.whl#sha256={sha256}" data-requires-python="&gt;=3.9,&lt;4"'
        f' data-core-metadata="sha256={meta}" data-dist-info-metadata="sha256={meta}">acme-1.10-py3-none-any.whl</a>'
    ) in text
    assert 'data-yanked=""' in text
    assert 'data-yanked="broken &#34;on&#34; &lt;arm&gt;"' in text


@pytest.mark.parametrize("kind", [JSON, HTML, TEXT_HTML])
def test_our_own_reader_reads_what_we_write(kind: str) -> None:
    files = parse_page(project("acme", VALUES, kind), kind, "https://site.example/simple/acme/", subject="acme")
    assert [file.filename for file in files] == sorted(item["filename"] for item in VALUES)
    by_name = {file.filename: file for file in files}
    for item in VALUES:
        file = by_name[item["filename"]]
        assert file.sha256 == item["digest"]
        assert file.metadata == item["metadata"]
        assert file.has_metadata
        assert file.requires_python == item.get("requires-python")
        assert file.yanked == item.get("yanked")
        assert file.url.startswith("https://site.example/simple/acme/" + digests.hex_of(item["digest"]))


def test_the_list_of_projects_is_sorted_and_relative() -> None:
    assert json.loads(projects(["b", "a"], JSON))["projects"] == [{"name": "a"}, {"name": "b"}]
    assert '<a href="a/">a</a><br>\n<a href="b/">b</a>' in projects(["b", "a"], TEXT_HTML).decode()
