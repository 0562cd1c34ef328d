"""The application of the RunPod port: REST v2, what is left of GraphQL, control routes; errors as RFC 9457 has them.

Key, rate limit and faults are `door`'s. The routes are in `pod_api`, `account_api`, `catalog_api`, `billing_api`,
`graphql_api` and `control_api`; their JSON is the `*_wire`s'. `spec/runpod-v2.yaml` describes REST v2 and is served.
"""

from collections.abc import Callable, Iterable

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.routing import Match
from starlette.types import ASGIApp, Scope

from localcloud.account_api import account_routes
from localcloud.answers import problem_response, validation_problem
from localcloud.billing_api import billing_routes
from localcloud.catalog_api import catalog_routes
from localcloud.cloud import Cloud
from localcloud.control_api import control_routes
from localcloud.door import Door
from localcloud.errors import Problem
from localcloud.graphql_api import graphql_routes
from localcloud.pod_api import pod_routes
from localcloud.spec_api import spec_routes

NO_JSON = "the request body is not valid JSON"


def create_app(cloud: Cloud, api_key: str, hang_up: Callable[[Scope], None]) -> ASGIApp:
    """The whole application of the RunPod port."""
    return Door(_behind_the_door(cloud), cloud, api_key, hang_up)


def routers_of(cloud: Cloud) -> tuple[APIRouter, ...]:
    """All routes, by what they are about."""
    return (
        spec_routes(),
        pod_routes(cloud),
        *account_routes(cloud),
        catalog_routes(cloud),
        billing_routes(cloud),
        graphql_routes(cloud),
        control_routes(cloud),
    )


def _behind_the_door(cloud: Cloud) -> FastAPI:
    app = FastAPI(title="localcloud", docs_url=None, redoc_url=None, openapi_url=None)
    routers = routers_of(cloud)
    for router in routers:
        app.include_router(router)

    async def on_http_error(request: Request, error: Exception) -> Response:
        if not isinstance(error, HTTPException):
            raise error
        texts = cloud.facts.texts
        if error.status_code == 405:
            allowed = ", ".join(_methods(routers, request.scope))
            return problem_response(Problem(405, texts.method_not_allowed, headers={"Allow": allowed}))
        texts_of = {400: NO_JSON, 404: texts.not_found}  # 400: the body is not even text
        detail = texts_of.get(error.status_code, str(error.detail))
        return problem_response(Problem(error.status_code, detail))

    app.add_exception_handler(Problem, _on_problem)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, on_http_error)
    return app


def _methods(routers: Iterable[APIRouter], scope: Scope) -> list[str]:
    """All methods that the path has: each of its routes knows its own alone."""
    routes = [route for router in routers for route in router.routes]
    fits = [route for route in routes if route.matches({**scope, "method": "NONE"})[0] is not Match.NONE]
    return sorted({method for route in fits for method in getattr(route, "methods", None) or ()})


async def _on_problem(_: Request, error: Exception) -> Response:
    if not isinstance(error, Problem):
        raise error
    return problem_response(error)


async def _on_invalid(_: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        raise error
    found = error.errors()
    if any(each["type"] == "json_invalid" for each in found):
        return problem_response(Problem(400, NO_JSON))
    return problem_response(validation_problem(found))
