"""What a cloud account holds: pods, what was asked for, secrets. Written by `cloud`, read by the APIs.

PURE.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

KEPT_STATES = 30


class Status(StrEnum):
    """RunPod's observed states."""

    PROVISIONING = "PROVISIONING"
    STARTING = "STARTING"
    RUNNING = "RUNNING"
    EXITED = "EXITED"
    ERROR = "ERROR"
    TERMINATED = "TERMINATED"


ACTIONS: dict[Status, tuple[str, ...]] = {
    Status.PROVISIONING: ("stop", "terminate"),
    Status.STARTING: ("stop", "terminate"),
    Status.RUNNING: ("stop", "restart", "terminate"),
    Status.EXITED: ("start", "terminate"),
    Status.ERROR: ("start", "terminate"),
    Status.TERMINATED: (),
}


@dataclass(frozen=True, slots=True)
class GpuWish:
    """Which GPU, how many, on which hosts."""

    id: str
    count: int = 1
    allowed_cuda_versions: tuple[str, ...] = ()
    min_cuda_version: str | None = None


@dataclass(frozen=True, slots=True)
class CpuWish:
    """Which CPU flavour, how big."""

    id: str
    vcpu_count: int


@dataclass(frozen=True, slots=True)
class PodRequest:
    """A create request, checked."""

    name: str
    image: str
    gpu: GpuWish | None = None
    cpu: CpuWish | None = None
    cloud: str = "SECURE"
    disk_gb: int = 10
    env: dict[str, str] = field(default_factory=dict, repr=False)
    ports: tuple[str, ...] = ()
    args: str | None = None
    entrypoint: tuple[str, ...] | None = None
    cmd: tuple[str, ...] | None = None
    data_center_ids: tuple[str, ...] = ()
    mounts: dict[str, object] | None = None
    global_networking: bool = False
    registry: str | None = None
    injected: dict[str, str] = field(default_factory=dict, repr=False)

    def hardware(self) -> str:
        """Id of the GPU type or CPU flavour."""
        return self.gpu.id if self.gpu else self.cpu.id if self.cpu else ""

    def private_ports(self, kind: str) -> list[int]:
        """The port numbers asked for as `kind` (tcp or http)."""
        return [int(port.split("/")[0]) for port in self.ports if port.endswith(f"/{kind}")]


@dataclass(slots=True)
class Pod:
    """One rented pod, from create on; `root`, `pid` and the ports are those of its container now."""

    id: str
    serial: int
    request: PodRequest
    price_usd_per_hr: float
    data_center_id: str
    cuda_version: str
    created_at_s: float
    root: Path
    api_key: str = field(repr=False)
    host: str = ""
    status: Status = Status.PROVISIONING
    running_since_s: float | None = None
    pid: int | None = None
    tcp_ports: dict[int, int] = field(default_factory=dict)
    starts: int = 0
    locked: bool = False
    ended_at_s: float | None = None
    runtime_at_s: float = 0.0
    hidden_until_s: float = 0.0
    stuck: bool = False
    last_ports: dict[int, int] = field(default_factory=dict)
    stale_until_s: float = 0.0
    history: list[tuple[float, Status]] = field(default_factory=list)

    def become(self, status: Status, at_s: float) -> None:
        """Change the state; what runs is known only while RUNNING."""
        self.status = status
        self.history = [*self.history[-KEPT_STATES:], (at_s, status)]
        if status is not Status.RUNNING:
            self.running_since_s, self.pid = None, None

    def status_at(self, at_s: float) -> Status:
        """The state that it had then."""
        past = [status for when_s, status in self.history if when_s <= at_s]
        return past[-1] if past else Status.PROVISIONING

    def shows_runtime(self, now_s: float) -> bool:
        """Whether `runtime` and ports are to be seen: a lag after the start."""
        return self.running_since_s is not None and now_s >= self.runtime_at_s

    def ports_shown(self, now_s: float) -> dict[int, int]:
        """The mapped ports as the API tells them: for a while after a restart those of before."""
        return self.last_ports if now_s < self.stale_until_s else self.tcp_ports

    def release_ports(self) -> None:
        """The container is over, and its ports with it."""
        if self.tcp_ports:
            self.last_ports, self.tcp_ports = self.tcp_ports, {}

    def actions(self) -> tuple[str, ...]:
        """What may be done with it now: a locked pod is not stopped or restarted."""
        kept = ("start", "terminate") if self.locked else ("start", "stop", "restart", "terminate")
        return tuple(action for action in ACTIONS[self.status] if action in kept)

    @property
    def name(self) -> str:
        """Names are not unique."""
        return self.request.name

    @property
    def ssh_port(self) -> int | None:
        """The mapped port of 22/tcp."""
        return self.tcp_ports.get(22)


@dataclass(slots=True)
class Secret:
    """An account secret; the value leaves it only into a container's environment."""

    id: str
    name: str
    value: str = field(repr=False)
    description: str
    created_at_s: float
    updated_at_s: float


def at_least(cuda_version: str, floor: str) -> bool:
    """Whether it is the floor or newer, compared as numbers."""
    have, want = (tuple(int(part) for part in version.split(".")) for version in (cuda_version, floor))
    return have >= want
