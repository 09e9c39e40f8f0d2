from __future__ import annotations

import gzip
import json
import tarfile

import pytest

from airlift import canonical, digest, limits, oci
from airlift.errors import IntegrityError
from airlift.kinds import chart_archive, charts
from airlift.kinds.chart_metadata import Dependency, parse_metadata
from tests.support.charts import archive, chart


def _refused(data: bytes, *, subject: str = "x") -> str:
    with pytest.raises(IntegrityError) as caught:
        charts.read_archive(data, subject=subject)
    return str(caught.value)


def test_a_chart_says_its_name_version_and_what_is_in_it() -> None:
    inner = chart("redis", "2.0.0+b1", more="annotations: {licenses: Apache-2.0}\n")
    data = chart(
        "app",
        "1.10.0",
        {
            "charts/redis-2.0.0+b1.tgz": inner,
            "charts/common/Chart.yaml": "apiVersion: v2\nname: common\nversion: 0.1.0\ntype: library\n",
            "charts/_skipped/Chart.yaml": "nonsense",
        },
        more="kubeVersion: '>=1.25-0'\ndependencies:\n  - {name: redis, version: ^2, repository: 'https://r.example.com'}\n",
    )
    found = charts.read_archive(data, subject="app")
    assert (found.name, found.version, found.kube_version) == ("app", "1.10.0", ">=1.25-0")
    assert [(item.name, item.version, item.is_library) for item in found.everything()] == [
        ("app", "1.10.0", False),
        ("common", "0.1.0", True),
        ("redis", "2.0.0+b1", False),
    ]
    assert found.dependencies == (Dependency("redis", "^2", "https://r.example.com"),)
    assert found.missing == ()
    assert found.subcharts[1].licence == "Apache-2.0"
    assert found.file_name == "app-1.10.0.tgz"


def test_a_dependency_that_is_not_inside_is_missing_also_when_requirements_yaml_asks_for_it() -> None:
    old = {"requirements.yaml": "dependencies: [{name: redis, version: '*', repository: ''}]"}
    data = archive({"Chart.yaml": "apiVersion: v1\nname: app\nversion: 1.0.0\n", **old})
    assert [item.name for item in charts.read_archive(data, subject="app").missing] == ["redis"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("app/../../etc/passwd", "names below the chart's directory"),
        ("/app/x", "names below the chart's directory"),
        ("app\\x\\y", "names below the chart's directory"),
        ("C:/app/x", "names below the chart's directory"),
        ("app/a\nb", "names below the chart's directory"),
        ("Chart.yaml", "names below the chart's directory"),
        ("other/x", "one directory, app/"),
        ("app/chart.YAML", "distinct names on every disk"),
        ("app/Chart.yaml/x", "distinct names on every disk"),
        ("app/Chart.yaml", "every name once"),
    ],
)
def test_a_name_that_is_unsafe_or_ambiguous_is_refused(name: str, said: str) -> None:
    message = _refused(chart("app"), subject="x") if name == "" else _refused_with(name)
    assert said in message


def _refused_with(name: str) -> str:
    return _refused(
        archive({"Chart.yaml": "apiVersion: v2\nname: app\nversion: 1.0.0\n"}, extra=[tarfile.TarInfo(name)])
    )


def test_two_spellings_of_one_accented_name_are_refused() -> None:
    files = {"Chart.yaml": "x", "files/caf\u00e9": b"", "files/cafe\u0301": b""}
    assert "distinct names on every disk" in _refused(archive(files))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_refused(kind: bytes) -> None:
    info = tarfile.TarInfo("app/link")
    info.type = kind
    info.linkname = "/etc/passwd"
    data = archive({"Chart.yaml": "apiVersion: v2\nname: app\nversion: 1.0.0\n"}, extra=[info])
    assert "a link or device, 'app/link'" in _refused(data)


def test_a_decompression_bomb_is_stopped_while_it_unpacks(monkeypatch: pytest.MonkeyPatch) -> None:
    budget = chart_archive.Budget(unpacked=4 * limits.MIB)
    with pytest.raises(IntegrityError, match="bytes unpacked, got more"):
        charts.read_archive(archive({"Chart.yaml": bytes(64 * limits.MIB)}), subject="x", budget=budget)


def test_bombs_inside_one_another_share_one_budget() -> None:
    data = chart("leaf", files={"files/zero": bytes(limits.MIB)})
    for number in range(3):
        data = chart(f"level{number}", files={f"charts/{letter}.tgz": data for letter in "abcd"})
    with pytest.raises(IntegrityError, match="bytes unpacked, got more"):
        charts.read_archive(data, subject="x", budget=chart_archive.Budget(unpacked=16 * limits.MIB))


def test_charts_inside_charts_are_read_to_a_depth_and_no_further() -> None:
    data = chart("leaf")
    for number in range(20):
        data = chart(f"level{number}", files={"charts/a.tgz": data})
    assert "16 deep at most" in _refused(data)


def test_too_many_members_are_refused() -> None:
    with pytest.raises(IntegrityError, match="members, got more"):
        charts.read_archive(
            chart(files={f"files/{n}": b"" for n in range(20)}), subject="x", budget=chart_archive.Budget(members=10)
        )


def test_a_pax_header_of_any_size_is_not_read_into_memory() -> None:
    info = tarfile.TarInfo("app/pax")
    info.type = tarfile.XHDTYPE
    info.size = 2 * limits.MIB
    assert "members of at most 1048576 bytes" in _refused(archive({"Chart.yaml": "x"}, extra=[info]))


def test_a_large_chart_yaml_is_refused() -> None:
    text = "apiVersion: v2\nname: app\nversion: 1.0.0\ndescription: " + "a" * limits.MIB
    assert "Chart.yaml: expected at most 1048576 bytes" in _refused(archive({"Chart.yaml": text}))


def test_an_alias_bomb_in_chart_yaml_is_refused() -> None:
    lines = ["a0: &a0 [x,x,x,x,x,x,x,x,x]"] + [f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)]
    assert "expected YAML without aliases, got *a0" in _refused(archive({"Chart.yaml": "\n".join(lines)}))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "a whole gzip stream"),
        (b"<html>not found</html>", "a gzip'd tar"),
        (gzip.compress(b"x" * 2000), "a tar archive"),
        (gzip.compress(bytes(1024)), "an empty archive"),
        (chart()[:-20], "a whole gzip stream"),
        (archive({"values.yaml": "a: 1"}), "no Chart.yaml in it"),
        (archive({"Chart.yaml": "apiVersion: v2\nname: a/b\nversion: 1.0.0\n"}), "name: expected letters"),
        (archive({"Chart.yaml": "apiVersion: v2\nname: app\nversion: one\n"}), "version: expected a semantic version"),
        (archive({"Chart.yaml": "name: app\nversion: 1.0.0\n"}), "apiVersion: expected one of v1, v2, v3, got None"),
        (archive({"Chart.yaml": "[1, 2]"}), "expected a mapping"),
        (archive({"Chart.yaml": "a: [" * 5000}), "expected YAML"),
        (archive({"Chart.yaml": b"\xff\xfe\x00"}), "expected YAML"),
        (archive({"Chart.yaml": "a: !!python/object/apply:os.system [id]"}), "could not determine a constructor"),
    ],
)
def test_what_is_no_chart_is_refused_with_the_reason(data: bytes, said: str) -> None:
    assert said in _refused(data)


def test_a_cut_tar_in_a_whole_gzip_is_refused() -> None:
    whole = gzip.decompress(chart())
    assert "a whole tar archive" in _refused(gzip.compress(whole[:700]))


def test_long_and_foreign_names_are_read_as_any_tar_writes_them() -> None:
    long = "files/" + "d" * 120 + "/" + "é" * 40
    data = chart(files={long: b"x"})
    _, files = chart_archive.read(data, subject="x", budget=chart_archive.Budget())
    assert files[long] == b"x"


def test_versions_and_annotations_that_yaml_takes_for_numbers_become_the_text_that_helm_reads() -> None:
    found = parse_metadata(
        {
            "apiVersion": "v2",
            "name": "app",
            "version": "1.0.0",
            "appVersion": 1.10,
            "annotations": {"a": True, "b": 2.0},
        },
        subject="x",
    )
    assert found.metadata["appVersion"] == "1.1"
    assert found.metadata["annotations"] == {"a": "true", "b": "2"}


def test_a_date_stays_the_text_that_it_was() -> None:
    data = archive({"Chart.yaml": "apiVersion: v2\nname: app\nversion: 1.0.0\nappVersion: 2024-01-31\n"})
    assert charts.read_archive(data, subject="x").metadata["appVersion"] == "2024-01-31"


def test_the_oci_manifest_of_a_chart_is_the_same_every_time_and_has_helms_types() -> None:
    data = chart("App", "1.0.0+b1")
    found = charts.read_archive(data, subject="x")
    layer = oci.describe(data, charts.CHART_LAYER)
    manifest = charts.wrap(found, layer, None)
    assert manifest == charts.wrap(charts.read_archive(data, subject="x"), layer, None)
    parsed = oci.parse_manifest(manifest, subject="x")
    assert charts.layers_of(parsed, subject="x") == (layer, None)
    assert parsed.config is not None
    assert parsed.config.digest == digest.of(charts.config_blob(found))
    assert canonical.decode(charts.config_blob(found), limit=1000, subject="x")["name"] == "App"
    assert charts.artifact_name(found) == "charts/app:1.0.0_b1"


def test_layers_are_found_by_type_whatever_their_order() -> None:
    signed = oci.describe(b"signed", charts.PROVENANCE_LAYER)
    layer = oci.describe(b"archive", charts.CHART_LAYER)
    config = oci.describe(b"{}", "application/vnd.cncf.helm.config.v1+json")
    document = {
        "schemaVersion": 2,
        "config": config.to_json(),
        "layers": [signed.to_json(), layer.to_json()],
    }
    manifest = oci.parse_manifest(json.dumps(document).encode(), subject="x")
    assert charts.layers_of(manifest, subject="x") == (layer, signed)


def test_an_image_is_no_chart() -> None:
    document = {"schemaVersion": 2, "config": oci.describe(b"{}", oci.CONFIG).to_json(), "layers": []}
    with pytest.raises(IntegrityError, match="expected a Helm chart"):
        charts.layers_of(oci.parse_manifest(json.dumps(document).encode(), subject="x"), subject="x")


def test_a_provenance_file_must_give_the_archives_digest() -> None:
    right = digest.of(b"archive")
    text = "-----BEGIN PGP SIGNED MESSAGE-----\nfiles:\n  app-1.0.0.tgz: sha256:{}\n-----BEGIN PGP SIGNATURE-----\n"
    good = text.format(digest.hex_of(right)).encode()
    assert charts.check_provenance(good, "app-1.0.0.tgz", right, subject="x")
    assert not charts.check_provenance(b"<html>", "app-1.0.0.tgz", right, subject="x")
    with pytest.raises(IntegrityError, match="x, provenance: expected sha256:"):
        charts.check_provenance(text.format("0" * 64).encode(), "app-1.0.0.tgz", right, subject="x")
