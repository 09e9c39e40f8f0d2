"""What was attached to an image upstream is found at the site by cosign, oras and regctl, in a docker-registry.

That registry has no referrers API, so every one of these programs reads the tag that stands for it, each in its own way.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.components import require_go
from tests.support.cli import Desk, airlift, desk, ok
from tests.support.images import Box
from tests.support.registry import Registry, running_registry

REPOSITORY = "demo/app"
AT_SITE = "registry.example.com/demo/app"
SIGNATURE = "application/vnd.dev.sigstore.bundle.v0.3+json"
SBOM = "application/vnd.cyclonedx+json"


def run(program: str, *arguments: str | Path, home: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [require_go(program), *map(str, arguments)],
        cwd=home,
        env={"HOME": str(home), "SIGSTORE_NO_CACHE": "true", "COSIGN_PASSWORD": "secret"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def said(program: str, *arguments: str | Path, home: Path) -> str:
    done = run(program, *arguments, home=home)
    assert done.returncode == 0, f"{program} {arguments}: {done.stderr}"
    return done.stdout


@dataclass
class Months:
    """An upstream registry with a signed image, and a site that takes a drop of it every month into its own registry."""

    place: Desk
    upstream: Registry
    registry: Registry
    digest: str

    @property
    def home(self) -> Path:
        return self.place.home

    @property
    def here(self) -> str:
        """The image in the site's registry."""
        return f"{self.registry.host}/{AT_SITE}@{self.digest}"

    @property
    def there(self) -> str:
        """The image upstream."""
        return f"{self.upstream.host}/{REPOSITORY}@{self.digest}"

    def sign(self, key: str) -> None:
        """Sign the image upstream, as cosign 3 does: with a bundle that refers to it."""
        said("cosign", "generate-key-pair", f"--output-key-prefix={key}", home=self.home)
        switches = ["--tlog-upload=false", "--use-signing-config=false", "--allow-http-registry", "--yes"]
        said("cosign", "sign", f"--key={key}.key", *switches, self.there, home=self.home)

    def attach(self, name: str) -> None:
        """Attach an SBOM to the image upstream."""
        (self.home / name).write_text(json.dumps({"bomFormat": "CycloneDX", "specVersion": "1.6", "name": name}))
        said("oras", "attach", "--plain-http", f"--artifact-type={SBOM}", self.there, f"{name}:{SBOM}", home=self.home)

    def carry(self, sequence: int) -> None:
        """Resolve what is upstream now, build it, import it."""
        home = self.home
        ok("resolve", "drop.yaml", "-o", f"{sequence}.lock.json", home=home)
        build = ["-o", f"{sequence}.airlift", "--sequence", str(sequence), *self.place.signers, *self.place.recipients]
        ok("build", f"{sequence}.lock.json", *build, home=home)
        ok("import", f"{sequence}.airlift", "--site", "site", home=home)

    def verifies(self, key: str) -> bool:
        switches = ["--insecure-ignore-tlog=true", "--allow-http-registry"]
        done = run("cosign", "verify", f"--key={key}.pub", *switches, self.here, home=self.home)
        return done.returncode == 0 and self.digest in done.stdout

    def by_oras(self, image: str) -> dict[str, str]:
        """Digest and type of what oras finds."""
        found = json.loads(said("oras", "discover", "--plain-http", "--format=json", image, home=self.home))
        return {item["digest"]: item["artifactType"] for item in found["referrers"]}

    def by_regctl(self, image: str) -> dict[str, str]:
        """The same of regctl."""
        hosts = [f"--host=reg={host.host},tls=disabled" for host in (self.registry, self.upstream)]
        found = json.loads(
            said("regctl", *hosts, "artifact", "list", "--format={{json .Descriptors}}", image, home=self.home)
        )
        return {item["digest"]: item["artifactType"] for item in found or []}

    def found(self) -> dict[str, str]:
        """What both find at the site."""
        found = self.by_oras(self.here)
        assert self.by_regctl(self.here) == found
        return found

    def sboms(self) -> set[str]:
        """The names in the SBOMs of the site, each fetched from there by oras."""
        names = set()
        for digest, kind in self.found().items():
            if kind == SBOM:
                to = self.home / digest
                source = f"{self.here.partition('@')[0]}@{digest}"
                said("oras", "pull", "--plain-http", "--output", to, source, home=self.home)
                names |= {json.loads(path.read_text())["name"] for path in to.iterdir()}
        return names


@pytest.fixture
def months(tmp_path: Path) -> Iterator[Months]:
    for program in ("cosign", "oras", "regctl"):
        require_go(program)
    box = Box(tmp_path / "box")
    image = box.image("1")
    with running_registry(tmp_path / "upstream") as upstream, running_registry(tmp_path / "registry") as registry:
        box.push(upstream, REPOSITORY)
        made = Months(desk(tmp_path), upstream, registry, image.digest)
        (tmp_path / "drop.yaml").write_text(
            "apiVersion: airlift/v1\nkind: Drop\nmetadata: {name: vision, channel: stable}\n"
            f"images: [{{ref: '{upstream.host}/{REPOSITORY}:1', as: '{AT_SITE}:1'}}]\n"
        )
        ok("site", "init", "site", "--trust", made.place.trust, "--identity", made.place.identity,
           "--url", "http://127.0.0.1:8080", home=tmp_path)  # fmt: skip
        with (tmp_path / "site" / "site.yaml").open("a") as stream:
            stream.write(f"registry: {{url: '{registry.url}'}}\n")
        yield made


def test_signatures_and_sboms_are_found_after_every_import_and_gone_after_prune(months: Months) -> None:
    months.sign("carol")
    months.attach("first")
    months.carry(1)
    assert months.found() == months.by_oras(months.there)
    assert sorted(months.found().values()) == [SBOM, SIGNATURE]
    assert months.verifies("carol")
    assert months.sboms() == {"first"}

    # The same image: upstream has signed it once more, and has another SBOM in place of the first.
    months.sign("dave")
    assert not months.verifies("dave")
    first = next(digest for digest, kind in months.by_oras(months.there).items() if kind == SBOM)
    gone = f"{months.there.partition('@')[0]}@{first}"
    said("oras", "manifest", "delete", "--plain-http", "--force", gone, home=months.home)
    months.attach("second")
    months.carry(2)
    assert sorted(months.found().values()) == [SBOM, SBOM, SIGNATURE, SIGNATURE]
    assert months.verifies("carol")
    assert months.verifies("dave")
    assert months.sboms() == {"first", "second"}

    ok("drops", "prune", "--site", "site", "--keep", "1", "-o", "plan.json", home=months.home)
    ok("drops", "prune", "--site", "site", "--execute", "plan.json", home=months.home)
    assert months.found() == months.by_oras(months.there)
    assert months.sboms() == {"second"}
    assert months.verifies("carol")
    assert months.verifies("dave")
    assert airlift("check", "--site", "site", home=months.home).code == 0
