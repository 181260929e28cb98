"""Checks documents against JSON schemas."""

from typing import Any

from jsonschema_rs import Draft202012Validator, meta


def validator(schema: Any) -> Draft202012Validator:
    """The validator of a schema."""
    return Draft202012Validator(schema)


def check(schema: Any) -> None:
    """Fail where this is no schema."""
    meta.validate(schema)


def errors(document: Any, schema: Any) -> list[str]:
    """What is wrong with a document, with the place."""
    return [
        f"{'/'.join(map(str, error.instance_path))}: {error.message}" for error in validator(schema).iter_errors(document)
    ]
