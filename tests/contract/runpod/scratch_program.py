"""A small fleet for the engine tests; copied to the scratch project as its program. Sizes come from the config."""

import hashlib

import pulumi

from podfleet.providers.runpod.guard import Guard, GuardArgs
from podfleet.providers.runpod.pod import Pod, PodArgs
from podfleet.providers.runpod.reachable import PodReachable, PodReachableArgs
from podfleet.providers.runpod.secret import Secret, SecretArgs
from podfleet.providers.runpod.sweep import Sweep, SweepArgs

UID, PREFIX = "t-00000001", "podfleet-t-"
config = pulumi.Config("podfleet")
count, image, full = config.get_int("pods") or 0, config.get("image") or "v1", config.get_int("full")
spec_hash = hashlib.sha256(f"{UID}{image}".encode()).hexdigest()[:8]
slots = [f"slot-{number:02}" for number in range(1, count + 1)]
wanted = [f"{PREFIX}{slot}-{spec_hash}" for slot in slots]


def pod(slot: str, name: str, guard: Guard, secret: Secret) -> Pod:
    gpu = "NVIDIA L40" if slot == f"slot-{full or 0:02}" else "NVIDIA L4"
    env = {"PUBLIC_KEY": config.get("sshPublicKey") or "", "KEY": "{{ RUNPOD_SECRET_podfleet-t-key }}"}
    gpus = [] if config.get_bool("anyGpu") else [gpu]
    args = PodArgs(name=name, uid=UID, slot=slot, spec_hash=spec_hash, image=image, gpu_types=gpus, env=env)
    return Pod(slot, args, pulumi.ResourceOptions(depends_on=[guard, secret]))


secret = Secret("secret", SecretArgs("podfleet-t-key", config.require_secret("key"), "of the tests"))
guard = Guard(
    "guard",
    GuardArgs(UID, PREFIX, wanted, config.get_bool("adopt") or False),
    pulumi.ResourceOptions(depends_on=[secret]),
)
pods = [pod(slot, name, guard, secret) for slot, name in zip(slots, wanted, strict=True)]
if config.get_bool("reachable"):
    for slot, each in zip(slots, pods, strict=True):
        way = PodReachable(f"{slot}-reachable", PodReachableArgs(each.id, 30.0))
        pulumi.export(
            f"{slot}-address",
            pulumi.Output.concat(way.host, ":", way.port.apply(lambda port: f"{port:.0f}"), " ", way.host_key),
        )
Sweep(
    "sweep",
    SweepArgs(UID, PREFIX, wanted, [each.id for each in pods], guard.generation),
    pulumi.ResourceOptions(depends_on=[guard, *pods]),
)
pulumi.export("generation", guard.generation)
pulumi.export("placements", {slot: [each.candidate, each.rejected] for slot, each in zip(slots, pods, strict=True)})
pulumi.export("usdPerHour", pulumi.Output.all(*(each.cost_usd_per_hr for each in pods)).apply(sum))
