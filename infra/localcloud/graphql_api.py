"""`POST /graphql`: the answer's shape as Apollo gives it. The schema is loaded with the first request."""

import json
import re
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from localcloud.cloud import Cloud
from localcloud.operations import KEY_OWNER

NO_QUERY = "POST body missing, invalid Content-Type, or JSON object has no keys."


def graphql_routes(cloud: Cloud) -> APIRouter:
    """One route."""
    routes = APIRouter(include_in_schema=False)

    @routes.post("/graphql")
    async def ask(request: Request) -> Response:
        from localcloud import graphql_schema as graphql  # noqa: PLC0415 - slow to load: most clouds never need it

        body = _object(await request.body())
        query, given = body.get("query"), body.get("variables")
        variables = {} if given is None else given
        if not isinstance(query, str) or not isinstance(variables, dict):
            return _errors(400, [{"message": NO_QUERY, "extensions": {"code": "BAD_REQUEST"}}])
        name = body.get("operationName")
        asked = graphql.Asked(query, variables, name if isinstance(name, str) else None, request.scope.get(KEY_OWNER))
        try:
            result = graphql.run(cloud, asked)
        except graphql.Refused as refused:
            return _errors(400, [_in_double_quotes(_formatted(error, refused.code)) for error in refused.errors])
        if result.errors:
            errors = [_formatted(error, "RUNPOD") for error in result.errors]
            return JSONResponse({"errors": errors, "data": result.data})
        return JSONResponse({"data": result.data})

    return routes


def _object(body: bytes) -> dict[str, Any]:
    try:
        parsed = json.loads(body or b"null")
    except ValueError:
        return {}
    return parsed if isinstance(parsed, dict) else {}


def _formatted(error: Any, code: str) -> dict[str, Any]:
    """An error of ours brings its own code."""
    formatted: dict[str, Any] = dict(error.formatted)
    return {**formatted, "extensions": {"code": code, **(error.extensions or {})}}


def _in_double_quotes(formatted: dict[str, Any]) -> dict[str, Any]:
    """Apollo quotes names so."""
    return {**formatted, "message": re.sub(r"'([^'\s]*)'", r'"\1"', formatted["message"])}


def _errors(status: int, errors: list[dict[str, Any]]) -> Response:
    return JSONResponse({"errors": errors}, status)
