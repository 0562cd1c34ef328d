"""`/v2/catalog/*`: what can be rented, where, for how much."""

from typing import Any, TypeVar

from fastapi import APIRouter, Request

from localcloud import catalog_wire as wire
from localcloud.cloud import Cloud
from localcloud.errors import Problem

T = TypeVar("T")


def catalog_routes(cloud: Cloud) -> APIRouter:
    """GPU types, CPU flavours, data centres."""
    routes = APIRouter(prefix="/v2/catalog")
    _add_gpu_routes(routes, cloud)
    _add_cpu_routes(routes, cloud)
    _add_center_routes(routes, cloud)
    return routes


def _add_gpu_routes(routes: APIRouter, cloud: Cloud) -> None:
    @routes.get("/gpus")
    async def list_gpu_types(request: Request) -> dict[str, Any]:
        query = wire.availability_query(request.query_params)
        shown = [wire.gpu_json(gpu, cloud.facts, cloud.stock, query) for gpu in cloud.facts.gpus]
        if query and query.country_codes:
            shown = [gpu for gpu in shown if "dataCenters" in gpu]
        return {"gpus": shown}

    @routes.get("/gpus/{gpu_id}")
    async def get_gpu_type(request: Request, gpu_id: str) -> dict[str, Any]:
        query = wire.availability_query(request.query_params)
        return wire.gpu_json(_found(cloud, cloud.facts.gpu(gpu_id)), cloud.facts, cloud.stock, query)


def _add_cpu_routes(routes: APIRouter, cloud: Cloud) -> None:
    @routes.get("/cpus")
    async def list_cpu_types(request: Request) -> dict[str, Any]:
        vcpu_count = wire.cpu_query(request.query_params)
        return {"cpus": [wire.cpu_json(cpu, cloud.facts, vcpu_count) for cpu in cloud.facts.cpus]}

    @routes.get("/cpus/{cpu_id}")
    async def get_cpu_type(request: Request, cpu_id: str) -> dict[str, Any]:
        vcpu_count = wire.cpu_query(request.query_params)
        return wire.cpu_json(_found(cloud, cloud.facts.cpu(cpu_id)), cloud.facts, vcpu_count)


def _add_center_routes(routes: APIRouter, cloud: Cloud) -> None:
    @routes.get("/datacenters")
    async def list_data_centers(request: Request) -> dict[str, Any]:
        query = wire.center_query(request.query_params)
        centers = [center for center in cloud.facts.data_centers if query.admits(center)]
        return {
            "dataCenters": [wire.center_json(center, cloud.facts, cloud.stock, query.include) for center in centers]
        }

    @routes.get("/datacenters/{center_id}")
    async def get_data_center(request: Request, center_id: str) -> dict[str, Any]:
        query = wire.center_query(request.query_params)
        found = _found(cloud, next((center for center in cloud.facts.data_centers if center.id == center_id), None))
        return wire.center_json(found, cloud.facts, cloud.stock, query.include)


def _found(cloud: Cloud, record: T | None) -> T:
    if record is None:
        raise Problem(404, cloud.facts.texts.not_found)
    return record
