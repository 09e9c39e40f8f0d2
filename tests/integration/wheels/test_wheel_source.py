"""The wheel source against an index that tests own; pip runs for real in the worker."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from airlift import digest as digests
from airlift.artifact import Kind
from airlift.errors import AirliftError, FetchError, IntegrityError, ManifestError, ResolveError
from airlift.lock import Lock, decode
from airlift.store import Store
from tests.support.indexes import FakeIndex, make_sdist, make_wheel, metadata_of, running_index, zip_of
from tests.support.package_site import carry
from tests.support.wheel_source import GLIBC, MUSL, Bench, pins

ON_GLIBC = "3.12-linux-amd64-glibc-2.28"
ON_MUSL = "3.11-linux-arm64-musl-1.2"


@pytest.fixture
def index() -> Iterator[FakeIndex]:
    with running_index() as running:
        yield running


@pytest.fixture
def bench(tmp_path: Path, index: FakeIndex) -> Bench:
    return Bench(tmp_path, index.url)


def annotations(entry: object, filename: str) -> dict[str, str]:
    for blob in entry.artifacts[0].small:  # type: ignore[attr-defined]
        if blob.text and filename in blob.text:
            return dict(json.loads(blob.text)["annotations"])
    raise AssertionError(filename)


def lock_of(entry: object) -> Lock:
    return Lock("d", "stable", {}, ("linux/amd64",), (entry,))  # type: ignore[arg-type]


def test_each_target_gets_its_own_wheels_and_markers(bench: Bench, index: FakeIndex) -> None:
    index.wheel("app", "1.0", requires=["fast", "legacy; python_version < '3.12'", "win; sys_platform == 'win32'"])
    index.wheel("fast", "2.0", tags="cp312-cp312-manylinux_2_17_x86_64.manylinux2014_x86_64")
    index.wheel("fast", "2.0", tags="cp311-cp311-musllinux_1_1_aarch64")
    index.wheel("fast", "2.0", tags="cp312-cp312-win_amd64")
    index.wheel("legacy", "0.1")
    entry = bench.resolve("app", targets=[GLIBC, MUSL])
    assert pins(entry) == {
        ON_GLIBC: ["app-1.0-py3-none-any.whl", "fast-2.0-cp312-cp312-manylinux_2_17_x86_64.manylinux2014_x86_64.whl"],
        ON_MUSL: [
            "app-1.0-py3-none-any.whl",
            "fast-2.0-cp311-cp311-musllinux_1_1_aarch64.whl",
            "legacy-0.1-py3-none-any.whl",
        ],
    }
    assert (entry.kind, entry.name, entry.source) == (Kind.WHEELS, "web", "pypi")
    assert len(entry.artifacts[0].artifact.facts["targets"][0]["wheels"]) == 2
    app = next(item for item in entry.components if item.name == "app")
    assert app.purl == "pkg:pypi/app@1.0?file_name=app-1.0-py3-none-any.whl"
    assert app.depends_on == (
        "pkg:pypi/fast@2.0?file_name=fast-2.0-cp311-cp311-musllinux_1_1_aarch64.whl",
        "pkg:pypi/fast@2.0?file_name=fast-2.0-cp312-cp312-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
        "pkg:pypi/legacy@0.1?file_name=legacy-0.1-py3-none-any.whl",
    )


def test_a_second_resolve_gives_the_same_lock_and_nothing_of_the_machine_is_in_it(
    tmp_path: Path, bench: Bench, index: FakeIndex
) -> None:
    index.wheel("app", "1.0", requires=["lib"])
    index.wheel("lib", "1.0")
    first = lock_of(bench.resolve("app", targets=[GLIBC, MUSL])).encode()
    other = tmp_path / "other"
    other.mkdir()
    second = lock_of(Bench(other, index.url, has_cache=False).resolve("app", targets=[GLIBC, MUSL])).encode()
    assert first == second
    assert decode(first, subject="lock").encode() == first
    for word in (str(tmp_path), "127.0.0.1", "http"):
        assert word.encode() not in first
    assert [path.name for path in (tmp_path / "work").iterdir()] == []


def test_every_blob_of_the_lock_can_be_fetched_with_and_without_the_cache(
    tmp_path: Path, bench: Bench, index: FakeIndex
) -> None:
    index.wheel("app", "1.0+cpu", requires=["lib"])
    index.wheel("lib", "1.0", said={"metadata": metadata_of("lib", "1.0")}, payload=b"\0" * 3_000_000)
    entry = bench.resolve("app")
    for number, cache in enumerate((bench.cache, None)):
        store = Store(tmp_path / f"store{number}").create()
        carry(entry, bench.source(), store, cache)
        for blob in lock_of(entry).artifacts().__next__().large:
            assert store.verify(blob.digest) == blob.size
    assert index.asked("GET", ".metadata") >= 1


@pytest.mark.parametrize("kind", ["html", "no ranges", "no digests", "no sizes", "bare html without ranges"])
def test_an_index_that_says_little_gives_the_same_lock(
    tmp_path: Path, bench: Bench, index: FakeIndex, kind: str
) -> None:
    said = {"upload_time": None}
    index.wheel("app", "1.0", requires=["lib>=1"], python=">=3.9", said=said)
    index.wheel("lib", "1.0", payload=b"x" * 100_000, said=said)
    expected = lock_of(bench.resolve("app")).encode()
    index.json = "html" not in kind
    index.ranges = "ranges" not in kind
    for file in (file for files in index.files.values() for file in files):
        if "digests" in kind or "bare" in kind:
            file.sha256 = None
        if "sizes" in kind:
            file.size = None
    other = tmp_path / "other"
    other.mkdir()
    again = Bench(other, index.url)
    assert lock_of(again.resolve("app")).encode() == expected


def test_only_the_end_of_a_wheel_is_read_where_ranges_are_given(bench: Bench, index: FakeIndex) -> None:
    noise = hashlib.shake_256(b"noise").digest(2_000_000)
    index.wheel("big", "1.0", payload=noise, said={"metadata": metadata_of("big", "1.0")})
    bench.resolve("big")
    got = [ranges for method, path, _, ranges in index.requests if method == "GET" and path.endswith(".whl")]
    assert got
    assert all(item is not None for item in got)
    assert len(got) <= 2


@pytest.mark.parametrize("length", ["9" * 5000, "many", "-1"])
def test_a_length_that_is_none_is_as_good_as_no_length(bench: Bench, index: FakeIndex, length: str) -> None:
    index.wheel("app", "1.0")
    index.told_length = length
    assert pins(bench.resolve("app"))[ON_GLIBC] == ["app-1.0-py3-none-any.whl"]


def test_spellings_of_a_project_are_one_project(bench: Bench, index: FakeIndex) -> None:
    index.wheel("acme.plug_in", "1.0")
    index.wheel("app", "1.0", requires=["Acme_Plug-In>=1"])
    assert pins(bench.resolve("app", "ACME--plug.in"))[ON_GLIBC] == [
        "acme.plug_in-1.0-py3-none-any.whl",
        "app-1.0-py3-none-any.whl",
    ]


def test_a_plus_in_a_file_name_is_kept(bench: Bench, index: FakeIndex, tmp_path: Path) -> None:
    index.wheel("acme_torch", "2.1.0+cpu", tags="cp312-cp312-linux_x86_64")
    entry = bench.resolve("acme-torch")
    name = "acme_torch-2.1.0+cpu-cp312-cp312-linux_x86_64.whl"
    assert annotations(entry, name)["org.opencontainers.image.title"] == name
    assert entry.components[0].purl == f"pkg:pypi/acme-torch@2.1.0%2Bcpu?file_name={name.replace('+', '%2B')}"
    carry(entry, bench.source(), Store(tmp_path / "s").create(), None)


def test_a_yanked_release_is_not_taken_by_a_range(bench: Bench, index: FakeIndex) -> None:
    index.wheel("acme", "1.0")
    index.wheel("acme", "2.0", said={"yanked": "broken"})
    assert pins(bench.resolve("acme>=1"))[ON_GLIBC] == ["acme-1.0-py3-none-any.whl"]
    assert bench.listener.warnings == []


def test_a_pin_takes_a_yanked_release_with_a_warning(bench: Bench, index: FakeIndex) -> None:
    index.wheel("acme", "1.0")
    index.wheel("acme", "2.0", said={"yanked": "broken on arm"})
    entry = bench.resolve("acme==2.0")
    assert annotations(entry, "acme-2.0")["io.airlift.python.yanked"] == "broken on arm"
    assert bench.listener.warnings == ["web: acme-2.0-py3-none-any.whl is yanked: broken on arm"]


def test_a_project_with_nothing_but_yanked_releases_is_refused(bench: Bench, index: FakeIndex) -> None:
    index.wheel("acme", "1.0", said={"yanked": "withdrawn"})
    with pytest.raises(ResolveError) as caught:
        bench.resolve("acme")
    assert caught.value.message == (
        f"web: no set of wheels answers the requirements for target {ON_GLIBC}:\n"
        "  acme: every release of it that would do is yanked (withdrawn)"
    )


def test_requires_python_in_metadata_alone_is_honoured_per_target(bench: Bench, index: FakeIndex) -> None:
    index.wheel("acme", "1.0", python=">=3.9")
    index.wheel("acme", "2.0", python=">=3.12")
    index.wheel("acme", "3.0", python=">=3.13")
    entry = bench.resolve("acme", targets=[GLIBC, MUSL])
    assert pins(entry) == {ON_GLIBC: ["acme-2.0-py3-none-any.whl"], ON_MUSL: ["acme-1.0-py3-none-any.whl"]}
    assert annotations(entry, "acme-2.0")["io.airlift.python.requires-python"] == ">=3.12"


def test_a_pin_for_another_python_is_refused(bench: Bench, index: FakeIndex) -> None:
    index.wheel("acme", "3.0", python=">=3.13")
    with pytest.raises(ResolveError, match=r"acme 3.0 wants Python >=3\.13"):
        bench.resolve("acme==3.0")
    index.files["acme"][0].requires_python = ">=3.13"
    with pytest.raises(ResolveError, match=r"no release for Python 3\.12; they want Python >=3\.13"):
        bench.resolve("acme==3.0")


def test_a_patch_number_decides_about_markers(bench: Bench, index: FakeIndex) -> None:
    index.wheel("redis", "5.0", requires=["timeouts; python_full_version < '3.11.3'"])
    index.wheel("timeouts", "1.0")
    old = MUSL.model_copy(update={"python": "3.11.2"})
    entry = bench.resolve("redis", targets=[MUSL, old])
    assert pins(entry) == {
        ON_MUSL: ["redis-5.0-py3-none-any.whl"],
        "3.11.2-linux-arm64-musl-1.2": ["redis-5.0-py3-none-any.whl", "timeouts-1.0-py3-none-any.whl"],
    }


def test_no_wheel_for_a_target_names_project_target_and_what_there_is(bench: Bench, index: FakeIndex) -> None:
    index.wheel("fast", "2.0", tags="cp312-cp312-manylinux_2_17_x86_64")
    index.wheel("fast", "2.0", tags="cp311-cp311-manylinux_2_17_aarch64")
    index.wheel("app", "1.0", requires=["fast>=2"])
    with pytest.raises(ResolveError) as caught:
        bench.resolve("app", targets=[GLIBC, MUSL])
    assert caught.value.message == (
        f"web: no set of wheels answers the requirements for target {ON_MUSL}:\n"
        "  fast>=2 (for app 1.0): no wheel for the target; version 2.0 has wheels for "
        "cp311-cp311-manylinux_2_17_aarch64, cp312-cp312-manylinux_2_17_x86_64"
    )


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        ("nothing-here", "nothing-here: no index has that project"),
        ("app>=9", "app>=9: no such version; there are 2.0, 1.0"),
    ],
)
def test_what_is_not_there_is_named(bench: Bench, index: FakeIndex, wanted: str, reason: str) -> None:
    index.wheel("app", "1.0")
    index.wheel("app", "2.0")
    with pytest.raises(ResolveError) as caught:
        bench.resolve(wanted)
    assert caught.value.message.splitlines()[1].strip() == reason


def test_a_conflict_names_both_sides(bench: Bench, index: FakeIndex) -> None:
    index.wheel("a", "1.0", requires=["lib<2"])
    index.wheel("b", "1.0", requires=["lib>=2"])
    index.wheel("lib", "1.0")
    index.wheel("lib", "2.0")
    with pytest.raises(ResolveError) as caught:
        bench.resolve("a", "b")
    assert "lib<2 (for a 1.0): it conflicts with the other requirements" in caught.value.message
    assert "lib>=2 (for b 1.0): it conflicts with the other requirements" in caught.value.message


def test_an_sdist_alone_is_refused_with_a_hint(bench: Bench, index: FakeIndex) -> None:
    index.add("only", "only-1.0.tar.gz", make_sdist("only", "1.0"))
    with pytest.raises(ResolveError) as caught:
        bench.resolve("only", targets=[MUSL])
    assert caught.value.message == (
        f"web: no set of wheels answers the requirements for target {ON_MUSL}:\n"
        "  only: there is only a source distribution (only-1.0.tar.gz)"
    )
    assert caught.value.hint == "allow_sdist: true builds a wheel of it on this machine, which runs its build script"


def test_with_allow_sdist_a_wheel_is_built_once_and_marked(tmp_path: Path, bench: Bench, index: FakeIndex) -> None:
    sdist = make_sdist("only", "1.0")
    index.add("only", "only-1.0.tar.gz", sdist)
    index.add("only", "only-0.9.tar.gz", make_sdist("only", "0.9"))
    index.wheel("app", "1.0", requires=["only"])
    first = bench.resolve("app", targets=[GLIBC, MUSL], allow_sdist=True)
    assert pins(first)[ON_MUSL] == ["app-1.0-py3-none-any.whl", "only-1.0-py3-none-any.whl"]
    assert annotations(first, "only-1.0")["io.airlift.python.sdist-built"] == f"only-1.0.tar.gz@{digests.of(sdist)}"
    assert bench.listener.notes == ["building a wheel of only-1.0.tar.gz"]
    second = bench.resolve("app", targets=[GLIBC, MUSL], allow_sdist=True)
    assert lock_of(second).encode() == lock_of(first).encode()
    assert bench.listener.notes == ["building a wheel of only-1.0.tar.gz"]
    carry(first, bench.source(), Store(tmp_path / "s").create(), bench.cache)
    with pytest.raises(ResolveError, match=r"was built from only-1.0.tar.gz by an earlier resolve and is not in the"):
        carry(first, bench.source(), Store(tmp_path / "t").create(), None)


def test_an_sdist_without_a_cache_is_refused(tmp_path: Path, index: FakeIndex) -> None:
    index.add("only", "only-1.0.tar.gz", make_sdist("only", "1.0"))
    with pytest.raises(ResolveError, match=r"only-1.0.tar.gz has to be built, and there is no cache"):
        Bench(tmp_path, index.url, has_cache=False).resolve("only", allow_sdist=True)


def test_an_sdist_that_does_not_build_is_named(bench: Bench, index: FakeIndex) -> None:
    broken = "def build_wheel(*a, **k):\n    raise SystemExit('my compiler is missing')\n"
    index.add("only", "only-1.0.tar.gz", make_sdist("only", "1.0", setup=broken))
    with pytest.raises(ResolveError, match="my compiler is missing"):
        bench.resolve("only", allow_sdist=True)


def test_a_wheel_is_preferred_to_a_newer_sdist(bench: Bench, index: FakeIndex) -> None:
    index.add("only", "only-2.0.tar.gz", make_sdist("only", "2.0"))
    index.wheel("only", "1.0")
    assert pins(bench.resolve("only", allow_sdist=True))[ON_GLIBC] == ["only-1.0-py3-none-any.whl"]


def test_hashes_of_a_requirements_file_are_compared(tmp_path: Path, bench: Bench, index: FakeIndex) -> None:
    file = index.wheel("app", "1.0")
    good = hashlib.sha256(file.data).hexdigest()
    (tmp_path / "r.txt").write_text(f"--require-hashes\napp==1.0 --hash=sha256:{good}\n")
    assert pins(bench.resolve(requirements=["r.txt"]))[ON_GLIBC] == ["app-1.0-py3-none-any.whl"]
    (tmp_path / "r.txt").write_text(f"app==1.0 --hash=sha256:{'0' * 64}\n")
    with pytest.raises(AirliftError):
        bench.resolve(requirements=["r.txt"])
    file.sha256 = None
    with pytest.raises((IntegrityError, ResolveError)):
        bench.resolve(requirements=["r.txt"])


def test_constraints_limit_versions_and_bring_nothing_along(tmp_path: Path, bench: Bench, index: FakeIndex) -> None:
    for version in ("1.0", "2.0"):
        index.wheel("lib", version)
        index.wheel("other", version)
    index.wheel("app", "1.0", requires=["lib"])
    (tmp_path / "r.txt").write_text("app\n-c limits.txt\n")
    (tmp_path / "limits.txt").write_text("lib<2\nother<2\n")
    assert pins(bench.resolve(requirements=["r.txt"]))[ON_GLIBC] == [
        "app-1.0-py3-none-any.whl",
        "lib-1.0-py3-none-any.whl",
    ]


def test_a_constraint_that_excludes_everything_is_named(tmp_path: Path, bench: Bench, index: FakeIndex) -> None:
    index.wheel("lib", "2.0")
    (tmp_path / "r.txt").write_text("lib>=2\n-c limits.txt\n")
    (tmp_path / "limits.txt").write_text("lib<2\n")
    with pytest.raises(ResolveError) as caught:
        bench.resolve(requirements=["r.txt"])
    assert "lib" in caught.value.message
    assert "constraint" in caught.value.message


def test_extras_bring_their_requirements(bench: Bench, index: FakeIndex) -> None:
    index.wheel("app", "1.0", requires=["plain", 'fancy; extra == "more"', 'never; extra == "other"'])
    index.wheel("plain", "1.0")
    index.wheel("fancy", "1.0")
    names = pins(bench.resolve("app[more]"))[ON_GLIBC]
    assert [name.partition("-")[0] for name in names] == ["app", "fancy", "plain"]


@pytest.mark.parametrize("name", ["lib-1.0-py3-none-any.whl", "lib-1.0.tar.gz"])
def test_an_address_as_a_dependency_is_refused_before_it_is_fetched_or_built(
    tmp_path: Path, bench: Bench, index: FakeIndex, name: str
) -> None:
    index.wheel("lib", "1.0")
    ran = tmp_path / "ran"
    index.add("lib", "lib-1.0.tar.gz", make_sdist("lib", "1.0", setup=f"open({str(ran)!r}, 'w').close()\n"))
    index.wheel("app", "1.0", requires=[f"lib @ {index.url}../files/lib/{name}"])
    with pytest.raises(ResolveError, match=r"lib is asked for by address \(http://.*\), by app") as caught:
        bench.resolve("app")
    assert caught.value.hint == "a dependency that is given by its address (name @ https://...) cannot be carried"
    assert index.asked("GET", name) == 0
    assert not ran.exists()


def test_an_address_that_no_marker_asks_for_does_no_harm(bench: Bench, index: FakeIndex) -> None:
    index.wheel("app", "1.0", requires=["lib @ https://example.com/lib.whl ; sys_platform == 'win32'"])
    assert pins(bench.resolve("app"))[ON_GLIBC] == ["app-1.0-py3-none-any.whl"]


def test_the_second_index_is_named_by_its_place(tmp_path: Path, index: FakeIndex) -> None:
    index.wheel("app", "1.0", requires=["private"])
    with running_index(users={"me": "p@ss word"}) as extra:
        extra.wheel("private", "1.0")
        address = extra.url.replace("http://", "http://me:p%40ss%20word@")
        bench = Bench(tmp_path, index.url, environment={"PIP_EXTRA_INDEX_URL": address})
        entry = bench.resolve("app")
        origins = {blob.origin["project"]: blob.origin["index"] for blob in entry.artifacts[0].large}
        assert origins == {"app": "index", "private": "extra-1"}
        assert b"p@ss" not in lock_of(entry).encode()
        carry(entry, bench.source(), Store(tmp_path / "s").create(), None)
        assert {said for _, _, said, _ in index.requests} == {None}
    alone = Bench(tmp_path, index.url)
    with pytest.raises(FetchError, match="the lock takes it from the package index 'extra-1', which is not configured"):
        carry(entry, alone.source(), Store(tmp_path / "t").create(), None)


def test_wrong_credentials_are_refused_without_telling_them(tmp_path: Path) -> None:
    with running_index(users={"me": "right"}) as index:
        index.wheel("app", "1.0")
        bench = Bench(tmp_path, index.url.replace("http://", "http://me:wr0ng-secret@"))
        with pytest.raises(AirliftError) as caught:
            bench.resolve("app")
        assert "401" in caught.value.message
        assert "wr0ng-secret" not in f"{caught.value.message} {caught.value.hint} {bench.listener.notes}"
        assert "wr0ng-secret" not in repr(bench.source()._index().pip)


def test_pip_conf_of_the_user_is_read(tmp_path: Path, index: FakeIndex) -> None:
    index.wheel("app", "1.0")
    home = tmp_path / "home"
    home.mkdir()
    (home / ".config" / "pip").mkdir(parents=True)
    (home / ".config" / "pip" / "pip.conf").write_text(
        f"[global]\nindex-url = https://nowhere.invalid/simple\n[install]\nindex-url = {index.url}\nfind-links = /wheels\n"
    )
    bench = Bench(tmp_path, index.url)
    environment = {k: v for k, v in bench.settings.environment.items() if not k.startswith("PIP_")}
    bench.settings = replace(bench.settings, environment=environment)
    assert pins(bench.resolve("app"))[ON_GLIBC] == ["app-1.0-py3-none-any.whl"]
    assert bench.listener.notes == ["pip's find-links (/wheels) is not used: wheels come from indexes"]


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"PIP_NO_INDEX": "1"}, "pip's configuration says no-index, and there is no other place to take wheels from"),
        ({"PIP_INDEX_URL": "file:///srv/simple"}, "has the scheme 'file'; only http and https are supported"),
        ({"PIP_INDEX_URL": "http://index.example/simple"}, "is plain http to another machine"),
        ({"PIP_TIMEOUT": "soon"}, "reading pip's configuration failed"),
    ],
)
def test_a_configuration_that_cannot_be_used_is_refused(
    tmp_path: Path, index: FakeIndex, environment: dict[str, str], message: str
) -> None:
    with pytest.raises(AirliftError) as caught:
        Bench(tmp_path, index.url, environment=environment).resolve("app")
    assert message in caught.value.message


def test_a_file_that_changed_under_its_name_is_refused(tmp_path: Path, bench: Bench, index: FakeIndex) -> None:
    file = index.wheel("app", "1.0")
    entry = bench.resolve("app")
    file.data = make_wheel("app", "1.0", payload=b"other")
    with pytest.raises(
        IntegrityError, match=r"app-1\.0-py3-none-any\.whl in the package index index: expected sha256:"
    ):
        carry(entry, bench.source(), Store(tmp_path / "s").create(), None)
    file.sha256 = None
    with pytest.raises(IntegrityError):
        carry(entry, bench.source(), Store(tmp_path / "t").create(), None)
    index.files["app"] = []
    with pytest.raises(FetchError, match=r"the package index index does not have it \(any more\)"):
        carry(entry, bench.source(), Store(tmp_path / "u").create(), None)


def test_a_page_that_lies_about_digest_size_or_metadata_is_refused(bench: Bench, index: FakeIndex) -> None:
    file = index.wheel("app", "1.0")
    index.ranges = False
    file.sha256 = "0" * 64
    with pytest.raises(AirliftError):
        bench.resolve("app")
    file.sha256 = ""
    file.size = 7
    with pytest.raises(IntegrityError):
        bench.resolve("app")
    index.ranges = True
    with pytest.raises(IntegrityError, match="expected 7 bytes"):
        bench.resolve("app")
    file.size = -1
    file.metadata = metadata_of("app", "1.0", more=["Summary: another"])
    with pytest.raises(IntegrityError, match=r"METADATA of app-1.0-py3-none-any.whl: expected sha256:"):
        bench.resolve("app")


def test_announced_metadata_that_hides_a_dependency_is_noticed(bench: Bench, index: FakeIndex) -> None:
    file = index.wheel("app", "1.0", requires=["hidden"])
    file.metadata = metadata_of("app", "1.0")
    with pytest.raises(IntegrityError, match="METADATA of app"):
        bench.resolve("app")


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("../../evil.py", b"")], "expected names inside the wheel, got '../../evil.py'"),
        ([("app/A.py", b""), ("app/a.py", b"")], "expected names that differ in more than case"),
        ([("app-1.0.dist-info/METADATA", b"Name: app\nVersion: 1.0\n" + b" " * 5_000_000)], "expected METADATA of at"),
        ([("other-1.0.dist-info/METADATA", b"Name: app\nVersion: 1.0\n")], "expected exactly one METADATA"),
    ],
)
def test_a_bad_wheel_is_refused_and_nothing_is_left(
    tmp_path: Path, bench: Bench, index: FakeIndex, members: list[tuple[str, bytes]], message: str
) -> None:
    good = ("app-1.0.dist-info/METADATA", metadata_of("app", "1.0"))
    if not any(name.endswith("METADATA") for name, _ in members):
        members = [*members, good]
    # The page's own METADATA keeps pip from looking into the wheel itself.
    index.add("app", "app-1.0-py3-none-any.whl", zip_of(members), metadata=good[1])
    with pytest.raises(IntegrityError) as caught:
        bench.resolve("app")
    assert message in caught.value.message
    assert "app-1.0-py3-none-any.whl" in caught.value.message
    assert list((tmp_path / "work").iterdir()) == []
    assert bench.cache is not None
    assert list(bench.cache.digests()) == []


def test_file_names_that_differ_in_case_alone_are_refused(bench: Bench, index: FakeIndex) -> None:
    index.wheel("app", "1.0", python="<3.12", tags="py3-none-any", said={"requires_python": "<3.12"})
    index.wheel("App", "1.0", python=">=3.12", tags="py3-none-any", said={"requires_python": ">=3.12"})
    with pytest.raises(IntegrityError, match=r"expected names that differ in more than case, got 'App-1.0"):
        bench.resolve("app", targets=[GLIBC, MUSL])


def test_a_name_that_leaves_its_place_is_not_taken_from_a_page(bench: Bench, index: FakeIndex) -> None:
    index.add("app", "..\\app-1.0-py3-none-any.whl", make_wheel("app", "1.0"))
    index.add("app", "app-1.0-py3-none-any.whl/../../x-1.0-py3-none-any.whl", make_wheel("app", "1.0"))
    with pytest.raises(AirliftError):
        bench.resolve("app")


def test_a_page_that_points_to_files_of_this_machine_is_refused(tmp_path: Path, bench: Bench, index: FakeIndex) -> None:
    local = tmp_path / "app-1.0-py3-none-any.whl"
    local.write_bytes(make_wheel("app", "1.0"))
    index.add("app", local.name, local.read_bytes(), url=local.as_uri())
    with pytest.raises(AirliftError, match=r"app-1\.0-py3-none-any\.whl"):
        bench.resolve("app")
    with pytest.raises(AirliftError, match=r"app-1\.0-py3-none-any\.whl"):
        bench.resolve("app", allow_sdist=True)


def test_an_index_that_refuses_or_is_down_is_named(tmp_path: Path, bench: Bench, index: FakeIndex) -> None:
    index.wheel("app", "1.0")
    entry = bench.resolve("app")
    for status, message in ((503, "answered 503"), (429, "answered 429"), (404, "no index has that project")):
        index.failing = status
        with pytest.raises(AirliftError) as caught:
            bench.resolve("app")
        assert message in caught.value.message
    index.failing = 403
    with pytest.raises(FetchError, match="does not have it"):
        carry(entry, bench.source(), Store(tmp_path / "s").create(), None)


def test_unknown_platforms_and_doubled_targets_are_refused_before_any_request(bench: Bench, index: FakeIndex) -> None:
    with pytest.raises(ResolveError, match="no wheel tags are known for the platform windows/amd64"):
        bench.resolve("app", targets=[GLIBC.model_copy(update={"platform": "windows/amd64"})])
    with pytest.raises(ResolveError, match="is there twice"):
        bench.resolve("app", targets=[GLIBC, GLIBC])
    with pytest.raises(ManifestError):
        bench.resolve("https://example.com/app.whl")
    assert index.requests == []
