"""Error answers in the shapes of the three APIs, and the page of what stands before them. Used by door and routes."""

import json
import secrets
from typing import Any

from starlette.responses import Response

from localcloud.errors import Problem, title
from localcloud.faults import Fault
from localcloud.operations import V1, Operation


def refusal(what: Operation, problem: Problem) -> Response:
    """An error in the words of the API that was asked."""
    if what.is_graphql:
        return graphql_response(problem)
    return v1_response(problem) if what.op == V1 else problem_response(problem)


def problem_response(problem: Problem) -> Response:
    """application/problem+json."""
    content = json.dumps(problem.body())
    return Response(content, problem.status, headers=dict(problem.headers), media_type="application/problem+json")


def graphql_response(problem: Problem) -> Response:
    """What GraphQL says before it looks at a document."""
    code = "UNAUTHENTICATED" if problem.status == 401 else "RUNPOD"
    content = json.dumps({"errors": [{"message": problem.detail, "extensions": {"code": code}}]})
    return Response(content, problem.status, headers=dict(problem.headers), media_type="application/json")


def v1_response(problem: Problem) -> Response:
    """An error as REST v1 had it."""
    content = json.dumps({"error": problem.detail, "status": problem.status})
    return Response(content, problem.status, media_type="application/json")


def html_response(fault: Fault) -> Response:
    """What stands before the service answers by itself: a page, no JSON."""
    code = fault.detail or str(fault.status)
    page = f"""<!DOCTYPE html>
<html lang="en-US"><head><title>api.runpod.io | {code}: {title(fault.status)}</title></head>
<body><h1>Error {code}</h1><p>Ray ID: {secrets.token_hex(8)}</p><p>Performance &amp; security by Cloudflare</p>
</body></html>
"""
    headers = {"Server": "cloudflare", **fault.headers}
    return Response(page, fault.status, headers=headers, media_type="text/html; charset=UTF-8")


def validation_problem(errors: Any) -> Problem:
    """422 that names each field that is missing, unknown or wrong."""
    lines = []
    for error in errors:
        where = ".".join(str(part) for part in error["loc"] if part not in ("body", "query"))
        text = (
            "additional property is not allowed"
            if error["type"] == "extra_forbidden"
            else error["msg"].removeprefix("Value error, ")
        )
        lines.append(f"{where}: {text}" if where else text)
    return Problem(422, f"request does not match the schema: {'; '.join(lines)}", errors=lines)
