"""Measure a site against its targets: filling a registry, doing an import again, switching between two drops.

A registry is filled three ways in one run, each time a fresh docker-registry: by ``airlift import``, by ``skopeo copy
oci-archive:``, and by a client that only uploads the blobs out of files. The best round of each counts.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import http.client
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from bench import run, seconds

from airlift import canonical, digest, oci
from airlift.digest import Digest
from airlift.limits import MIB
from airlift.oci import Descriptor
from airlift.store import Store

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.support.registry import running_registry  # noqa: E402 - beside the package, not in it

IMAGES = 4
LAYERS = 5
NAMES = 10_000
ROUNDS = 2
THREADS = (1, 2, 4)


@dataclass
class Images:
    """What is shipped: an OCI layout, and an archive of each image for skopeo."""

    folder: Path
    blobs: dict[Digest, Path] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes of all blobs."""
        return sum(path.stat().st_size for path in self.blobs.values())

    def archive(self, number: int) -> Path:
        """Return where an image's archive is."""
        return self.folder / f"image{number}.tar"


def make_images(folder: Path, megabytes: int) -> Images:
    """Make images of random layers, of which the last is several times as large as the first."""
    made = Images(folder)
    store = Store(folder / "layout").create()
    entries = []
    weights = range(1, LAYERS + 1)
    for number in range(IMAGES):
        layers, diff_ids = [], []
        for weight in weights:
            diff_id, layer = make_layer(store, megabytes * 1_000_000 * weight // (IMAGES * sum(weights)))
            made.blobs[layer.digest] = store.path(layer.digest)
            diff_ids.append(diff_id)
            layers.append(layer.to_json())
        config = canonical.encode(
            {
                "architecture": "amd64",
                "os": "linux",
                "config": {},
                "rootfs": {"type": "layers", "diff_ids": diff_ids},
            }
        )
        manifest = canonical.encode(
            {
                "schemaVersion": 2,
                "mediaType": oci.MANIFEST,
                "config": oci.describe(config, oci.CONFIG).to_json(),
                "layers": layers,
            }
        )
        made.blobs[store.put_bytes(config)] = store.path(digest.of(config))
        store.put_bytes(manifest)
        entries.append({**oci.describe(manifest, oci.MANIFEST).to_json(), "annotations": {oci.REF_NAME: str(number)}})
    index = {"schemaVersion": 2, "mediaType": oci.INDEX, "manifests": entries}
    (folder / "layout" / "index.json").write_bytes(canonical.encode(index))
    for number in range(IMAGES):
        skopeo("copy", f"oci:{folder}/layout:{number}", f"oci-archive:{made.archive(number)}")
    return made


def make_layer(store: Store, size: int) -> tuple[Digest, Descriptor]:
    """Make a layer of random bytes and return its diff-id and descriptor.

    It is written piece by piece: the peak memory that a child is told to have had begins with its parent's.
    """
    plain, packed = hashlib.sha256(), hashlib.sha256()
    part = store.root / "part"
    with part.open("wb") as stream, gzip.GzipFile("", "wb", 0, Hashed(stream.write, packed), 0) as zipped:
        out = Hashed(zipped.write, plain)
        info = tarfile.TarInfo("data")
        info.size = max(1, size)
        out.write(info.tobuf())
        left = info.size
        while left:
            left -= out.write(os.urandom(min(left, MIB)))
        out.write(bytes(-info.size % tarfile.BLOCKSIZE + 2 * tarfile.BLOCKSIZE))
    layer = Descriptor(oci.LAYER, digest.from_hex(packed.hexdigest()), part.stat().st_size)
    part.replace(store.path(layer.digest))
    return digest.from_hex(plain.hexdigest()), layer


class Hashed(io.RawIOBase):
    """Writes on and hashes what it writes."""

    def __init__(self, onward: Callable[[bytes], int], running: hashlib._Hash) -> None:
        self._onward = onward
        self._running = running

    def write(self, data: bytes) -> int:  # type: ignore[override]
        """Take all of it."""
        self._running.update(data)
        self._onward(data)
        return len(data)


def skopeo(*arguments: str) -> None:
    """Run skopeo with its temporary files beside ours."""
    subprocess.run(["skopeo", "--insecure-policy", *arguments], check=True, stdout=subprocess.DEVNULL)


def upload_all(host: str, blobs: dict[Digest, Path], threads: int) -> None:
    """Upload files, each with one request, and do nothing else."""
    local = threading.local()

    def upload(item: tuple[Digest, Path]) -> None:
        digest_, path = item
        if not hasattr(local, "link"):
            local.link = http.client.HTTPConnection(host, blocksize=MIB)
        link: http.client.HTTPConnection = local.link
        link.request("POST", "/v2/raw/blobs/uploads/", b"")
        answer = link.getresponse()
        answer.read()
        place = urlsplit(answer.headers["Location"])
        headers = {"Content-Length": str(path.stat().st_size), "Content-Type": "application/octet-stream"}
        with path.open("rb") as stream:
            link.request("PUT", f"{place.path}?{place.query}&digest={digest_}", stream, headers)
        answer = link.getresponse()
        answer.read()
        if answer.status != http.client.CREATED:
            sys.exit(f"docker-registry answered {answer.status} to a raw upload")

    with ThreadPoolExecutor(max_workers=threads) as pool:
        list(pool.map(upload, sorted(blobs.items(), key=lambda item: -item[1].stat().st_size)))


def uncached(paths: Iterable[Path]) -> None:
    """Let the next reader read these files from the disk, as from a medium that was just plugged in."""
    for path in paths:
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@dataclass
class Peak:
    """The most that some directories held, beyond what they held at first, in bytes on disk."""

    folders: tuple[Path, ...]
    most: int = 0

    def held(self) -> int:
        """Return what they hold now."""
        found = 0
        for folder in self.folders:
            for path in folder.rglob("*"):
                with contextlib.suppress(OSError):
                    found += path.lstat().st_blocks * 512
        return found

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Look ten times a second while the block runs."""
        ended = threading.Event()
        first = self.held()

        def watch() -> None:
            while not ended.wait(0.1):
                self.most = max(self.most, self.held() - first)

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            self.most = max(self.most, self.held() - first)


@dataclass
class Maker:
    """Makes bundles and sites in a folder, by the command line."""

    folder: Path

    def keys(self) -> None:
        """Make a signer, an identity, and trust in the one."""
        keys = str(self.folder)
        run("keys", "generate", "signer", "--kind", "signer", "--out", keys, "--no-passphrase")
        run("keys", "generate", "site", "--kind", "identity", "--out", keys, "--no-passphrase")
        signer = f"alice={self.folder}/signer.pub"
        run("trust", "init", "-o", f"{self.folder}/trust.json", "--channel", "stable", "--signer", signer)

    def bundles(self, name: str, entries: str, count: int = 1) -> list[Path]:
        """Make bundles of one content, with the sequences 1 to `count`."""
        manifest, lock = self.folder / f"{name}.yaml", self.folder / f"{name}.lock.json"
        head = f"apiVersion: airlift/v1\nkind: Drop\nmetadata: {{name: {name}, channel: stable}}\n"
        manifest.write_text(head + entries)
        run("resolve", str(manifest), "-o", str(lock), "--no-cache")
        made = []
        for sequence in range(1, count + 1):
            made.append(self.folder / f"{name}-{sequence}.airlift")
            signing = ["--sequence", str(sequence), "--signer", f"{self.folder}/signer.key"]
            sealing = ["--recipient", f"{self.folder}/site.pub", "--no-cache"]
            run("build", str(lock), "-o", str(made[-1]), *signing, *sealing)
        return made

    def site(self, name: str, registry: str = "") -> Path:
        """Make a site."""
        made = self.folder / name
        trust = ["--trust", f"{self.folder}/trust.json", "--identity", f"{self.folder}/site.key"]
        where = ["--url", "http://127.0.0.1:1", *(["--registry", registry] if registry else [])]
        run("site", "init", str(made), *trust, *where)
        return made


def tell(what: str, value: float, unit: str, sign: str, target: float) -> None:
    """Print one line of the table. A target that is missed is no failure: the machine may be busy."""
    is_met = value >= target if sign == ">=" else value <= target if sign == "<=" else value < target
    print(f"{what:52} {value:8.2f} {unit:2}  {sign:2} {target:g} {unit:2}  {'ok' if is_met else 'MISSED'}", flush=True)


def fill_registries(make: Maker, megabytes: int) -> None:
    """Fill docker-registry in each way and print the ratios."""
    images = make_images(make.folder, megabytes)
    entries = "".join(
        f"  - {{ref: 'oci-layout:./layout:{number}', as: 'registry.example.com/bench/app{number}:1'}}\n"
        for number in range(IMAGES)
    )
    [bundle] = make.bundles("images", f"images:\n{entries}")
    best: dict[str, float] = {}
    disk = memory = 0

    def in_fresh_registry(name: str, fill: Callable[[str], float]) -> None:
        root = make.folder / "registry"
        uncached([bundle, *images.blobs.values(), *(images.archive(number) for number in range(IMAGES))])
        with running_registry(root) as registry:
            taken = fill(registry.host)
        shutil.rmtree(root)
        best[name] = min(taken, best.get(name, taken))

    def by_import(host: str) -> float:
        nonlocal disk, memory
        site = make.site("filled", f"http://{host}")
        peak = Peak((site, Path(tempfile.gettempdir())))
        with peak.watched():
            taken, resident = run("import", str(bundle), "--site", str(site))
        shutil.rmtree(site)
        disk, memory = max(disk, peak.most), max(memory, resident)
        return taken

    def by_skopeo(host: str) -> float:
        def copy() -> None:
            for number in range(IMAGES):
                place = f"docker://{host}/bench/app{number}:1"
                skopeo(
                    "copy", "--dest-tls-verify=false", "--preserve-digests",
                    f"oci-archive:{images.archive(number)}", place,
                )  # fmt: skip

        return seconds(copy)

    def by_raw_uploads(threads: int, host: str) -> float:
        return seconds(lambda: upload_all(host, images.blobs, threads))

    for _ in range(ROUNDS):
        in_fresh_registry("import", by_import)
        in_fresh_registry("skopeo", by_skopeo)
        for threads in THREADS:
            in_fresh_registry("raw", partial(by_raw_uploads, threads))
    speeds = ", ".join(f"{name} {images.size / taken / 1e6:.0f}" for name, taken in best.items())
    print(f"{IMAGES} images, {images.size / 1e6:.0f} MB, into docker-registry in MB/s: {speeds}")
    faster = best["skopeo"] / best["import"]
    share = best["raw"] / best["import"]
    extra = disk / bundle.stat().st_size
    tell("import is faster than skopeo copy oci-archive: by", faster, "x", ">=", 2)
    tell("import reaches of what raw uploads reach", 100 * share, "%", ">=", 80)
    tell("disk beside the registry's, of the bundle", 100 * extra, "%", "<=", 5)
    tell("peak memory of import", memory / 1e6, "MB", "<", 200)


def switch_names(make: Maker, names: int) -> None:
    """Import a drop of many small artifacts twice, and activate the one before it."""
    (make.folder / "small").write_bytes(b"one content under many names\n")
    entries = "".join(f"  - {{path: small, name: file{number}}}\n" for number in range(names))
    first, second = make.bundles("names", f"files:\n{entries}", 2)
    site = str(make.site("embedded"))
    run("import", str(first), "--site", site)
    run("import", str(second), "--site", site)
    again, _ = run("import", str(second), "--site", site)
    active, _ = run("drops", "activate", "--site", site, "stable/1")
    tell(f"import again, of {names} artifacts, for 1,000", again / names * 1000, "s", "<", 2)
    tell(f"activation of {names} names", active, "s", "<", 1)


def main() -> None:
    """Make the drops and print the table: bench_site.py [MEGABYTES [NAMES]]."""
    given = [int(word) for word in sys.argv[1:]]
    megabytes, names = given + [4000, NAMES][len(given) :]
    cache = ROOT / ".cache"
    with tempfile.TemporaryDirectory(prefix="bench-", dir=cache if cache.is_dir() else None) as folder:
        temporary = Path(folder) / "tmp"
        temporary.mkdir()
        os.environ["TMPDIR"] = tempfile.tempdir = str(temporary)
        make = Maker(Path(folder))
        make.keys()
        fill_registries(make, megabytes)
        switch_names(make, names)


if __name__ == "__main__":
    main()
