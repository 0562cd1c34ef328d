"""`/v2/billing*`: what pods and network volumes cost, from the ledger and from the volumes' own days."""

import time
from collections.abc import Iterable, Mapping
from typing import Any

from fastapi import APIRouter, Request

from localcloud import billing
from localcloud.billing import Charge
from localcloud.cloud import Cloud

POD_AMOUNTS = ("gpuAmount", "cpuAmount", "diskAmount")
VOLUME_AMOUNTS = ("standardAmount", "highPerformanceAmount")
ALL_AMOUNTS = (
    *("podGpuAmount", "podCpuAmount", "podDiskAmount"),
    *("serverlessGpuAmount", "serverlessCpuAmount", "serverlessDiskAmount", "serverlessFeeAmount"),
    *("storageStandardAmount", "storageHighPerformanceAmount", "endpointAmount"),
    *("clusterGpuAmount", "clusterDiskAmount", "clusterNetworkingAmount"),
)
IN_ALL = {
    "gpuAmount": "podGpuAmount",
    "cpuAmount": "podCpuAmount",
    "standardAmount": "storageStandardAmount",
    "highPerformanceAmount": "storageHighPerformanceAmount",
}


def billing_routes(cloud: Cloud) -> APIRouter:
    """History of all, of pods, of network volumes."""
    routes = APIRouter(prefix="/v2/billing")

    @routes.get("")
    async def list_billing(request: Request) -> dict[str, Any]:
        now_s = time.time()
        asked = billing.window(request.query_params, now_s)
        charges = [*pod_charges(cloud, now_s), *volume_charges(cloud, now_s)]
        rows = [
            {**billing.time_range(start, end), **_amounts(_summed(amounts), ALL_AMOUNTS)}
            for start, end, amounts in billing.records(charges, asked)
        ]
        return {"records": rows, "metadata": _metadata(asked.json(), rows, ALL_AMOUNTS)}

    @routes.get("/pods")
    async def list_pod_billing(request: Request) -> dict[str, Any]:
        now_s = time.time()
        return _by_id(request.query_params, "podId", pod_charges(cloud, now_s), POD_AMOUNTS, now_s)

    @routes.get("/network-volumes")
    async def list_network_volume_billing(request: Request) -> dict[str, Any]:
        now_s = time.time()
        return _by_id(request.query_params, "networkVolumeId", volume_charges(cloud, now_s), VOLUME_AMOUNTS, now_s)

    return routes


def pod_charges(cloud: Cloud, now_s: float) -> list[Charge]:
    """Every charged time of every pod there ever was."""
    return [
        Charge(
            bill.pod_id,
            "cpuAmount" if cloud.facts.cpu(bill.gpu) else "gpuAmount",
            start,
            now_s if end is None else end,
            bill.price_usd_per_hr,
        )
        for bill in cloud.ledger.bills.values()
        for start, end in bill.spans
    ]


def volume_charges(cloud: Cloud, now_s: float) -> list[Charge]:
    """Every day of every volume there ever was."""
    account = cloud.account
    return [
        Charge(
            volume.id,
            "standardAmount" if volume.type == "STANDARD" else "highPerformanceAmount",
            start,
            end,
            account.usd_per_hr(size_gb),
        )
        for volume in account.all_volumes()
        for start, end, size_gb in volume.spans(now_s)
    ]


def _by_id(
    params: Mapping[str, str], id_key: str, charges: list[Charge], names: tuple[str, ...], now_s: float
) -> dict[str, Any]:
    asked, only = billing.window(params, now_s), params.get(id_key)
    wanted = [charge for charge in charges if only in (None, charge.id)]
    rows = [
        {id_key: row_id, **billing.time_range(start, end), **_amounts(amounts, names)}
        for start, end, found in billing.records(wanted, asked)
        for row_id, amounts in _grouped(found).items()
    ]
    query = {**asked.json(), **({id_key: only} if only is not None else {})}
    unique = f"unique{id_key[0].upper()}{id_key[1:-2]}Count"
    return {"records": rows, "metadata": {**_metadata(query, rows, names), unique: len({row[id_key] for row in rows})}}


def _grouped(found: Mapping[tuple[str, str], float]) -> dict[str, dict[str, float]]:
    groups: dict[str, dict[str, float]] = {}
    for (row_id, kind), usd in found.items():
        groups.setdefault(row_id, {})[kind] = usd
    return groups


def _summed(found: Mapping[tuple[str, str], float]) -> dict[str, float]:
    sums: dict[str, float] = {}
    for (_, kind), usd in found.items():
        sums[IN_ALL[kind]] = sums.get(IN_ALL[kind], 0.0) + usd
    return sums


def _amounts(found: Mapping[str, float], names: tuple[str, ...]) -> dict[str, float]:
    return {"totalAmount": sum(found.values()), **{name: found.get(name, 0.0) for name in names}}


def _metadata(query: Mapping[str, Any], rows: Iterable[Mapping[str, Any]], names: tuple[str, ...]) -> dict[str, Any]:
    listed = list(rows)
    totals = {name: sum(row[name] for row in listed) for name in ("totalAmount", *names)}
    return {"query": query, "recordCount": len(listed), "totals": totals}
