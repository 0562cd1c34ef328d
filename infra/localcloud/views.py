"""What a list shows when it does not show the truth: old lists, lists with holes. Used by `cloud`.

PURE.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from localcloud.faults import Fault
from localcloud.model import Pod


def listed(pods: Iterable[Pod], now_s: float) -> list[Pod]:
    """The pods that can be seen now."""
    return [pod for pod in pods if pod.hidden_until_s <= now_s]


def as_of(pods: Iterable[Pod], at_s: float, now_s: float, fault: Fault) -> list[Pod]:
    """The list as it was at an instant, for the pods that the fault is about; the others as they are."""
    seen = (_then(pod, at_s) if fault.concerns(pod.name) else _now(pod, now_s) for pod in pods)
    return [pod for pod in seen if pod]


def _now(pod: Pod, now_s: float) -> Pod | None:
    return pod if pod.ended_at_s is None and pod.hidden_until_s <= now_s else None


def _then(pod: Pod, at_s: float) -> Pod | None:
    if max(pod.created_at_s, pod.hidden_until_s) >= at_s or (pod.ended_at_s is not None and pod.ended_at_s < at_s):
        return None
    return replace(pod, status=pod.status_at(at_s))


def with_holes(pods: Sequence[Pod], fault: Fault) -> list[Pod]:
    """Without the pods that the fault names, or without the second half."""
    if fault.name_contains is None:
        return list(pods[: len(pods) // 2])
    return [pod for pod in pods if not fault.concerns(pod.name)]
