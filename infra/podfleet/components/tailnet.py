"""The pods' way into the tailnet: one expiring, ephemeral, tagged key, and the policy where this stack owns it."""

from __future__ import annotations

import pulumi
import pulumi_tailscale as tailscale

from podfleet import acl
from podfleet.components.program import Stack
from podfleet.podspec import secret_name
from podfleet.providers.runpod.secret import Secret, SecretArgs

SECONDS_PER_HOUR = 3600


class Tailnet(pulumi.ComponentResource):
    """Key, account secret (made after `after`), policy. Without `podfleet:tailnet` nothing; `secret` is then None.

    The credentials (TAILSCALE_API_KEY, or the OAuth variables) come from the environment: none is in the state.
    """

    secret: Secret | None = None
    secret_name: str = ""

    def __init__(
        self, name: str, stack: Stack, *, after: pulumi.Resource, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("podfleet:index:Tailnet", name, None, opts)
        config = stack.config
        if config.tailnet:
            provider = tailscale.Provider(
                "tailscale",
                base_url=config.tailscale_url,
                tailnet=config.tailnet,
                opts=pulumi.ResourceOptions(parent=self),
            )
            child = pulumi.ResourceOptions(parent=self, provider=provider)
            policy = [self._policy(config.server_port, child)] if config.acl == "own" else []
            key = tailscale.TailnetKey(
                "tailnet-key",
                reusable=True,
                ephemeral=True,
                preauthorized=True,
                expiry=config.tailnet_key_expiry_hours * SECONDS_PER_HOUR,
                tags=[acl.POD_TAG],
                description=f"podfleet {stack.name}",
                opts=pulumi.ResourceOptions.merge(child, pulumi.ResourceOptions(depends_on=policy)),
            )
            self.secret_name = secret_name(stack.project, stack.name, config.uid, "tailnet")
            self.secret = Secret(
                "tailnet-secret",
                SecretArgs(name=self.secret_name, value=key.key, description=f"tailnet key of stack {stack.name}"),
                pulumi.ResourceOptions(parent=self, depends_on=[after]),
            )
        self.register_outputs({})

    @staticmethod
    def _policy(server_port: int, opts: pulumi.ResourceOptions) -> pulumi.Resource:
        return tailscale.Acl(
            "acl",
            acl=acl.document(server_port=server_port),
            overwrite_existing_content=True,
            reset_acl_on_destroy=True,
            opts=opts,
        )
