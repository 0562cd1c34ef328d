"""One slot: its pod, and where bootstrap steps need SSH, the way in and the steps."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
import pulumi_command as command

from podfleet.bootstrap import steps
from podfleet.components.account import Account
from podfleet.components.program import Stack
from podfleet.components.tailnet import Tailnet
from podfleet.podspec import pod_environment, pod_spec, remote_name, spec_hash
from podfleet.providers.runpod.pod import Pod, PodArgs
from podfleet.providers.runpod.reachable import PodReachable, PodReachableArgs

SECONDS_PER_MINUTE = 60
DIAL_TRIES = 12  # sshd answers before the host key is printed: only a busy host needs more than one
DIAL_TIMEOUT_S = 10


@dataclass(frozen=True, slots=True)
class Parts:
    """What all pods of the fleet use."""

    account: Account
    tailnet: Tailnet

    @property
    def resources(self) -> list[pulumi.Resource]:
        """What has to be there before the first pod, and goes after the last one."""
        return [*self.account.parts, *([self.tailnet.secret] if self.tailnet.secret else [])]


class FleetPod(pulumi.ComponentResource):
    """The pod of one slot, made after Guard (`after`). `address`: `host:port` of its SSH, empty in mode `none`."""

    def __init__(
        self,
        slot: str,
        stack: Stack,
        *,
        parts: Parts,
        after: pulumi.Resource,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__("podfleet:index:FleetPod", slot, None, opts)
        config, spec = stack.config, pod_spec(stack.config)
        name = remote_name(stack.prefix, slot, config.uid, spec)
        self.pod = Pod(
            f"{slot}-pod",
            PodArgs(
                name=name,
                uid=config.uid,
                slot=slot,
                spec_hash=spec_hash(config.uid, spec),
                env=pod_environment(config, slot=slot, name=name, tailnet_secret=parts.tailnet.secret_name),
                image=spec.image,
                gpu_types=spec.gpu_types,
                cloud=spec.cloud,
                data_center_ids=spec.data_center_ids,
                min_cuda_version=spec.min_cuda_version,
                disk_gb=spec.disk_gb,
                ports=spec.ports,
                registry_id=parts.account.registry.id if parts.account.registry else None,
                volume_id=parts.account.volume.id if parts.account.volume else None,
                volume_path=spec.mount.path if spec.mount else None,
            ),
            pulumi.ResourceOptions(parent=self, depends_on=[after]),
        )
        self.address: pulumi.Input[str] = ""
        if config.bootstrap == "image":
            self.address = self._bootstrap(slot, name, stack)
        self.register_outputs({"podId": self.pod.id, "address": self.address})

    def _bootstrap(self, slot: str, name: str, stack: Stack) -> pulumi.Output[str]:
        config = stack.config
        deadline_s = config.reachable_deadline_minutes * SECONDS_PER_MINUTE
        reachable = PodReachable(
            f"{slot}-reachable",
            PodReachableArgs(pod_id=self.pod.id, deadline_s=deadline_s),
            pulumi.ResourceOptions(parent=self, deleted_with=self.pod),
        )
        connection = command.remote.ConnectionArgs(
            host=reachable.host,
            port=reachable.port.apply(float),
            user="root",
            private_key=pulumi.Output.secret(config.ssh_private_key),
            host_key=reachable.host_key,
            dial_error_limit=DIAL_TRIES,
            per_dial_timeout=DIAL_TIMEOUT_S,
        )
        before: list[pulumi.Resource] = [reachable]
        for step in steps(config, name=name):
            before = [
                command.remote.Command(
                    f"{slot}-{step.name}",
                    connection=connection,
                    create=step.run,
                    stdin=pulumi.Output.secret(step.stdin) if step.stdin else None,
                    triggers=[self.pod.id],  # a new pod behind an old address would otherwise go unnoticed
                    add_previous_output_in_env=False,
                    logging=command.remote.Logging.STDERR,  # what a step prints is in the state
                    opts=pulumi.ResourceOptions(
                        parent=self,
                        depends_on=before,
                        deleted_with=self.pod,
                        delete_before_replace=True,
                        custom_timeouts=pulumi.CustomTimeouts(
                            create=f"{step.timeout_s + DIAL_TRIES * DIAL_TIMEOUT_S:.0f}s"
                        ),
                    ),
                )
            ]
        return pulumi.Output.concat(reachable.host, ":", reachable.port.apply(lambda port: f"{int(port)}"))
