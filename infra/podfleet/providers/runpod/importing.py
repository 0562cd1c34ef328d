"""A pod's inputs, read from the pod itself: for `pulumi import`, which knows nothing of it but its id."""

from __future__ import annotations

from typing import Any

from podfleet.errors import OtherFleetFound
from podfleet.providers.runpod.wire import EXPIRES_VARIABLE, PodView


def imported(pod: PodView, *, uid: str) -> dict[str, Any]:
    """What `Pod` would have been given to rent this pod, as far as the pod shows it.

    Raises OtherFleetFound for a pod that does not carry the stack's uid: what is in its state, it may end.
    """
    known_by = f"-{pod.slot}-{pod.spec_hash}"
    if not uid or pod.uid != uid or not (pod.slot and pod.spec_hash and pod.name.endswith(known_by)):
        told = f"pod {pod.id} ({pod.name}) is not of this stack's uid ({uid or 'podfleet:uid is not set'})"
        raise OtherFleetFound(f"{told}: not imported", pods=[pod.id])
    return {
        "name": pod.name,
        "uid": pod.uid,
        "slot": pod.slot,
        "specHash": pod.spec_hash,
        "image": pod.image,
        "gpuTypes": [pod.gpu] if pod.gpu else [],
        "cloud": pod.cloud,
        "dataCenterIds": [pod.data_center_id] if pod.data_center_id else [],
        "diskGb": pod.disk_gb,
        "ports": list(pod.ports),
        "env": {key: value for key, value in pod.env if key != EXPIRES_VARIABLE},
    }
