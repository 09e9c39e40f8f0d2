"""A file that was named on the command line and is not there: one code, one sentence and a hint, whatever the verb."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from airlift.cli import options
from airlift.cli.main import VERBS, group, run
from airlift.trust.keys import write_key
from airlift.trust.roots import dump_trust
from tests.support.bundles import ANN, trust

# What each command needs beside the file that is missing; the files of this list are there.
COMMANDS: dict[tuple[str, ...], str] = {
    ("resolve",): "MANIFEST",
    ("build",): "LOCK -o new --sequence 1 --signer=KEY --recipient=PUB --previous=LOCK --passphrase-file=TEXT",
    ("push",): "BUNDLE oci://127.0.0.1:1/a:1",
    ("inspect",): "BUNDLE --identity=KEY --passphrase-file=TEXT",
    ("verify",): "BUNDLE --trust=TRUST",
    ("open",): "BUNDLE --trust=TRUST --identity=KEY --passphrase-file=TEXT -o new",
    ("keys", "generate"): "ann --kind signer --passphrase-file=TEXT",
    ("trust", "init"): "-o new --channel stable --signer=ann=PUB",
    ("kit", "make"): "-o new --signer=KEY --passphrase-file=TEXT --trust=TRUST --ca=TEXT --lock=LOCK",
    (
        "site",
        "init",
    ): "new --url http://127.0.0.1 --registry http://127.0.0.1 --trust=TRUST --identity=KEY --tls-cert=TEXT"
    " --tls-key=TEXT --registry-ca=TEXT --registry-password-file=TEXT --passphrase-file=TEXT",
    ("site", "robot"): "--site site --admin root --admin-password-file=TEXT",
    ("site", "trust"): "--site site --trust=TRUST --fingerprint 00",
    ("preflight",): "BUNDLE --site site --passphrase-file=TEXT",
    ("import",): "BUNDLE --site site --passphrase-file=TEXT",
    ("serve",): "--site site --tls-cert=TEXT --tls-key=TEXT",
    ("drops", "prune"): "--site site --execute=TEXT",
    ("check",): "--site site --repair BUNDLE --passphrase-file=TEXT",
    ("deploy", "k3s"): "--site site --token-file=TEXT --kubeconfig=TEXT",
    ("deploy", "rollback"): "--site site --root root --kubeconfig=TEXT",
    ("deploy", "status"): "--site site --kubeconfig=TEXT",
    ("deploy", "diff"): "--site site --kubeconfig=TEXT",
}
FILES = ("MANIFEST", "LOCK", "BUNDLE", "KEY", "PUB", "TRUST", "TEXT")


def cases() -> Iterator[tuple[tuple[str, ...], str]]:
    for verb, words in COMMANDS.items():
        yield from ((verb, word) for word in words.split() if word.rpartition("=")[2] in FILES)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """All files but the missing ones, and no site: what is on the command line is looked at first."""
    monkeypatch.chdir(tmp_path)
    write_key(tmp_path, "ann", ANN, passphrase=None)
    for name in FILES:
        (tmp_path / name).write_text("text\n")
    (tmp_path / "PUB").write_bytes((tmp_path / "ann.pub").read_bytes())
    (tmp_path / "TRUST").write_bytes(dump_trust(trust()))
    return tmp_path


@pytest.mark.parametrize(("verb", "missing"), list(cases()), ids=lambda item: "-".join(item) if item else "")
def test_a_missing_file_is_said_in_one_sentence_with_code_2_and_nothing_is_written(
    home: Path, capsys: pytest.CaptureFixture[str], verb: tuple[str, ...], missing: str
) -> None:
    option, equals, _ = missing.rpartition("=")
    name = option.partition("=")[0] if equals else missing
    before = sorted(path.name for path in home.iterdir())
    for path, hint in (
        ("gone", f"see what is in {home}"),
        ("ssd/gone", f"there is no directory {home}/ssd either; is the medium mounted?"),
    ):
        wrong = f"{option}{equals}{path}"
        words = [wrong if word == missing else word for word in COMMANDS[verb].split()]
        assert run([*verb, *words]) == 2
        said = capsys.readouterr()
        assert (said.out, said.err.splitlines()) == (
            "",
            [f"airlift: error: {name} {path}: no such file", f"airlift: hint: {hint}"],
        )
    assert sorted(path.name for path in home.iterdir()) == before


def test_a_directory_where_a_file_is_expected_is_said(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "folder").mkdir()
    assert run(["verify", "folder", "--trust", "TRUST"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "airlift: error: BUNDLE folder: a directory, expected a file",
        "airlift: hint: choose one of those in folder",
    ]


def leaves(command: click.Command, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    if isinstance(command, click.Group):
        for name, child in command.commands.items():
            yield from leaves(child, (*path, name))
    else:
        yield path, command


def test_every_file_that_a_verb_reads_stands_in_the_list_above() -> None:
    context = click.Context(group)
    for verb in VERBS:
        command = group.get_command(context, verb)
        assert command is not None
        for path, leaf in leaves(command, (verb,)):
            given = COMMANDS.get(path, "").split()
            for param in leaf.params:
                if param.type is options.EXISTING and isinstance(param, click.Option):
                    (name,) = [option for option in param.opts if option.startswith("--")]
                    assert any(word.startswith(f"{name}=") for word in given), (path, name)
                elif param.type is options.EXISTING:
                    assert str(param.name).upper() in given, (path, param.name)
                elif isinstance(param.type, click.Path) and param.type.file_okay:
                    # What is written, or a directory.
                    assert param.name in ("output", "target", "directory"), (path, param.name)
