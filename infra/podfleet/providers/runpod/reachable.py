"""`PodReachable`: waits until bootstrap steps can connect. Shell over `waiting.ReachableCore`."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
from pulumi.dynamic import CreateResult, DiffResult, Resource

from podfleet.providers.runpod.shell import Props, Shell, changed

DEFAULT_DEADLINE_S = 900.0


@dataclass(frozen=True, slots=True)
class PodReachableArgs:
    """Depends on its own pod alone, so that one pod that never boots holds up no other."""

    pod_id: pulumi.Input[str]
    deadline_s: float = DEFAULT_DEADLINE_S


class PodReachableProvider(Shell):
    """This path is in every state: never move it."""

    def diff(self, _id: str, olds: Props, news: Props) -> DiffResult:
        other = changed(olds, news, "podId")
        return DiffResult(changes=bool(other), replaces=other, delete_before_replace=True)

    def create(self, props: Props) -> CreateResult:
        deadline_s = float(props.get("deadlineS") or DEFAULT_DEADLINE_S)
        way = self.core.reachable.wait(props["podId"], deadline_s=deadline_s)
        outputs = {"host": way.host, "port": way.port, "hostKey": way.host_key}
        return CreateResult(f"reachable-{props['podId']}", {**props, **outputs})


class PodReachable(Resource, module="runpod", name="PodReachable"):
    """Running, port 22 mapped, host key known. Made anew for every new pod."""

    host: pulumi.Output[str]
    port: pulumi.Output[int]

    def __init__(self, resource_name: str, args: PodReachableArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        props: Props = {
            "podId": args.pod_id,
            "deadlineS": args.deadline_s,
            "host": None,
            "port": None,
            "hostKey": None,
        }
        super().__init__(PodReachableProvider(), resource_name, props, opts)

    @property
    def host_key(self) -> pulumi.Output[str]:
        """An authorized_keys line: what the pod's sshd must show."""
        host_key: pulumi.Output[str] = pulumi.get(self, "hostKey")
        return host_key
