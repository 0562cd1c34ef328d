"""The faults that RunPod's users report, by name: what each does, at which operation, with which usual numbers.

PURE. `POST /_emu/faults {"kind": …}` and `localcloud fault add KIND` turn a row of this table into a `Fault`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from localcloud.faults import ANY_REQUEST, INSIDE, Fault

RUN = "pods.run"  # a pod that runs: asked when its container has started, and when such a fault is armed


@dataclass(frozen=True, slots=True)
class Kind:
    """One named fault. Numbers and words that an order does not give are `fault_defaults` of the facts."""

    text: str
    op: str
    phase: str
    action: str

    def fault(self, fault_id: str, name: str, usual: Mapping[str, Any], given: Mapping[str, Any]) -> Fault:
        """The armed fault."""
        values = {"op": self.op, **usual, **given}
        return Fault(id=fault_id, kind=name, phase=self.phase, action=self.action, **values)


KINDS: dict[str, Kind] = {
    # -- requests
    "create-then-500": Kind("the pod exists, the answer is 500", "pods.create", "after", "status"),
    "create-then-hang": Kind(
        "the pod exists, no answer for DELAY s, then the line is cut", "pods.create", "after", "hang"
    ),
    "create-then-drop": Kind("the pod exists, the line is cut without an answer", "pods.create", "after", "drop"),
    "create-late": Kind(
        "the pod is made DELAY s later, also where nobody waits any more", "pods.create", "before", "late"
    ),
    "create-twice": Kind("one create makes two pods; the answer names the first", "pods.create", INSIDE, "twice"),
    "create-hidden": Kind(
        "201, then absent from list, get and delete (404) for DELAY s", "pods.create", INSIDE, "hide"
    ),
    "list-lag": Kind("lists are DELAY s old", "pods.list", INSIDE, "lag"),
    "list-stale-once": Kind("a list as it was before the last create or end", "pods.list", INSIDE, "stale"),
    "page-lost": Kind("a list without its second half, or without the pods of NAME", "pods.list", INSIDE, "lose"),
    "delete-stays": Kind("204, but the pod stays", "pods.delete", INSIDE, "stay"),
    "delete-404": Kind("404 for a live pod, and it stays", "pods.delete", INSIDE, "deny"),
    "rate-limited": Kind("429 with Retry-After DELAY", ANY_REQUEST, "before", "status"),
    "capacity-flap": Kind("no capacity now and then", "pods.create", "before", "status"),
    "cloudflare-502": Kind("an HTML page with 502", ANY_REQUEST, "before", "html"),
    "cloudflare-1010": Kind("an HTML page with 403, error code 1010", ANY_REQUEST, "before", "html"),
    "cloudflare-1015": Kind("an HTML page with 429, error code 1015", ANY_REQUEST, "before", "html"),
    "graphql-410": Kind("GraphQL is gone", "graphql", "before", "status"),
    "cloud-dies": Kind("localcloud is killed (SIGKILL) before the request is committed", ANY_REQUEST, "before", "die"),
    "cloud-dies-after": Kind("localcloud is killed after the commit, before the answer", ANY_REQUEST, "after", "die"),
    # -- boot
    "boot-null": Kind("RUNNING, runtime null for ever, billed", "pods.boot", INSIDE, "null"),
    "boot-error": Kind("ERROR instead of RUNNING, billed", "pods.boot", INSIDE, "error"),
    "boot-exited": Kind("EXITED instead of RUNNING, not billed", "pods.boot", INSIDE, "exited"),
    "driver-old": Kind("as boot-null, and the system log names the driver", "pods.boot", INSIDE, "driver-old"),
    "secret-missing": Kind("ERROR: a secret of the pod is not found", "pods.boot", INSIDE, "secret-missing"),
    "slow-pull": Kind("the image takes DELAY s more to come", "pods.boot", INSIDE, "slow-pull"),
    # -- a running pod, DELAY s after its container started, or after the fault was armed
    "host-death": Kind("the host dies: processes gone, ERROR, billed", RUN, INSIDE, "host-death"),
    "host-gone": Kind("the host dies: the pod is gone from lists and from the bill", RUN, INSIDE, "host-gone"),
    "spot-preempt": Kind("SIGTERM, 5 s, SIGKILL, EXITED", RUN, INSIDE, "preempt"),
    "port-change": Kind("new container, new ports; the old ones are shown for DELAY s", RUN, INSIDE, "port-change"),
}
"""Name -> kind, in the order in which they are listed."""


def allowed() -> str:
    """The names, for an error line."""
    return ", ".join(KINDS)
