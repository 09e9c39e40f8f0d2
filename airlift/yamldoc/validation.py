"""Turns a document into a pydantic model, or into one error that names every problem and its place."""

from __future__ import annotations

import contextlib
import difflib
import json
from collections.abc import Iterator, Sequence
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from airlift.errors import AirliftError
from airlift.yamldoc.document import Document, Problem, Where, refusal

M = TypeVar("M", bound=BaseModel)

_SHOWN: Final = 80
_EXPECTED: Final = {
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "dict_type": "a mapping",
    "list_type": "a list",
    "tuple_type": "a list",
    "string_type": "text",
    "bool_type": "true or false",
    "int_type": "a whole number",
    "literal_error": "{expected}",
    "enum": "{expected}",
    "string_pattern_mismatch": "text like {pattern}",
    "string_too_short": "at least {min_length} character(s)",
    "string_too_long": "at most {max_length} character(s)",
    "too_short": "at least {min_length} item(s)",
    "too_long": "at most {max_length} item(s)",
    "greater_than_equal": "at least {ge}",
    "less_than_equal": "at most {le}",
}


@contextlib.contextmanager
def refusals() -> Iterator[None]:
    """Inside a pydantic validator: let `AirliftError` become a problem that `validate` places.

    pydantic collects only `ValueError`; anything else would end the validation at the first.
    """
    try:
        yield
    except AirliftError as error:
        raise PydanticCustomError("airlift", "{text}", {"text": error.message, "hint": error.hint or ""}) from None


def validate(model: type[M], document: Document) -> M:
    """Return the document as an instance of `model`.

    JSON's rules hold: a list is fine for a tuple, text for a path or an enumeration, and nothing else is converted.

    Raises:
        ManifestError: it is not one. The message has a line for every problem.
    """
    try:
        return model.model_validate_json(json.dumps(document.value), by_alias=True, by_name=False)
    except ValidationError as error:
        details = error.errors(include_url=False)
    schema = model.model_json_schema()
    problems: dict[Where, list[Problem]] = {}
    for detail in details:
        problem = _problem(detail, document.value, schema)
        problems.setdefault(problem.where, []).append(problem)
    raise refusal(document, list(_merged(problems)))


def _merged(problems: dict[Where, list[Problem]]) -> Iterator[Problem]:
    """One problem per place; where an alternative failed deeper inside, only that is worth saying."""
    for where, found in problems.items():
        alternatives = [item.message for item in found if item.message.startswith("expected ")]
        inside = any(len(other) > len(where) and other[: len(where)] == where for other in problems)
        if inside and len(alternatives) == len(found):
            continue
        if len(alternatives) == len(found) > 1:
            wanted = dict.fromkeys(text.removeprefix("expected ").rpartition(", got ")[0] for text in alternatives)
            got = alternatives[0].rpartition(", got ")[2]
            yield Problem(where, f"expected {' or '.join(wanted)}, got {got}", found[0].hint)
        else:
            yield from found


def _problem(detail: ErrorDetails, value: Any, schema: dict[str, Any]) -> Problem:
    kind, context = detail["type"], detail.get("ctx", {})
    where = _place(detail["loc"], value, keep_last=kind == "missing")
    if kind == "missing":
        return Problem(where, "required key is missing")
    if kind == "extra_forbidden":
        return Problem(where, "unknown key", _known(schema, where))
    if kind == "airlift":
        return Problem(where, context["text"], context["hint"] or None)
    if kind == "value_error":
        return Problem(where, str(context["error"]))
    got = _got(detail["input"])
    wanted = _wanted(detail, _node(schema, schema, where))
    unquoted = kind == "string_type" and isinstance(detail["input"], int)
    return Problem(where, f"{wanted}, got {got}", f'quote it: "{got}"' if unquoted else None)


def _wanted(detail: ErrorDetails, node: dict[str, Any]) -> str:
    kind = detail["type"]
    if kind == "string_pattern_mismatch" and "examples" in node:
        return f"expected text such as {' or '.join(node['examples'])}"
    if kind in _EXPECTED:
        return "expected " + _EXPECTED[kind].format(**detail.get("ctx", {}))
    message = detail["msg"]
    return f"{message[:1].lower()}{message[1:].rstrip('.')}"


def _known(schema: dict[str, Any], where: Where) -> str | None:
    """What may have been meant by an unknown key."""
    known = sorted(_node(schema, schema, where[:-1]).get("properties", ()))
    close = difflib.get_close_matches(str(where[-1]), known, n=1)
    if close:
        return f"did you mean `{close[0]}`?"
    return f"known keys: {', '.join(known)}" if known else None


def _place(loc: Sequence[str | int], value: Any, *, keep_last: bool) -> Where:
    """Pydantic's location without the names of alternatives, which are no part of the document."""
    path: list[str | int] = []
    for number, step in enumerate(loc):
        if isinstance(value, dict) and step in value:
            value = value[str(step)]
        elif isinstance(value, list) and isinstance(step, int) and step < len(value):
            value = value[step]
        elif not (keep_last and number == len(loc) - 1):
            continue
        path.append(step)
    return tuple(path)


def _got(value: object) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "an empty list" if not value else "a list"
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value) if len(repr(value)) <= _SHOWN else f"{repr(value)[:_SHOWN]}..."


def _node(schema: dict[str, Any], node: dict[str, Any], path: Where) -> dict[str, Any]:
    """The part of a model's JSON Schema that describes a place; empty where there is none."""
    if "$ref" in node:
        return _node(schema, schema["$defs"][node["$ref"].rpartition("/")[2]], path)
    for branch in node.get("anyOf", ()):
        if found := _node(schema, branch, path):
            return found
    if not path:
        return {} if node.get("type") == "null" else node
    inner = node.get("items") if isinstance(path[0], int) else node.get("properties", {}).get(path[0])
    return _node(schema, inner, path[1:]) if isinstance(inner, dict) else {}
