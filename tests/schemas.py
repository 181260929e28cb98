"""Checks documents against JSON schemas.

The library takes a second of a processor to be imported: it is by the processes that use it, and not by each that collects.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jsonschema import Draft202012Validator


def validator(schema: Any) -> Draft202012Validator:
    """The validator of a schema."""
    from jsonschema import Draft202012Validator

    return Draft202012Validator(schema)


def check(schema: Any) -> None:
    """Fail where this is no schema."""
    validator(schema).check_schema(schema)


def errors(document: Any, schema: Any) -> list[str]:
    """What is wrong with a document, with the place."""
    return [f"{error.json_path}: {error.message}" for error in validator(schema).iter_errors(document)]
