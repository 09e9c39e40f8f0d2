from __future__ import annotations

import pytest

from airlift.cli import console
from airlift.errors import AirliftError


@pytest.mark.parametrize(
    ("amount", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 KB"), (90_900_000, "90.9 MB"), (3e15, "3000.0 TB")]
)
def test_sizes_are_powers_of_a_thousand(amount: float, text: str) -> None:
    assert console.size(amount) == text


def test_an_error_and_its_hint_go_to_stderr_under_the_programs_name(capsys: pytest.CaptureFixture[str]) -> None:
    console.fail(AirliftError("first\nsecond", hint="do this"))
    out = capsys.readouterr()
    assert out.out == ""
    assert out.err == "airlift: error: first\nairlift: second\nairlift: hint: do this\n"


def test_what_would_steer_the_terminal_is_not_passed_on(capsys: pytest.CaptureFixture[str]) -> None:
    console.say("a\x1b[2Jb\u202ec\td é")
    assert capsys.readouterr().err == "airlift: a?[2Jb?c\td é\n"
