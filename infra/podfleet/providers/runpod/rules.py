"""The rules of placement and the hosts to avoid, as the provider process reads them from config and environment.

Called by `settings.read_settings`. What cannot be read counts as not set: the program has checked today's config before
anything is rented, and `destroy` must not be stopped by a price cap.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from pydantic.alias_generators import to_camel

from podfleet.config import NAMESPACE, PodfleetConfig
from podfleet.gpus import vram_need_gb
from podfleet.placement import Avoid, Rules

AVOID_VARIABLE = "PODFLEET_AVOID"  # set by `podfleet up`, never in a shell


def read_rules(config: Callable[[str], object], number: Callable[[str], float]) -> Rules:
    """`number` reads a key that holds a number, by its field's name."""

    def value(field: str) -> Any:
        found = config(f"{NAMESPACE}:{to_camel(field)}")
        return PodfleetConfig.model_fields[field].get_default(call_default_factory=True) if found is None else found

    engine, model = str(value("engine")), str(value("model"))
    return Rules(
        order=str(value("gpu_order")),
        speeds=_speeds(_json(value("gpu_speeds"))),
        blocked=_texts(_json(value("blocked_gpu_types"))),
        min_vram_gb=number("min_vram_gb") or vram_need_gb(engine, model),
        max_usd_per_hr=number("max_usd_per_pod_hour"),
        engine=engine,
        model=model,
    )


def read_avoid(text: str) -> tuple[Avoid, ...]:
    """A JSON list of objects with `gpu`, `cloud`, `dataCenterId` and perhaps `cudaVersion`."""
    found = _json(text)
    rows = [row for row in found if isinstance(row, Mapping)] if isinstance(found, list) else []
    return tuple(
        Avoid(str(row["gpu"]), str(row["cloud"]), str(row.get("dataCenterId") or ""), str(row.get("cudaVersion") or ""))
        for row in rows
        if row.get("gpu") and row.get("cloud")
    )


def _json(value: Any) -> Any:
    """Lists and objects come as JSON text where `pulumi config set` wrote them."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value) if value else None
    except ValueError:
        return None


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(map(str, value)) if isinstance(value, list | tuple) else ()


def _speeds(value: Any) -> tuple[tuple[str, float], ...]:
    found = value if isinstance(value, Mapping) else {}
    return tuple(sorted((str(gpu), float(speed)) for gpu, speed in found.items() if _is_speed(speed)))


def _is_speed(value: object) -> bool:
    return isinstance(value, int | float) and value > 0
