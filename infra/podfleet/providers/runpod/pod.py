"""`Pod`: one rented pod as a Pulumi resource. Shell over `core.PodCore`.

Waiting is not in here: `PodReachable` waits, where somebody needs SSH. Limits and secrets' values are no inputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pulumi
from pulumi.dynamic import CheckFailure, CheckResult, CreateResult, DiffResult, ReadResult, Resource

from podfleet.providers.runpod.core import RentSpec, diff
from podfleet.providers.runpod.importing import imported
from podfleet.providers.runpod.renting import Rented
from podfleet.providers.runpod.shell import Props, Shell, known
from podfleet.providers.runpod.wire import PodView

REQUIRED = ("name", "uid", "slot", "specHash", "image", "cloud")


@dataclass(frozen=True, slots=True)
class PodArgs:
    """What makes a pod. `cloud` is SECURE, COMMUNITY or ALL; no GPU type or data centre named means any."""

    name: str
    uid: str
    slot: str
    spec_hash: str
    image: str
    gpu_types: Sequence[str]
    cloud: str = "SECURE"
    data_center_ids: Sequence[str] = ()
    min_cuda_version: str = ""
    disk_gb: int = 20
    ports: Sequence[str] = ("22/tcp",)
    env: Mapping[str, pulumi.Input[str]] = field(default_factory=dict)
    registry_id: pulumi.Input[str] | None = None
    volume_id: pulumi.Input[str] | None = None
    volume_path: str | None = None


class PodProvider(Shell):
    """This path is in every state: never move it."""

    def check(self, _olds: Props, news: Props) -> CheckResult:
        missing = [key for key in REQUIRED if not news.get(key)]
        missing += [] if isinstance(news.get("gpuTypes"), list) else ["gpuTypes"]  # `[]` is written: any
        return CheckResult(news, [CheckFailure(key, "is required") for key in missing])

    def diff(self, _id: str, olds: Props, news: Props) -> DiffResult:
        reasons = diff(olds, news)
        return DiffResult(changes=bool(reasons), replaces=reasons, delete_before_replace=True)

    def create(self, props: Props) -> CreateResult:
        rented = self.core.pods.rent(_spec(props))
        return CreateResult(rented.pod.id, {**props, **_outputs(rented.pod), **_choice(rented)})

    def read(self, id_: str, props: Props) -> ReadResult:
        pod = self.core.pods.read(id_)
        if pod and not props.get("name"):  # it is in no state yet: `pulumi import`
            inputs = imported(pod, uid=self._settings.uid)
            return ReadResult(id_, {**inputs, **_outputs(pod)}, inputs)
        return ReadResult(id_, {**props, **_outputs(pod)}) if pod else ReadResult("", {})

    def delete(self, id_: str, props: Props) -> None:
        self.core.pods.delete(id_, uid=props["uid"])


class Pod(Resource, module="runpod", name="Pod"):
    """A pod. Another `name` means another pod: the old one is drained and ended before the new one is rented."""

    status: pulumi.Output[str]
    gpu: pulumi.Output[str]
    candidate: pulumi.Output[str]
    rejected: pulumi.Output[list[str]]

    def __init__(self, resource_name: str, args: PodArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        props: Props = {
            "name": args.name,
            "uid": args.uid,
            "slot": args.slot,
            "specHash": args.spec_hash,
            "image": args.image,
            "gpuTypes": list(args.gpu_types),
            "cloud": args.cloud,
            "dataCenterIds": list(args.data_center_ids),
            "minCudaVersion": args.min_cuda_version,
            "diskGb": args.disk_gb,
            "ports": list(args.ports),
            "env": dict(args.env),
            "registryId": args.registry_id,  # where it is None, it is no input at all
            "volumeId": args.volume_id,
            "volumePath": args.volume_path,
            "status": None,
            "gpu": None,
            "costUsdPerHr": None,
            "createdAtS": None,
            "dataCenterId": None,
            "cudaVersion": None,
            "candidate": None,
            "rejected": None,
        }
        super().__init__(PodProvider(), resource_name, props, opts)

    @property
    def cost_usd_per_hr(self) -> pulumi.Output[float]:
        """What RunPod charges for this pod; 0 when it is EXITED."""
        usd_per_hr: pulumi.Output[float] = pulumi.get(self, "costUsdPerHr")
        return usd_per_hr

    @property
    def created_at_s(self) -> pulumi.Output[float]:
        """Seconds since the epoch."""
        at_s: pulumi.Output[float] = pulumi.get(self, "createdAtS")
        return at_s


def _spec(props: Props) -> RentSpec:
    return RentSpec(
        name=props["name"],
        uid=props["uid"],
        slot=props["slot"],
        spec_hash=props["specHash"],
        image=props["image"],
        gpu_types=tuple(props["gpuTypes"]),
        cloud=props["cloud"],
        data_center_ids=tuple(props.get("dataCenterIds") or ()),
        min_cuda_version=props.get("minCudaVersion") or "",
        disk_gb=int(props.get("diskGb") or 20),
        ports=tuple(props.get("ports") or ()),
        env={key: str(value) for key, value in (props.get("env") or {}).items() if known(value)},
        registry_id=props.get("registryId") or "",
        volume_id=props.get("volumeId") or "",
        volume_path=props.get("volumePath") or "",
    )


def _outputs(pod: PodView) -> Props:
    return {
        "status": pod.status,
        "gpu": pod.gpu,
        "costUsdPerHr": pod.cost_usd_per_hr,
        "createdAtS": pod.created_at_s,
        "dataCenterId": pod.data_center_id,
        "cudaVersion": pod.cuda_version,
    }


def _choice(rented: Rented) -> Props:
    """Why this one, for people: told once, at the create; a refresh keeps it."""
    return {"candidate": rented.candidate, "rejected": list(rented.rejected)}
