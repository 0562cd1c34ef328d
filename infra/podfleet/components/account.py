"""What a fleet holds in the account beside its pods: a login for private images, a volume for models."""

from __future__ import annotations

import pulumi

from podfleet.components.program import Stack
from podfleet.podspec import registry_name, secret_name
from podfleet.providers.runpod.holdings import Holdings, HoldingsArgs
from podfleet.providers.runpod.registry import Registry, RegistryArgs
from podfleet.providers.runpod.volume import Volume, VolumeArgs


class Account(pulumi.ComponentResource):
    """Made before Guard, deleted after it. `registry` and `volume` are None where the config asks for none."""

    registry: Registry | None = None
    volume: Volume | None = None

    def __init__(self, name: str, stack: Stack, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("podfleet:index:Account", name, None, opts)
        config = stack.config
        self.holdings = Holdings(
            "holdings", HoldingsArgs(uid=config.uid, prefix=stack.prefix), pulumi.ResourceOptions(parent=self)
        )
        child = pulumi.ResourceOptions(parent=self, depends_on=[self.holdings])
        if config.registry_username:
            username, password = config.registry_username, config.registry_password
            login = registry_name(stack.project, stack.name, config.uid, username=username, password=password)
            self.registry = Registry("registry", RegistryArgs(login, username, password), child)
        if config.volume_gb:
            self.volume = Volume(
                "models",
                VolumeArgs(
                    name=secret_name(stack.project, stack.name, config.uid, "models"),
                    size_gb=config.volume_gb,
                    data_center_id=config.volume_data_center_id,
                    type=config.volume_type,
                ),
                child,
            )
        self.register_outputs({})

    @property
    def parts(self) -> list[pulumi.Resource]:
        """What Guard waits for."""
        return [part for part in (self.holdings, self.registry, self.volume) if part is not None]
