from __future__ import annotations

import pytest

from airlift import errors
from airlift.cli import exit as exits
from airlift.errors import AirliftError


def classes(base: type[AirliftError]) -> list[type[AirliftError]]:
    return [base, *(item for child in base.__subclasses__() for item in classes(child))]


@pytest.mark.parametrize("kind", [item for item in classes(AirliftError) if item.__module__ == errors.__name__])
def test_every_class_of_error_has_a_documented_code(kind: type[AirliftError]) -> None:
    code = exits.code_of(kind.__new__(kind))
    assert (code == exits.FAILURE) == (kind is AirliftError)


def test_a_subclass_takes_the_code_of_its_nearest_base() -> None:
    assert exits.code_of(errors.UnsupportedVersionError("x")) == 10
    assert exits.code_of(errors.PartialDeliveryError("x")) == 3
    assert exits.code_of(errors.DeliveryError("x")) == 17
