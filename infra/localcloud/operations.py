"""Which operation a request is, and about which record: what faults, the request log and a pod's rights go by.

Called by `door`. A GraphQL request is `graphql.<its first field>`, or `graphql` when it cannot be read.
"""

import re
from dataclasses import dataclass

from localcloud import graphql_text

GRAPHQL, V1, OPENAPI, OTHER = "graphql", "v1", "openapi", "other"
SERVED = ("/v2", "/v1", "/graphql")
KEY_OWNER = "localcloud.key_owner"  # in a request's scope: the pod whose key it came with
ROWS: tuple[tuple[str, str, str], ...] = (
    ("GET", r"/v2/pods/?", "pods.list"),
    ("POST", r"/v2/pods/?", "pods.create"),
    ("GET", r"/v2/pods/(?P<pod>[^/]+)", "pods.get"),
    ("PATCH", r"/v2/pods/(?P<pod>[^/]+)", "pods.update"),
    ("DELETE", r"/v2/pods/(?P<pod>[^/]+)", "pods.delete"),
    ("POST", r"/v2/pods/(?P<pod>[^/]+)/action", "pods.action"),
    ("GET", r"/v2/pods/(?P<pod>[^/]+)/logs", "pods.logs"),
    ("GET", r"/v2/catalog/gpus(/[^/]+)?", "catalog.gpus"),
    ("GET", r"/v2/catalog/cpus(/[^/]+)?", "catalog.cpus"),
    ("GET", r"/v2/catalog/datacenters(/[^/]+)?", "catalog.datacenters"),
    ("POST", r"/v2/account/secrets", "secrets.create"),
    ("GET", r"/v2/account/secrets(/(?P<secret>[^/]+))?", "secrets.list"),
    ("PATCH", r"/v2/account/secrets/(?P<secret>[^/]+)", "secrets.update"),
    ("DELETE", r"/v2/account/secrets/(?P<secret>[^/]+)", "secrets.delete"),
    ("GET|PUT", r"/v2/account/ssh-keys", "ssh-keys"),
    ("POST", r"/v2/registries", "registries.create"),
    ("GET", r"/v2/registries(/(?P<registry>[^/]+))?", "registries.list"),
    ("DELETE", r"/v2/registries/(?P<registry>[^/]+)", "registries.delete"),
    ("POST", r"/v2/network-volumes", "volumes.create"),
    ("GET", r"/v2/network-volumes(/(?P<volume>[^/]+))?", "volumes.list"),
    ("PATCH", r"/v2/network-volumes/(?P<volume>[^/]+)", "volumes.update"),
    ("DELETE", r"/v2/network-volumes/(?P<volume>[^/]+)", "volumes.delete"),
    ("POST", r"/v2/templates", "templates.create"),
    ("GET", r"/v2/templates(/(?P<template>[^/]+))?", "templates.list"),
    ("PATCH", r"/v2/templates/(?P<template>[^/]+)", "templates.update"),
    ("DELETE", r"/v2/templates/(?P<template>[^/]+)", "templates.delete"),
    ("GET", r"/v2/billing(/[^/]+)?", "billing"),
    ("GET", r"/v2/openapi\.json", OPENAPI),
    ("POST", r"/graphql/?", GRAPHQL),
    ("[A-Z]+", r"/v1(/.*)?", V1),
)


@dataclass(frozen=True, slots=True)
class Operation:
    """What a request is about: `kind` and `record_id` say of which record its path or its document speaks."""

    op: str
    kind: str | None = None
    record_id: str | None = None

    @property
    def pod_id(self) -> str | None:
        """The pod, when it is about one."""
        return self.record_id if self.kind == "pod" else None

    @property
    def is_graphql(self) -> bool:
        """Errors there have a shape of their own."""
        return self.op.split(".")[0] == GRAPHQL

    def read(self, body: bytes) -> "Operation":
        """The same after a look at the body: it alone says what a GraphQL request does."""
        if self.op != GRAPHQL:
            return self
        first = graphql_text.first_field(body)
        return Operation(f"{GRAPHQL}.{first.name}", "pod", first.pod_id) if first else self


def operation(method: str, path: str) -> Operation:
    """The operation of a request; `other` when no row of the table fits."""
    for methods, pattern, op in ROWS:
        match = re.fullmatch(pattern, path) if re.fullmatch(methods, method) else None
        if match:
            named = {kind: value for kind, value in match.groupdict().items() if value}
            kind, record_id = next(iter(named.items()), (None, None))
            return Operation(op, kind, record_id)
    return Operation(OTHER)
