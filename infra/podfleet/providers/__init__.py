"""Clouds that pods can be rented from: an explicit table, name → the resource classes of that cloud.

Until there is a second one, the components name RunPod's classes themselves. A row is loaded when
asked for, so that clients of one provider's API do not import Pulumi.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from podfleet.providers.runpod.guard import Guard
    from podfleet.providers.runpod.holdings import Holdings
    from podfleet.providers.runpod.pod import Pod
    from podfleet.providers.runpod.reachable import PodReachable
    from podfleet.providers.runpod.registry import Registry
    from podfleet.providers.runpod.secret import Secret
    from podfleet.providers.runpod.sweep import Sweep
    from podfleet.providers.runpod.volume import Volume


@dataclass(frozen=True, slots=True)
class Provider:
    """The resource classes of one cloud."""

    pod: type[Pod]
    guard: type[Guard]
    sweep: type[Sweep]
    reachable: type[PodReachable]
    secret: type[Secret]
    registry: type[Registry]
    volume: type[Volume]
    holdings: type[Holdings]


def _runpod() -> Provider:
    from podfleet.providers.runpod import (  # noqa: PLC0415  (lazy on purpose)
        guard,
        holdings,
        pod,
        reachable,
        registry,
        secret,
        sweep,
        volume,
    )

    return Provider(
        pod=pod.Pod,
        guard=guard.Guard,
        sweep=sweep.Sweep,
        reachable=reachable.PodReachable,
        secret=secret.Secret,
        registry=registry.Registry,
        volume=volume.Volume,
        holdings=holdings.Holdings,
    )


PROVIDERS: Mapping[str, Callable[[], Provider]] = {"runpod": _runpod}
