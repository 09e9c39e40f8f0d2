"""The distribution specification's own suite, against the embedded registry (scripts/tool-go builds it)."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from airlift import oci
from airlift.digest import of as digest_of
from tests.components import require_go
from tests.support.serving import serving
from tests.support.site_bundles import Cargo, compact, make_site, ship, take

LAYER = b"layer"


@pytest.mark.parametrize("version", ["1.1", "dev"])
def test_the_embedded_registry_conforms(tmp_path: Path, version: str) -> None:
    program = require_go("conformance")
    cargo = Cargo()
    app = cargo.image("docker.io/library/app:1", LAYER)
    body = {
        "schemaVersion": 2,
        "mediaType": oci.MANIFEST,
        "artifactType": "application/vnd.example.v1",
        "config": cargo.put(b"{}", oci.EMPTY).to_json(),
        "layers": [cargo.put(b"signed", "text/plain", large=True).to_json()],
        "subject": oci.Descriptor(oci.MANIFEST, app.root.digest, app.root.size).to_json(),
    }
    referrer = cargo.put(compact(body), oci.MANIFEST)
    cargo.add(app.kind, f"docker.io/library/app@{referrer.digest}", referrer)
    site = make_site(tmp_path / "site")
    take(site, ship(cargo, tmp_path / "bundle"))
    # With inputs that it is only to read, the suite's writer of result files crashes; where no directory can be made it
    # writes none, and what counts is on its standard output too.
    results = tmp_path / "bundle" / "results"
    with serving(site.root) as url:
        wanted = {
            "OCI_VERSION": version,
            "OCI_REGISTRY": url.removeprefix("http://"),
            "OCI_TLS": "disabled",
            "OCI_REPO1": "library/app",
            "OCI_USERNAME": "",
            "OCI_PASSWORD": "",
            "OCI_API_PULL": "true",
            "OCI_API_PUSH": "false",
            "OCI_API_BLOBS_DELETE": "false",
            "OCI_API_MANIFESTS_DELETE": "false",
            "OCI_API_TAGS_DELETE": "false",
            "OCI_API_TAGS_LIST": "true",
            "OCI_API_REFERRER": "true",
            "OCI_DATA_IMAGE": "true",
            "OCI_DATA_SHA512": "false",
            # For content that it was not given itself, the suite never looks at the header that it would demand here;
            # tests/unit/site/test_registry_server.py does.
            "OCI_API_MANIFESTS_DIGEST_HEADER": "false",
            "OCI_API_BLOBS_DIGEST_HEADER": "false",
            "OCI_RO_DATA_TAGS": "1",
            "OCI_RO_DATA_MANIFESTS": f"{app.root.digest} {referrer.digest}",
            "OCI_RO_DATA_BLOBS": f"{digest_of(LAYER)}",
            "OCI_RO_DATA_REFERRERS": app.root.digest,
            "OCI_RESULTS_DIR": str(results),
            "OCI_LOG": "warn",
        }
        done = subprocess.run(
            [program], env={**os.environ, **wanted}, capture_output=True, text=True, check=False, cwd=tmp_path
        )
    assert done.returncode == 0, done.stdout + done.stderr
    found = {key: value.strip() for key, value in re.findall(r"^ +([^.:]+)\.+:(.*)$", done.stdout, re.MULTILINE)}
    assert (found["FAIL"], found["Error"], found["Skip"]) == ("0", "0", "0"), done.stdout + done.stderr
    passed = {key for key, value in found.items() if value == "Pass"}
    assert passed >= {
        "Tag listing",
        "Blob get",
        "Blob head",
        "Manifest get by digest",
        "Manifest get by tag",
        "Manifest head by digest",
        "Manifest head by tag",
        "Referrers",
        "Ping",
        "Read Only Inputs",
    }, done.stdout
