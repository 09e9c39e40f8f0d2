"""What every place has to do that a site shows its charts in: repositories for ``helm --repo``, registries for oci://."""

from __future__ import annotations

import contextlib
import hashlib
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

from airlift.artifact import Artifact
from airlift.errors import IntegrityError
from airlift.site.site_yaml import RegistryConfig
from tests.components import require
from tests.support import mirrors
from tests.support.chart_servers import helm
from tests.support.charts import chart, pod
from tests.support.harbor import running_harbor
from tests.support.mirrors import Mirror
from tests.support.real_harbor import HarborUnderTest, administered
from tests.support.registry import running_registry
from tests.support.site_bundles import Cargo, make_site, ship

SIGNED = b"-----BEGIN PGP SIGNED MESSAGE-----\n"


@dataclass
class Shop:
    """A mirror of charts, as helm names it.

    Attributes:
        mirror: the site, and where it shows them.
        base: the address of the repository, or oci:// and where charts are in the registry.
        transport: helm's words for the connection to a registry.
    """

    mirror: Mirror
    base: str
    transport: tuple[str, ...] = ("--plain-http",)

    @property
    def is_oci(self) -> bool:
        return self.base.startswith("oci://")

    def chart(self, name: str, version: str = "") -> list[str]:
        """The words by which helm finds a chart here."""
        words = [f"{self.base}/{name}", *self.transport] if self.is_oci else [name, "--repo", self.base]
        return [*words, *(["--version", version] if version else [])]

    def pull(self, name: str, version: str = "", *words: str) -> dict[str, bytes]:
        """What ``helm pull`` writes."""
        return _pulled(self.mirror.folder, *self.chart(name, version), *words)

    def has(self, name: str, version: str) -> bool:
        command = [require("helm"), "show", "chart", *self.chart(name, version)]
        return subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == 0

    def pinned(self, item: Artifact, archive: bytes) -> bytes | None:
        """The archive of a chart by its digest, or None when that is not served."""
        if not self.is_oci:
            place = f"{self.base}/{_sha(archive)}/{item.facts['name']}-{item.facts['version']}.tgz"
            answer = requests.get(place, timeout=30)
            return answer.content if answer.ok else None
        place = f"{self.base}/{item.facts['name']}@{item.root.digest}"
        command = [require("helm"), "show", "chart", place, *self.transport]
        if subprocess.run(command, capture_output=True, timeout=60, check=False).returncode != 0:
            return None
        (data,) = _pulled(self.mirror.folder, place, *self.transport).values()
        return data


def _pulled(folder: Path, *words: str) -> dict[str, bytes]:
    target = folder / f"pulled{len(list(folder.glob('pulled*')))}"
    target.mkdir()
    helm("pull", *words, "-d", target)
    return {path.name: path.read_bytes() for path in target.iterdir()}


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@contextlib.contextmanager
def _repository(folder: Path, backend: Callable[[Path], AbstractContextManager[Mirror]]) -> Iterator[Shop]:
    with backend(folder) as mirror:
        yield Shop(mirror, f"{mirror.url}/charts")


@contextlib.contextmanager
def _embedded_registry(folder: Path) -> Iterator[Shop]:
    with mirrors.embedded(folder) as mirror:
        yield Shop(mirror, f"oci://{mirror.host}/charts")


@contextlib.contextmanager
def _docker_registry(folder: Path) -> Iterator[Shop]:
    with running_registry(folder / "registry") as registry:
        config = RegistryConfig(url=f"{registry.url}/air")
        site = make_site(folder / "site", registry=config, channels=mirrors.CHANNELS)
        place = f"oci://{registry.host}/{config.repository('charts')}"
        yield Shop(Mirror(site, registry.url, folder, loses_names=False), place)


@contextlib.contextmanager
def _stand_in(folder: Path) -> Iterator[Shop]:
    with running_registry(folder / "registry") as behind, running_harbor(behind) as harbor:
        yield _harbor(folder, administered(harbor))


def _harbor(folder: Path, harbor: HarborUnderTest, project: str | None = None) -> Shop:
    """Everybody may pull there; the account may delete, which going back and pruning do."""
    (folder / "password").write_text(harbor.password)
    config = RegistryConfig(
        url=harbor.url,
        kind="harbor",
        ca=None if harbor.ca is None else str(harbor.ca),
        username=harbor.user,
        password_file=str(folder / "password"),
        project=project,
        public=True,
    )
    site = make_site(folder / "site", registry=config, channels=mirrors.CHANNELS)
    transport = ["--plain-http"] if harbor.is_plain else ["--ca-file", str(harbor.ca)] if harbor.ca else []
    place = f"oci://{harbor.host}/{config.repository('charts')}"
    return Shop(Mirror(site, harbor.url, folder), place, tuple(transport))


SHOPS: dict[str, Callable[[Path], AbstractContextManager[Shop]]] = {
    "embedded": lambda folder: _repository(folder, mirrors.embedded),
    "static tree on nginx": lambda folder: _repository(folder, mirrors.static_tree),
    "embedded, by oci": _embedded_registry,
    "docker-registry, by oci": _docker_registry,
    "a Harbor's stand-in, by oci": _stand_in,
}
NAMED = "a Harbor, by oci"
REPOSITORIES = [name for name in SHOPS if "oci" not in name]


@pytest.fixture(params=[*SHOPS, pytest.param(NAMED, marks=pytest.mark.harbor)])
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shop]:
    require("helm")
    if request.param == NAMED:
        # Asked for here, so that a run without one skips nothing else.
        harbor: HarborUnderTest = request.getfixturevalue("named_harbor")
        yield _harbor(tmp_path, harbor, harbor.name())
        return
    with SHOPS[request.param](tmp_path) as made:
        yield made


@pytest.fixture(params=REPOSITORIES)
def repository(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shop]:
    require("helm")
    with SHOPS[request.param](tmp_path) as made:
        yield made


def cargo(*archives: bytes, channel: str = "stable") -> Cargo:
    made = Cargo(channel)
    for archive in archives:
        made.chart(archive)
    return made


def described(text: str, version: str = "1.0.0") -> bytes:
    return chart("app", version, more=f"description: {text}\n")


def test_helm_pulls_the_exact_bytes_of_each_version(shop: Shop) -> None:
    old, new = chart("app", "1.9.0"), chart("app", "1.10.0+b1", {"templates/p.yaml": pod("a:1")})
    other = chart("other-app", "v0.1.0")
    shop.mirror.take(cargo(old, new, other))
    assert shop.pull("app", "1.9.0") == {"app-1.9.0.tgz": old}
    assert shop.pull("app", "1.10.0+b1") == {"app-1.10.0+b1.tgz": new}
    assert shop.pull("other-app", "v0.1.0") == {"other-app-v0.1.0.tgz": other}
    assert shop.pull("app") == {"app-1.10.0+b1.tgz": new}
    assert shop.pull("app", "<1.10") == {"app-1.9.0.tgz": old}
    assert "image: a:1" in helm("template", "r", *shop.chart("app", "^1.10.0"))
    assert not shop.has("app", "2.0.0")
    assert not shop.has("none", "1.0.0")


def test_a_provenance_file_comes_with_its_chart(shop: Shop) -> None:
    made, data = Cargo(), chart("app", "1.0.0")
    made.chart(data, SIGNED)
    shop.mirror.take(made)
    assert shop.pull("app", "1.0.0", "--prov") == {"app-1.0.0.tgz": data, "app-1.0.0.tgz.prov": SIGNED}


def test_a_version_moves_with_the_drop_and_the_digest_stays(shop: Shop) -> None:
    first, second = described("first"), described("second")
    drops = {data: cargo(data) for data in (first, second)}
    shop.mirror.take(drops[first])
    assert shop.pull("app", "1.0.0") == {"app-1.0.0.tgz": first}
    assert shop.pinned(drops[second].artifacts[0], second) is None
    for active, change in (
        (second, lambda: shop.mirror.take(drops[second])),
        (first, shop.mirror.roll_back),
        (second, lambda: shop.mirror.activate("stable/2")),
    ):
        change()
        assert shop.pull("app", "1.0.0") == {"app-1.0.0.tgz": active}
        assert shop.pull("app") == {"app-1.0.0.tgz": active}
        for data, drop in drops.items():
            assert shop.pinned(drop.artifacts[0], data) == data


def test_importing_a_drop_again_changes_nothing(shop: Shop) -> None:
    data = described("first")
    shop.mirror.take(cargo(data))
    assert shop.mirror.import_again(shop.mirror.bundle(1)).was_here
    assert shop.pull("app") == {"app-1.0.0.tgz": data}


def test_charts_of_two_channels_stand_side_by_side(shop: Shop) -> None:
    stable, edge = described("stable"), described("edge", "1.1.0-rc.1")
    shop.mirror.take(cargo(stable))
    shop.mirror.take(cargo(edge, channel="edge"))
    assert shop.pull("app") == {"app-1.0.0.tgz": stable}
    assert shop.pull("app", "1.1.0-rc.1") == {"app-1.1.0-rc.1.tgz": edge}


def test_a_version_that_only_the_later_drop_has_goes_with_it(shop: Shop) -> None:
    first, second = described("first"), described("second", "2.0.0")
    later = cargo(first, second)
    shop.mirror.take(cargo(first))
    shop.mirror.take(later)
    assert shop.pull("app") == {"app-2.0.0.tgz": second}
    shop.mirror.roll_back()
    assert shop.pinned(later.artifacts[1], second) == second
    # docker-registry deletes no tag without what is under it.
    assert shop.has("app", "2.0.0") is (not shop.mirror.loses_names)
    assert shop.pull("app", "1.0.0") == {"app-1.0.0.tgz": first}


def test_a_pruned_drops_digest_is_gone_and_a_kept_ones_stays(shop: Shop) -> None:
    archives = [described(str(number)) for number in (1, 2, 3)]
    drops = [cargo(data) for data in archives]
    for drop in drops:
        shop.mirror.take(drop)
    assert shop.mirror.prune(keep=2) == 1
    found = [shop.pinned(drop.artifacts[0], data) for drop, data in zip(drops, archives, strict=True)]
    assert found == [None, archives[1], archives[2]]
    assert shop.pull("app") == {"app-1.0.0.tgz": archives[2]}


def test_nothing_is_seen_of_a_bundle_that_turns_out_wrong(shop: Shop) -> None:
    first, second = described("first"), described("second")
    shop.mirror.take(cargo(first))
    wrong = cargo(second, chart("more", "1.0.0"))
    wrong.file("tool", bytes(10_000_000))
    bundle = ship(wrong, shop.mirror.bundle(2), sequence=2)
    data = bytearray(bundle.read_bytes())
    data[-2 * 1024 * 1024] ^= 1
    bundle.write_bytes(data)
    with pytest.raises(IntegrityError):
        shop.mirror.import_again(bundle)
    assert shop.pull("app") == {"app-1.0.0.tgz": first}
    assert shop.pinned(wrong.artifacts[0], second) is None
    assert not shop.has("more", "1.0.0")


def test_a_chart_finds_its_dependency_there(shop: Shop, tmp_path: Path) -> None:
    inner = chart("inner", "1.2.0", {"templates/p.yaml": pod("inner:1")})
    shop.mirror.take(cargo(inner))
    outer = tmp_path / "outer"
    outer.mkdir()
    wanted = f"  - {{name: inner, version: ^1, repository: '{shop.base}'}}\n"
    (outer / "Chart.yaml").write_text(f"apiVersion: v2\nname: outer\nversion: 1.0.0\ndependencies:\n{wanted}")
    helm("dependency", "update", outer, *(shop.transport if shop.is_oci else ()))
    assert (outer / "charts" / "inner-1.2.0.tgz").read_bytes() == inner
    assert "image: inner:1" in helm("template", "r", outer)


def test_helm_lists_the_versions_of_a_repository(repository: Shop) -> None:
    helm("repo", "add", "site", repository.base, "--force-update")
    rich = (
        "description: 'a: chart'\nkeywords: [a, b]\nmaintainers: [{name: Ann, email: a@example.com}]\nappVersion: 1.10\n"
        "kubeVersion: '>=1.20-0'\nicon: https://example.com/i.png\nannotations: {x/y: 'true', images: '- a'}\n"
        "type: application\nhome: https://example.com\nsources: [https://example.com/s]\ndeprecated: false\n"
        "unknownField: 7\n"
    )
    new = chart("app", "1.10.0+b1", more=rich)
    repository.mirror.take(cargo(chart("app", "1.9.0"), new, chart("other", "v0.1.0")))

    def listed() -> list[list[str]]:
        helm("repo", "update", "site")
        return [line.split()[:2] for line in helm("search", "repo", "site/", "--versions").splitlines()[1:]]

    assert listed() == [["site/app", "1.10.0+b1"], ["site/app", "1.9.0"], ["site/other", "v0.1.0"]]
    repository.mirror.take(cargo(chart("app", "1.9.0")))
    assert listed() == [["site/app", "1.9.0"]]
    # Where it is kept only, it is still served, and not listed.
    assert repository.pinned(cargo(new).artifacts[0], new) == new


def test_archives_answer_head_range_and_nothing_else(repository: Shop) -> None:
    data, other = chart("app", "1.0.0"), chart("b", "1.0.0")
    made = cargo(other)
    made.chart(data, SIGNED)
    repository.mirror.take(made)
    place = f"{repository.base}/{_sha(data)}/app-1.0.0.tgz"
    head = requests.head(place, timeout=10)
    assert (head.status_code, head.headers["Content-Length"]) == (200, str(len(data)))
    assert "Content-Encoding" not in head.headers
    part = requests.get(place, headers={"Range": "bytes=10-19"}, timeout=10)
    assert (part.status_code, part.content) == (206, data[10:20])
    assert requests.get(f"{place}.prov", timeout=10).content == SIGNED
    for wrong in (
        f"{_sha(data)}/b-1.0.0.tgz",
        f"{'0' * 64}/app-1.0.0.tgz",
        f"{_sha(data)[:-1]}/app-1.0.0.tgz",
        f"{_sha(data)}/app-1.0.0.tgz/x",
        f"{_sha(data)}/..%2f..%2fetc%2fpasswd",
        f"{_sha(other)}/b-1.0.0.tgz.prov",
    ):
        assert requests.get(f"{repository.base}/{wrong}", timeout=10).status_code == 404, wrong
