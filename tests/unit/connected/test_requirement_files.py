from __future__ import annotations

from pathlib import Path

import pytest

from airlift.connected.requirement_files import Line, Requirements, read
from airlift.errors import ManifestError

HEX = "a" * 64


def given(base: Path, **files: str) -> Requirements:
    for name, text in files.items():
        path = base / name.replace("__", "/")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return read([next(iter(files)).replace("__", "/")], [], base=base, set_name="web")


def test_requirements_with_all_their_parts_are_taken(tmp_path: Path) -> None:
    found = given(
        tmp_path,
        main=(
            "# a comment\n\n"
            "numpy>=2  # trailing\n"
            "uvicorn [standard] == 0.54.0 ; python_version < '3.13'\n"
            f"rich==1 \\\n    --hash=sha256:{HEX} \\\n    --hash sha256:{'b' * 64}\n"
            "--pre\n--only-binary :all:\n--prefer-binary\n"
        ),
    )
    assert found.lines == [
        Line("numpy>=2", "main:3"),
        Line('uvicorn[standard]==0.54.0; python_version < "3.13"', "main:4"),
        Line("rich==1", "main:5", hashes=(f"sha256:{HEX}", f"sha256:{'b' * 64}")),
    ]
    assert found.pre
    assert not found.require_hashes


def test_nested_files_are_relative_to_the_file_that_names_them(tmp_path: Path) -> None:
    found = given(
        tmp_path,
        main="-r sub/more.in\n-csub/limits\n--requirement=sub/more.in\n--require-hashes\n",
        **{"sub__more.in": "flask\n-c limits\n", "sub__limits": "flask<9\n"},
    )
    assert [(line.text, line.place, line.constraint) for line in found.lines] == [
        ("flask", "sub/more.in:1", False),
        ("flask<9", "sub/limits:1", True),
        ("flask<9", "sub/limits:1", True),
        ("flask", "sub/more.in:1", False),
        ("flask<9", "sub/limits:1", True),
    ]
    assert [path.name for path in found.files] == ["main", "more.in", "limits"]
    assert found.require_hashes


def test_packages_of_the_manifest_are_taken(tmp_path: Path) -> None:
    assert read([], ["numpy>=2", "rich"], base=tmp_path, set_name="web").lines == [
        Line("numpy>=2", "web.packages[0]"),
        Line("rich", "web.packages[1]"),
    ]


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("-i https://user:secret@x/simple", "main:1: -i is not taken from a requirements file", "come from pip's configuration"),
        ("--index-url https://x/simple", "main:1: --index-url is not taken from a requirements file", "pip's config"),
        ("\n--extra-index-url=https://x", "main:2: --extra-index-url is not taken", "come from pip's configuration"),
        ("-f wheels", "main:1: -f is not taken", "come from pip's configuration"),
        ("--find-links=wheels", "main:1: --find-links is not taken", "come from pip's configuration"),
        ("--no-index", "main:1: --no-index is not taken", "come from pip's configuration"),
        ("-e .", "main:1: an editable requirement cannot be carried", "build a wheel"),
        ("--no-binary :all:", "main:1: the option --no-binary :all: is not supported", None),
        ("acme @ https://x/acme-1-py3-none-any.whl", "main:1: acme is asked for by address, which is not supported",
         "put the distribution into an index"),
        ("https://x/acme-1.tar.gz", "main:1: 'https://x/acme-1.tar.gz' is not a requirement", "put the distribution"),
        ("./acme", "main:1: './acme' is not a requirement", "put the distribution into an index"),
        ("acme=1", "main:1: 'acme=1' is not a requirement", None),
        ("acme --hash=md5:1", "main:1: '--hash=md5:1' is not --hash=sha256:<64 hex digits>", None),
        (f"acme --hash=sha512:{HEX}", "only sha256 is compared", None),
        ("acme --config-settings=x", "main:1: the option --config-settings is not supported", None),
        ("acme --hash='", "main:1: the line cannot be split", None),
        ("-r https://x/r.txt?token=1", "main:1: --requirement https://x/r.txt: a file from the network", "put a copy"),
        ("-r", "main:1: --requirement needs a file", None),
        ("-r main", "main: the file includes itself", None),
        ("-r gone", "gone: the requirements file does not exist", "paths are relative to the manifest"),
        ("", "python: the set 'web' asks for nothing", None),
        ("# only this", "python: the set 'web' asks for nothing", None),
    ],
)  # fmt: skip
def test_what_is_not_taken_is_refused_with_its_place(tmp_path: Path, text: str, message: str, hint: str | None) -> None:
    with pytest.raises(ManifestError) as caught:
        given(tmp_path, main=text)
    assert message in caught.value.message
    assert "secret" not in str(caught.value)
    assert "token" not in str(caught.value)
    if hint is None:
        assert caught.value.hint is None
    else:
        assert hint in (caught.value.hint or "")


def test_files_that_name_each_other_twice_are_not_read_for_ever(tmp_path: Path) -> None:
    files = {f"f{number}": f"-r f{number + 1}\n" * 2 for number in range(40)} | {"f40": "numpy\n"}
    with pytest.raises(ManifestError, match="more than 1000 requirements files"):
        given(tmp_path, **files)


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "main").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ManifestError, match="main: the requirements file is not UTF-8"):
        read(["main"], [], base=tmp_path, set_name="web")
