"""Our launcher of dynamic resources: the process in which the engine runs the providers of `podfleet.providers`.

The engine starts `pulumi-resource-pulumi-python` in this folder (Pulumi.yaml names it under `plugins`), once per
update. Beside what the stock launcher does, this one works on 64 operations at once, ends its waits when the update is
cancelled and itself when the engine is gone, and imports pods by their id. Everything works with the stock one, too,
only slower: PODFLEET_LAUNCHER=stock. Why it is our own: docs/decisions/0011-own-launcher.md.
"""
