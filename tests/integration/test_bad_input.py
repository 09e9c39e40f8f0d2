"""Documents and sources that are refused, by command: message, exit code, and nothing left behind."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from airlift.cli.main import run
from tests.support.charts import archive, chart
from tests.support.cli import Ran, airlift, desk, ok
from tests.support.images import Box
from tests.support.indexes import metadata_of, running_index, zip_of
from tests.support.registry import refuse, running_front, running_registry

HEAD = "apiVersion: airlift/v1\nkind: Drop\nmetadata: {name: vision}\n"


def bomb() -> str:
    """Nine levels of nine: a document of a few hundred bytes and 400 million values."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
    return "\n".join(lines) + "\n"


DOCUMENTS = {
    "unknown-key": ("image: []\n", "drop.yaml:4: image: unknown key"),
    "wrong-type": ("images: [5]\n", "drop.yaml:4: images[0]: expected a mapping, got 5"),
    "duplicate-key": (
        "files: []\nfiles: []\n",
        "drop.yaml:5: files: key is there twice, first on line 4",
    ),
    "duplicate-name": (
        "images: [redis, {ref: docker.io/library/redis:latest}]\n",
        "drop.yaml:4: images[1]: docker.io/library/redis:latest is there twice, first as images[0]",
    ),
    "colliding-file-names": (
        "files:\n  - {name: README, path: a}\n  - {name: readme, path: b}\n",
        "drop.yaml:6: files[1]: readme is there twice, first as files[0]",
    ),
    "unquoted-3.10": (
        "python: [{name: a, packages: [x], targets: [{python: 3.10}]}]\n",
        "drop.yaml:4: python[0].targets[0].python: unquoted 3.10 may be read as a number",
    ),
    "alias-bomb": (bomb(), "aliases"),
    "leaving-file-name": (
        "files: [{name: ../../etc/passwd, path: x}]\n",
        "drop.yaml:4: files[0].name: expected ",
    ),
}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_wrong_manifest_ends_with_10_and_leaves_nothing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text, said = DOCUMENTS[name]
    monkeypatch.chdir(tmp_path)
    Path("drop.yaml").write_text(HEAD + text)
    assert run(["resolve", "drop.yaml", "-o", "drop.lock.json", "--cache", "cache"]) == 10
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert [path.name for path in tmp_path.iterdir() if path.name != "cache"] == ["drop.yaml"]
    assert left(tmp_path) == []


def left(home: Path) -> list[str]:
    """Files of the cache but its marker, of the scratch directory, and locks."""
    found = [path for path in home.rglob("*") if path.is_file()]
    return [
        str(path.relative_to(home))
        for path in found
        if path.name.endswith((".lock.json", ".part", ".airlift"))
        or ({"cache", "scratch"} & set(path.relative_to(home).parts) and path.name != "oci-layout")
    ]


def put(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def chart_of(data: bytes) -> Callable[[Path], str]:
    def make(home: Path) -> str:
        put(home / "app.tgz", data)
        return "charts: [./app.tgz]\n"

    return make


def model_of(*names: str, content: bytes = b"{}") -> Callable[[Path], str]:
    def make(home: Path) -> str:
        for name in names:
            put(home / "model" / name, content)
        return "models: [{path: ./model, name: acme/fraud, licence: MIT}]\n"

    return make


def layout_without(platform: str) -> Callable[[Path], str]:
    def make(home: Path) -> str:
        Box(home / "box").image("1", platform=platform)
        return 'images: [{ref: "oci-layout:./box:1", as: "registry.example.com/app:1"}]\n'

    return make


def file_with(digest: str) -> Callable[[Path], str]:
    def make(home: Path) -> str:
        put(home / "tool", b"tool")
        return f"files: [{{path: ./tool, name: tool, sha256: '{digest}'}}]\n"

    return make


def pickled() -> bytes:
    """What torch.save writes, in small: a zip with a pickle that calls something."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        made.writestr("archive/data.pkl", b"cos\nsystem\n(S'true'\ntR.")
    return buffer.getvalue()


@dataclass(frozen=True)
class Case:
    make: Callable[[Path], str]
    code: int
    said: str


SOURCES = {
    "chart-that-leaves-its-place": Case(
        chart_of(archive({"Chart.yaml": "apiVersion: v2\nname: app\nversion: 1.0.0\n", "../../evil": b"x"})),
        12,
        "names below the chart's directory",
    ),
    "chart-with-colliding-names": Case(chart_of(chart(files={"a": b"", "A": b""})), 12, "distinct names on every disk"),
    "chart-with-a-bomb": Case(chart_of(archive({"Chart.yaml": b"#" * 300_000_000})), 12, "Chart.yaml"),
    "chart-without-its-dependency": Case(
        chart_of(chart(more="dependencies: [{name: redis, version: '1', repository: 'https://c.example.com'}]\n")),
        11,
        "redis",
    ),
    "chart-that-is-not-there": Case(lambda home: "charts: [./nowhere.tgz]\n", 11, "nowhere.tgz"),
    "model-with-colliding-names": Case(model_of("a.json", "A.json"), 12, "A.json"),
    "model-with-a-pickle": Case(model_of("pytorch_model.bin", content=pickled()), 15, "pytorch_model.bin"),
    "model-with-a-hidden-pickle": Case(model_of("weights.json", content=pickled()), 15, "weights.json"),
    "image-without-the-platform": Case(
        layout_without("linux/arm64"), 11, "no image for linux/amd64; there is linux/arm64"
    ),
    "file-with-another-digest": Case(
        file_with("0" * 64),
        12,
        "0" * 64,
    ),
}


def resolve(home: Path, *, env: dict[str, str] | None = None) -> Ran:
    (home / "scratch").mkdir(exist_ok=True)
    return airlift(
        *("resolve", "drop.yaml", "-o", "drop.lock.json", "--cache", "cache"),
        home=home,
        env={"TMPDIR": str(home / "scratch"), **(env or {})},
    )


def errors(ran: Ran) -> str:
    """What stands in error lines and their continuation, not in the log before."""
    assert ran.err.count("airlift: error: ") == 1, ran.err
    return ran.err.partition("airlift: error: ")[2]


@pytest.mark.parametrize("name", SOURCES)
def test_a_refused_source_ends_with_its_code_and_leaves_nothing(name: str, tmp_path: Path) -> None:
    case = SOURCES[name]
    (tmp_path / "drop.yaml").write_text(HEAD + case.make(tmp_path))
    ran = resolve(tmp_path)
    assert (ran.code, ran.out) == (case.code, ""), ran.err
    assert case.said in errors(ran)
    assert left(tmp_path) == []


GOOD = ("app-1.0.dist-info/METADATA", metadata_of("app", "1.0"))
WHEELS = {
    "leaving": ([("../../evil.py", b""), GOOD], 12, "expected names inside the wheel, got '../../evil.py'"),
    "colliding": ([("app/A.py", b""), ("app/a.py", b""), GOOD], 12, "expected names that differ in more than case"),
    "bomb": (
        [("app-1.0.dist-info/METADATA", b"Name: app\nVersion: 1.0\n" + b" " * 50_000_000)],
        12,
        "expected METADATA of at most",
    ),
}


@pytest.mark.parametrize("name", WHEELS)
def test_a_refused_wheel_ends_with_12_and_leaves_nothing(name: str, tmp_path: Path) -> None:
    members, code, said = WHEELS[name]
    (tmp_path / "drop.yaml").write_text(
        f"{HEAD}python: [{{name: web, packages: [app], targets: [{{python: '3.12', libc: glibc-2.28}}]}}]\n"
    )
    with running_index() as index:
        index.add("app", "app-1.0-py3-none-any.whl", zip_of(members), metadata=GOOD[1])
        ran = resolve(tmp_path, env={"PIP_CONFIG_FILE": "/dev/null", "PIP_INDEX_URL": index.url})
    assert ran.code == code, ran.err
    assert said in errors(ran)
    assert left(tmp_path) == []


def test_a_target_without_a_wheel_ends_with_11_and_names_what_there_is(tmp_path: Path) -> None:
    (tmp_path / "drop.yaml").write_text(
        f"{HEAD}python: [{{name: web, packages: [fast], targets: [{{python: '3.12', libc: glibc-2.28}}]}}]\n"
    )
    with running_index() as index:
        index.wheel("fast", "2.0", tags="cp312-cp312-musllinux_1_2_x86_64")
        ran = resolve(tmp_path, env={"PIP_CONFIG_FILE": "/dev/null", "PIP_INDEX_URL": index.url})
    assert ran.code == 11, ran.err
    assert "3.12-linux-amd64-glibc-2.28" in errors(ran)
    assert "version 2.0 has wheels for cp312-cp312-musllinux_1_2_x86_64" in errors(ran)
    assert left(tmp_path) == []


@pytest.mark.parametrize("status", [401, 403, 404, 429, 503])
@pytest.mark.parametrize("step", ["resolve", "build"])
def test_a_registry_that_refuses_is_named_with_its_answer_and_ends_with_11(
    status: int, step: str, tmp_path: Path
) -> None:
    box = Box(tmp_path / "box")
    box.image("1")
    with running_registry(tmp_path / "registry") as registry, running_front(registry) as front:
        box.push(registry, "lib/app")
        (tmp_path / "drop.yaml").write_text(f"{HEAD}images: ['{front.host}/lib/app:1']\n")
        fault = refuse(status, match="/manifests/1" if step == "resolve" else "/blobs/", headers={"Retry-After": "0"})
        if step == "resolve":
            before = []
            front.faults.append(fault)
            ran = resolve(tmp_path)
        else:
            place = desk(tmp_path)
            ok("resolve", "drop.yaml", "-o", "kept", "--no-cache", home=tmp_path)
            front.faults.append(fault)
            before = left(tmp_path)
            keys = [*place.signers, *place.recipients]
            ran = airlift("build", "kept", "-o", "x.airlift", "--sequence", "1", *keys, "--no-cache", home=tmp_path)
    assert ran.code == 11, ran.err
    assert f"{front.host}/lib/app" in errors(ran)
    # A tag that is not there is said in words.
    said = "does not have the tag 1" if (status, step) == (404, "resolve") else f" answered {status} "
    assert said in errors(ran)
    assert left(tmp_path) == before
