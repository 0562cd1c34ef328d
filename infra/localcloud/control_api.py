"""`/_emu/*` on the RunPod port: what happened, what it cost, what shall go wrong. For tests and tools; no key."""

import time
from typing import Any

from fastapi import APIRouter
from fastapi.responses import Response

from localcloud import runpod_wire as wire
from localcloud.cloud import Cloud
from localcloud.control_wire import FaultBody, OwnedBody, fault_json, no_fault
from localcloud.facts import SettingsPatch
from localcloud.model import Pod


def control_routes(cloud: Cloud) -> APIRouter:
    """Events, ledger, pods, settings, reset, faults."""
    routes = APIRouter(prefix="/_emu")

    @routes.get("/events")
    async def events(since: int = 0) -> dict[str, Any]:
        return {"events": cloud.events.since(since)}

    @routes.get("/ledger")
    async def ledger() -> dict[str, Any]:
        now_s = time.time()
        books = cloud.ledger
        return {
            "now": now_s,
            "pods": books.lines(now_s),
            "total_usd": books.total_usd(now_s),
            "usd_per_hr": books.usd_per_hr(),
            "balance_usd": books.balance_usd(now_s),
        }

    @routes.post("/ledger/owned")
    async def declare_owned(body: OwnedBody) -> dict[str, Any]:
        """Ids that are no live pods of that prefix are told: their owner believes in something that is not there."""
        cloud.ledger.declare_owned(body.ids, body.prefix, time.time())
        live = [pod.id for pod in cloud.pods.values() if pod.name.startswith(body.prefix)]
        return {
            "unowned": [pod_id for pod_id in live if pod_id not in body.ids],
            "not_there": [pod_id for pod_id in body.ids if pod_id not in live],
        }

    @routes.get("/pods")
    async def pods() -> dict[str, Any]:
        return {"pods": [_with_host(pod) for pod in (*cloud.ended.values(), *cloud.pods.values())]}

    @routes.get("/settings")
    async def settings() -> dict[str, Any]:
        stock = {gpu.id: cloud.stock.free(gpu.id) for gpu in cloud.facts.gpus}
        keys = set(SettingsPatch.model_fields) - {"stock", "inventory", "balance_usd"}
        rows = [row.model_dump() for row in cloud.stock.rows()]
        return {**cloud.facts.model_dump(include=keys), "stock": stock, "inventory": rows}

    @routes.patch("/settings")
    async def patch_settings(body: SettingsPatch) -> dict[str, Any]:
        cloud.patch(body)
        return await settings()

    @routes.post("/reset")
    async def reset() -> dict[str, Any]:
        await cloud.reset()
        return {}

    _add_fault_routes(routes, cloud)
    return routes


def _add_fault_routes(routes: APIRouter, cloud: Cloud) -> None:
    table = cloud.faults

    @routes.post("/faults", status_code=201)
    async def add(body: FaultBody) -> dict[str, Any]:
        fault = body.to_fault(table.new_id(), cloud.facts)
        table.add(fault)
        return {"id": fault.id}

    @routes.get("/faults")
    async def faults() -> dict[str, Any]:
        return {"faults": [fault_json(fault) for fault in table.all()]}

    @routes.delete("/faults/{fault_id}")
    async def remove(fault_id: str) -> Response:
        if not table.remove(fault_id):
            raise no_fault(fault_id)
        return Response(status_code=204)

    @routes.delete("/faults")
    async def clear() -> Response:
        table.clear()
        return Response(status_code=204)


def _with_host(pod: Pod) -> dict[str, Any]:
    host = {"name": pod.host, "pid": pod.pid, "root": str(pod.root), "ssh_port": pod.ssh_port}
    return {**wire.pod_json(pod), "host": host}
