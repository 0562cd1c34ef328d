"""Prints `docs/config.md` from the typed config: `python -m podfleet.configdocs`. Checked by a test to be current."""

from __future__ import annotations

from typing import Any, Literal, get_args, get_origin

from pydantic.alias_generators import to_camel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from podfleet.config import NAMESPACE, SECRET_KEYS, PodfleetConfig

HEAD = """# Stack configuration

Every key of `stacks/Pulumi.<stack>.yaml`, namespace `podfleet:`. Made by `make docs`; do not edit.
Numbers, booleans and lists may be written as YAML or, as `pulumi config set` stores them, as text.

A change of a key does to a running pod: **replace** ends it (drained first) and rents another; **update** runs the
bootstrap steps again; **new pods** reaches pods rented from now on; **nothing** leaves pods alone.

| key | type | default | a change does | seeds called it | meaning |
|---|---|---|---|---|---|
"""


def page() -> str:
    """The whole page."""
    rows = [_row(to_camel(name), field) for name, field in PodfleetConfig.model_fields.items()]
    return HEAD + "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _row(key: str, field: FieldInfo) -> tuple[str, ...]:
    extra: dict[str, Any] = dict(field.json_schema_extra) if isinstance(field.json_schema_extra, dict) else {}
    seed = f"`{extra['seed']}`" if extra.get("seed") else ""
    return (
        f"`{NAMESPACE}:{key}`",
        _type(key, field),
        _default(field),
        str(extra["effect"]),
        seed,
        str(field.description),
    )


def _type(key: str, field: FieldInfo) -> str:
    if key in SECRET_KEYS:
        return "secret"
    annotation: Any = field.annotation
    choices = get_args(annotation)
    if get_origin(annotation) is Literal:
        return " or ".join(f"`{choice}`" for choice in choices)
    if get_origin(annotation) is tuple:
        return "list of text"
    if get_origin(annotation) is dict:
        return "object of numbers"
    return {int: "whole number", float: "number", bool: "`true` or `false`", str: "text"}[annotation]


def _default(field: FieldInfo) -> str:
    if field.default in ("", ()) or field.default_factory is not None:
        return "empty"
    if field.default is PydanticUndefined:
        return "required"
    return f"`{str(field.default).lower() if isinstance(field.default, bool) else field.default}`"


if __name__ == "__main__":
    print(page(), end="")
