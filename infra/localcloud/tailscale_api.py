"""Tailscale's API v2 as far as auth keys, the policy and devices go: routes over `tailnet_state`.

Errors are `{"message"}`; the tailnet in a path is ignored, for the credentials own one.
"""

import base64
import binascii
import json
import secrets
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from localcloud.errors import Refusal
from localcloud.events import EventLog
from localcloud.hujson import standardized
from localcloud.tailnet_state import Tailnet

API = "/api/v2"
TOKEN_PATHS = (f"{API}/oauth/token", f"{API}/oauth/token-exchange")


@dataclass(frozen=True, slots=True)
class TailscaleCredentials:
    """What lets a client in."""

    api_key: str = field(repr=False)
    oauth_client_id: str
    oauth_client_secret: str = field(repr=False)


class _Body(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class CreateRights(_Body):
    """`capabilities.devices.create`."""

    reusable: bool = False
    ephemeral: bool = False
    preauthorized: bool = False
    tags: list[str] = []


class DeviceRights(_Body):
    """`capabilities.devices`."""

    create: CreateRights = CreateRights()


class Capabilities(_Body):
    """`capabilities`."""

    devices: DeviceRights


class CreateKey(_Body):
    """`POST …/keys`."""

    capabilities: Capabilities
    expiry_s: int = Field(default=0, ge=0, alias="expirySeconds")
    description: str = Field(default="", max_length=50)
    key_type: str = Field(default="auth", alias="keyType")


def create_app(
    tailnet: Tailnet, credentials: TailscaleCredentials, events: EventLog, *, check_tag_owners: bool = False
) -> ASGIApp:
    """The whole application of the Tailscale port."""
    app = FastAPI(title="localcloud, Tailscale v2", docs_url=None, redoc_url=None, openapi_url=None)
    app.include_router(_key_routes(tailnet, check_tag_owners))
    app.include_router(_policy_routes(tailnet))
    app.include_router(_device_routes(tailnet))
    app.include_router(_token_routes(tailnet, credentials))
    app.include_router(_control_routes(tailnet))
    for kind in (Refusal, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, _on_error)
    return Gate(app, tailnet, credentials, events)


class Gate:
    """Asks for a key before anything else, and writes the request log."""

    def __init__(self, app: ASGIApp, tailnet: Tailnet, credentials: TailscaleCredentials, events: EventLog) -> None:
        self._app = app
        self._tailnet = tailnet
        self._credentials = credentials
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Control routes and the token routes (which bring other credentials) pass without a key."""
        if scope["type"] != "http" or not scope["path"].startswith(API):
            await self._app(scope, receive, send)
            return

        async def logged(message: Any) -> None:
            if message["type"] == "http.response.start":
                self._events.add(
                    "tailscale.request", method=scope["method"], path=scope["path"], status=message["status"]
                )
            await send(message)

        headers = dict(scope["headers"])
        if scope["path"] in TOKEN_PATHS or self._let_in(headers.get(b"authorization", b"").decode("latin-1")):
            await self._app(scope, receive, logged)
        else:
            await refusal_response(Refusal(401, "API token invalid"))(scope, receive, logged)

    def _let_in(self, authorization: str) -> bool:
        scheme, _, value = authorization.partition(" ")
        if scheme.lower() == "basic":
            key, _, _ = basic_pair(value)
            return _same(key, self._credentials.api_key)
        if scheme.lower() == "bearer":
            return _same(value, self._credentials.api_key) or self._tailnet.token_is_valid(value)
        return False


def _key_routes(tailnet: Tailnet, check_tag_owners: bool) -> APIRouter:
    routes = APIRouter(prefix=API + "/tailnet/{tailnet_name}/keys")

    @routes.post("")
    async def create_key(body: CreateKey) -> dict[str, Any]:
        if body.key_type != "auth":
            raise Refusal(501, f"keyType {body.key_type} is not emulated")
        capabilities = body.capabilities.model_dump()
        tags = body.capabilities.devices.create.tags
        owned = _parse_policy(tailnet.policy_text()).get("tagOwners", {}) if check_tag_owners else tags
        wrong = [tag for tag in tags if tag not in owned]
        if wrong:
            raise Refusal(400, f"requested tags [{' '.join(wrong)}] are invalid or not permitted")
        key = tailnet.create_key(capabilities, tags, body.expiry_s, body.description)
        return {**key.json(key.created_at_s), "key": key.secret}

    @routes.get("")
    async def list_keys() -> dict[str, Any]:
        return {"keys": [key.json(time.time()) for key in tailnet.keys.values()]}

    @routes.get("/{key_id}")
    async def get_key(key_id: str) -> dict[str, Any]:
        return tailnet.key(key_id).json(time.time())

    @routes.delete("/{key_id}")
    async def delete_key(key_id: str) -> dict[str, Any]:
        tailnet.delete_key(key_id)
        return {}

    return routes


def _policy_routes(tailnet: Tailnet) -> APIRouter:
    routes = APIRouter(prefix=API + "/tailnet/{tailnet_name}/acl")

    def answer(request: Request) -> Response:
        text, headers = tailnet.policy_text(), {"ETag": tailnet.etag()}
        if "application/hujson" in request.headers.get("accept", ""):
            return Response(text, headers=headers, media_type="application/hujson")
        return Response(standardized(text), headers=headers, media_type="application/json")

    @routes.get("")
    async def get_policy(request: Request) -> Response:
        return answer(request)

    @routes.post("")
    async def set_policy(request: Request) -> Response:
        text = (await request.body()).decode("utf-8", "replace")
        if text:
            _parse_policy(text)
        tailnet.set_policy(text, request.headers.get("if-match"))
        return answer(request)

    @routes.post("/validate")
    async def validate_policy(request: Request) -> dict[str, Any]:
        try:
            _parse_policy((await request.body()).decode("utf-8", "replace"))
        except Refusal as refusal:
            return {"message": refusal.message, "data": []}
        return {}

    return routes


def _parse_policy(text: str) -> dict[str, Any]:
    try:
        policy = json.loads(standardized(text))
    except ValueError as error:
        raise Refusal(400, f"invalid policy: {error}") from None
    if not isinstance(policy, dict):
        raise Refusal(400, "invalid policy: must be an object")
    return policy


def _device_routes(tailnet: Tailnet) -> APIRouter:
    routes = APIRouter(prefix=API)

    @routes.get("/tailnet/{tailnet_name}/devices")
    async def list_devices() -> dict[str, Any]:
        return {"devices": list(tailnet.devices.values())}

    @routes.get("/device/{device_id}")
    async def get_device(device_id: str) -> dict[str, Any]:
        return tailnet.device(device_id)

    @routes.delete("/device/{device_id}")
    async def delete_device(device_id: str) -> dict[str, Any]:
        tailnet.delete_device(device_id)
        return {}

    return routes


def _token_routes(tailnet: Tailnet, credentials: TailscaleCredentials) -> APIRouter:
    routes = APIRouter()

    @routes.post(TOKEN_PATHS[0])
    async def token(request: Request) -> dict[str, Any]:
        form = parse_qs((await request.body()).decode("latin-1"))
        scheme, _, value = request.headers.get("authorization", "").partition(" ")
        client_id, secret = "", ""
        if scheme.lower() == "basic":
            client_id, _, secret = basic_pair(value)
        client_id = client_id or form.get("client_id", [""])[0]
        secret = secret or form.get("client_secret", [""])[0]
        known = _same(client_id, credentials.oauth_client_id) and _same(secret, credentials.oauth_client_secret)
        if not known:
            raise Refusal(401, "API token invalid")
        if form.get("grant_type", ["client_credentials"])[0] != "client_credentials":
            raise Refusal(400, "unsupported grant_type")
        scopes = form.get("scope", ["all"])[0]
        return {"access_token": tailnet.mint_token(), "token_type": "Bearer", "expires_in": 3600, "scope": scopes}

    return routes


def _control_routes(tailnet: Tailnet) -> APIRouter:
    routes = APIRouter(prefix="/_emu/devices")

    @routes.get("")
    async def devices() -> dict[str, Any]:
        return {"devices": list(tailnet.devices.values())}

    @routes.post("", status_code=201)
    async def plant(body: dict[str, Any]) -> dict[str, Any]:
        return tailnet.plant_device(body)

    return routes


def basic_pair(value: str) -> tuple[str, str, str]:
    """User, separator, password of a Basic header's value; empty when malformed."""
    try:
        return base64.b64decode(value, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return "", "", ""


def refusal_response(refusal: Refusal) -> JSONResponse:
    """`{"message"}`."""
    return JSONResponse({"message": refusal.message, "status": refusal.status}, refusal.status)


async def _on_error(_: Request, error: Exception) -> Response:
    if isinstance(error, Refusal):
        return refusal_response(error)
    if isinstance(error, RequestValidationError):
        lines = [f"{'.'.join(str(part) for part in row['loc'])}: {row['msg']}" for row in error.errors()]
        return refusal_response(Refusal(400, "; ".join(lines)))
    if isinstance(error, HTTPException):
        return refusal_response(Refusal(error.status_code, str(error.detail)))
    raise error


def _same(left: str, right: str) -> bool:
    return secrets.compare_digest(left.encode(), right.encode())
