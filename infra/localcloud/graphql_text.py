"""A first look at a GraphQL request: which field it asks for, about which pod. Used by `operations`; no schema here.

PURE. The parser is loaded with the first GraphQL request: most clouds never see one.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from graphql.language import FieldNode


@dataclass(frozen=True, slots=True)
class FirstField:
    """The first field of the operation, and the pod id in its input."""

    name: str
    pod_id: str | None


def first_field(body: bytes) -> FirstField | None:
    """None when the request cannot be read: what is wrong with it is the answer's business."""
    from graphql import GraphQLError, parse  # noqa: PLC0415 - see the module's docstring
    from graphql.language import FieldNode, OperationDefinitionNode  # noqa: PLC0415

    try:
        request = json.loads(body)
        document = parse(request["query"], no_location=True)
    except (ValueError, KeyError, TypeError, RecursionError, GraphQLError):
        return None
    named = request.get("operationName")
    for node in document.definitions:
        if not isinstance(node, OperationDefinitionNode) or (named and (node.name is None or node.name.value != named)):
            continue
        fields = [choice for choice in node.selection_set.selections if isinstance(choice, FieldNode)]
        return FirstField(fields[0].name.value, _pod_id(fields[0], request.get("variables"))) if fields else None
    return None


def _pod_id(field: "FieldNode", variables: object) -> str | None:
    from graphql import value_from_ast_untyped  # noqa: PLC0415

    given: Mapping[str, Any] = variables if isinstance(variables, Mapping) else {}
    for argument in field.arguments or ():
        value = value_from_ast_untyped(argument.value, dict(given))
        if argument.name.value == "input" and isinstance(value, Mapping):
            pod_id = value.get("podId")
            return pod_id if isinstance(pod_id, str) else None
    return None
