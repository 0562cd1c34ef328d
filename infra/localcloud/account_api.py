"""RunPod v2's records beside pods: registries, network volumes, templates, SSH keys, account secrets."""

from typing import Any

from fastapi import APIRouter
from fastapi.responses import Response

from localcloud import account_wire as wire
from localcloud.cloud import Cloud
from localcloud.errors import Problem
from localcloud.runpod_wire import CreateSecret, PatchSecret, secret_json
from localcloud.wire_base import page

GONE = 204


def account_routes(cloud: Cloud) -> tuple[APIRouter, ...]:
    """One router per kind of record."""
    return (
        _registry_routes(cloud),
        _volume_routes(cloud),
        _template_routes(cloud),
        _ssh_key_routes(cloud),
        _secret_routes(cloud),
    )


def _registry_routes(cloud: Cloud) -> APIRouter:
    routes = APIRouter(prefix="/v2/registries")

    @routes.get("")
    async def list_registries() -> dict[str, Any]:
        return {"registries": [wire.registry_json(registry) for registry in cloud.account.registries.values()]}

    @routes.post("", status_code=201)
    async def create_registry(body: wire.CreateRegistry) -> dict[str, Any]:
        return wire.registry_json(cloud.account.create_registry(body.name, body.username, body.password))

    @routes.get("/{record_id}")
    async def get_registry(record_id: str) -> dict[str, Any]:
        return wire.registry_json(cloud.account.registry(record_id))

    @routes.delete("/{record_id}", status_code=GONE)
    async def delete_registry(record_id: str) -> Response:
        cloud.account.delete_registry(record_id, cloud.pods.values())
        return Response(status_code=GONE)

    return routes


def _volume_routes(cloud: Cloud) -> APIRouter:
    routes = APIRouter(prefix="/v2/network-volumes")

    @routes.get("")
    async def list_network_volumes(cursor: str | None = None) -> dict[str, Any]:
        return page(
            "networkVolumes",
            list(cloud.account.volumes.values()),
            wire.volume_json,
            serial=lambda volume: volume.serial,
            cursor=cursor,
            size=cloud.facts.page_size,
        )

    @routes.post("", status_code=201)
    async def create_network_volume(body: wire.CreateVolume) -> dict[str, Any]:
        return wire.volume_json(cloud.account.create_volume(body.name, body.size, body.data_center, body.type))

    @routes.get("/{record_id}")
    async def get_network_volume(record_id: str) -> dict[str, Any]:
        return wire.volume_json(cloud.account.volume(record_id))

    @routes.patch("/{record_id}")
    async def update_network_volume(record_id: str, body: wire.PatchVolume) -> dict[str, Any]:
        return wire.volume_json(cloud.account.update_volume(record_id, body.name, body.size))

    @routes.delete("/{record_id}", status_code=GONE)
    async def delete_network_volume(record_id: str) -> Response:
        cloud.account.delete_volume(record_id, cloud.pods.values())
        return Response(status_code=GONE)

    return routes


def _template_routes(cloud: Cloud) -> APIRouter:
    routes = APIRouter(prefix="/v2/templates")

    @routes.get("")
    async def list_templates() -> dict[str, Any]:
        return {"templates": [wire.template_json(template) for template in cloud.account.templates.values()]}

    @routes.post("", status_code=201)
    async def create_template(body: wire.CreateTemplate) -> dict[str, Any]:
        return wire.template_json(cloud.account.create_template(body.to_template()))

    @routes.get("/{record_id}")
    async def get_template(record_id: str) -> dict[str, Any]:
        return wire.template_json(cloud.account.template(record_id))

    @routes.patch("/{record_id}")
    async def update_template(record_id: str, body: wire.PatchTemplate) -> dict[str, Any]:
        return wire.template_json(cloud.account.update_template(record_id, body.columns()))

    @routes.delete("/{record_id}", status_code=GONE)
    async def delete_template(record_id: str) -> Response:
        cloud.account.delete_template(record_id)
        return Response(status_code=GONE)

    return routes


def _ssh_key_routes(cloud: Cloud) -> APIRouter:
    routes = APIRouter(prefix="/v2/account/ssh-keys")

    @routes.get("")
    async def get_ssh_keys() -> dict[str, Any]:
        return {"keys": list(cloud.account.ssh_keys)}

    @routes.put("")
    async def update_ssh_keys(body: wire.PutSshKeys) -> dict[str, Any]:
        cloud.account.replace_ssh_keys(tuple(body.keys))
        return {"keys": list(cloud.account.ssh_keys)}

    return routes


def _secret_routes(cloud: Cloud) -> APIRouter:
    routes = APIRouter(prefix="/v2/account/secrets")

    @routes.post("", status_code=201)
    async def create_secret(body: CreateSecret) -> dict[str, Any]:
        if body.name.upper().startswith("RUNPOD"):
            raise Problem(422, "names must not begin with RUNPOD", errors=["name: must not begin with RUNPOD"])
        return secret_json(cloud.create_secret(body.name, body.value, body.description))

    @routes.get("")
    async def list_secrets(name: str | None = None) -> dict[str, Any]:
        found = [secret for secret in cloud.secrets.values() if name in (None, secret.name)]
        return {
            "secrets": [secret_json(secret) for secret in found],
            "pagination": {"hasNextPage": False, "nextCursor": ""},
        }

    @routes.get("/{record_id}")
    async def get_secret(record_id: str) -> dict[str, Any]:
        return secret_json(cloud.secret(record_id))

    @routes.patch("/{record_id}")
    async def patch_secret(record_id: str, body: PatchSecret) -> dict[str, Any]:
        return secret_json(cloud.update_secret(record_id, body.value, body.description))

    @routes.delete("/{record_id}", status_code=GONE)
    async def delete_secret(record_id: str) -> Response:
        cloud.delete_secret(record_id)
        return Response(status_code=GONE)

    return routes
