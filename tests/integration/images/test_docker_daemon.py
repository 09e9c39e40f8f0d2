"""Images of a real docker daemon: the same digest every time, the daemon's own config, its layers as saved."""

from __future__ import annotations

import gc
import json
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from airlift import digest as digests
from airlift import oci
from airlift.connected.source import Settings
from airlift.connected.sources.images import ImageSource
from airlift.errors import FetchError, IntegrityError, ResolveError
from airlift.lock import LockedEntry
from airlift.manifest import Image
from tests.support.dockerd import Dockerd, running_dockerd
from tests.support.images import Box, layer_tar, skopeo
from tests.support.sources import Taken
from tests.support.sources import settings as settings_below


@pytest.fixture(scope="module")
def dockerd() -> Iterator[Dockerd]:
    with running_dockerd() as daemon:
        client = daemon.client()
        client.api.import_image_from_data(layer_tar(), repository="tool", tag="3", changes=['CMD ["/bin/sh"]'])
        client.close()
        yield daemon


@pytest.fixture
def settings(tmp_path: Path, dockerd: Dockerd) -> Settings:
    return settings_below(tmp_path, environment={"DOCKER_HOST": dockerd.host})


def image(name: str = "tool:3") -> Image:
    return Image.model_validate({"ref": f"docker-daemon:{name}", "as": "registry.example.com/vision/tool:3"})


def parts(entry: LockedEntry) -> tuple[bytes, list[str]]:
    (item,) = entry.artifacts
    text = item.small[0].text
    assert text is not None
    return text.encode(), [blob.digest for blob in (*item.small[1:], *item.large)]


def test_the_same_image_gives_the_same_digest_and_its_content_is_in_the_cache(
    settings: Settings, dockerd: Dockerd
) -> None:
    entry = ImageSource(settings).resolve(image(), None)
    assert ImageSource(settings).resolve(image(), None) == entry
    manifest, others = parts(entry)
    client = dockerd.client()
    docker_id = client.images.get("tool:3").id
    client.close()
    parsed = oci.parse_manifest(manifest, subject="made")
    assert parsed.config is not None
    assert parsed.config.digest == docker_id
    assert settings.cache is not None
    config = json.loads(settings.cache.read(parsed.config.digest))
    assert [layer.digest for layer in parsed.layers] == config["rootfs"]["diff_ids"]
    for digest in others:
        settings.cache.verify(digests.parse(digest))
    assert (entry.name, entry.source) == ("registry.example.com/vision/tool:3", "docker-daemon")
    assert list(settings.work.iterdir()) == []


def test_without_a_cache_the_daemon_is_asked_again(settings: Settings, dockerd: Dockerd) -> None:
    bare = replace(settings, cache=None)
    entry = ImageSource(bare).resolve(image(), None)
    source = ImageSource(bare)
    for blob in (*entry.artifacts[0].small[1:], *entry.artifacts[0].large):
        memory = Taken()
        source.fetch(entry, blob, memory)
        assert digests.of(memory.data) == blob.digest
    client = dockerd.client()
    client.api.import_image_from_data(layer_tar("other"), repository="moving", tag="1")
    old = ImageSource(bare).resolve(image("moving:1"), None)
    client.api.import_image_from_data(layer_tar("third"), repository="moving", tag="1")
    client.close()
    with pytest.raises(
        IntegrityError, match=r"^docker-daemon:moving:1: expected sha256:.*, as the lock says"
    ) as caught:
        ImageSource(bare).fetch(old, old.artifacts[0].large[0], Taken())
    assert "airlift resolve --update registry.example.com/vision/tool:3" in (caught.value.hint or "")


def test_a_cache_that_lost_it_is_named(settings: Settings) -> None:
    entry = ImageSource(settings).resolve(image(), None)
    layer = entry.artifacts[0].large[0]
    with pytest.raises(ResolveError, match=f"{layer.digest} of docker-daemon:tool:3 is not in the cache any more"):
        ImageSource(settings).fetch(entry, layer, Taken())


def test_an_absent_image_is_said(settings: Settings) -> None:
    with pytest.raises(ResolveError, match=r"^docker-daemon:absent:1: the daemon has no such image$"):
        ImageSource(settings).resolve(image("absent:1"), None)


def test_an_absent_daemon_is_said(settings: Settings, tmp_path: Path) -> None:
    away = replace(settings, environment={"DOCKER_HOST": f"unix://{tmp_path}/no.sock"})
    with warnings.catch_warnings():
        # docker's SDK leaves a socket open when nobody answers.
        warnings.simplefilter("ignore", ResourceWarning)
        with pytest.raises(FetchError, match=r"^docker-daemon:tool:3: ") as caught:
            ImageSource(away).resolve(image(), None)
        hint = caught.value.hint
        del caught
        gc.collect()
    assert hint == "is the docker daemon running, and may this user talk to it?"


def test_many_threads_read_one_saved_image(settings: Settings) -> None:
    bare = replace(settings, cache=None)
    entry = ImageSource(bare).resolve(image(), None)
    source = ImageSource(bare)
    (layer,) = entry.artifacts[0].large

    def fetch(_: int) -> str:
        memory = Taken()
        source.fetch(entry, layer, memory)
        return digests.of(memory.data)

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(fetch, range(8))) == {layer.digest}


def test_a_missing_platform_is_refused(settings: Settings) -> None:
    with pytest.raises(ResolveError, match=r"^docker-daemon:tool:3: no image for linux/s390x; there is linux/"):
        ImageSource(replace(settings, platforms=("linux/s390x",))).resolve(image(), None)


def test_skopeo_reads_what_was_made(settings: Settings, tmp_path: Path) -> None:
    entry = ImageSource(settings).resolve(image(), None)
    manifest, others = parts(entry)
    assert settings.cache is not None
    box = Box(tmp_path / "box")
    for digest in others:
        box.store.put_bytes(settings.cache.path(digests.parse(digest)).read_bytes())
    box.name("tool", box.put(manifest, oci.MANIFEST))
    inspected = json.loads(skopeo("inspect", f"oci:{box.path}:tool"))
    assert inspected["Digest"] == digests.of(manifest)
