"""What is left of RunPod's GraphQL here: a pod, its end, its stop, the account, its balance. Called by `graphql_api`.

Fields and error texts are those of the real service as far as they are known; a field that is not in `SDL` is refused
before anything is done, as Apollo does it.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any

from graphql import (
    DocumentNode,
    ExecutionResult,
    GraphQLError,
    GraphQLSchema,
    build_schema,
    execute_sync,
    parse,
    validate,
)

from localcloud.account import volume_of
from localcloud.cloud import Cloud
from localcloud.environment import PUBLIC_IP, vcpu_count
from localcloud.errors import Problem
from localcloud.model import Pod, Status
from localcloud.podlog import rfc3339

SPEND_LIMIT_USD_PER_HR = 80
GENERIC_ERROR = "Something went wrong. Please try again later or contact support."
SDL = """
scalar DateTime
scalar Void

type Query {
  pod(input: PodFilter): Pod
  myself: User
}

type Mutation {
  podStop(input: PodStopInput!): Pod
  podTerminate(input: PodTerminateInput!): Void
  updateRegistryAuth(input: UpdateRegistryAuthInput!): ContainerRegistryAuth
}

input PodFilter { podId: String }
input PodStopInput { podId: String! incrementVersion: Boolean }
input PodTerminateInput { podId: String! }
input UpdateRegistryAuthInput { id: String! username: String! password: String! }

type User {
  id: ID
  email: String
  pubKey: String
  clientBalance: Float
  currentSpendPerHr: Float
  spendLimit: Int
  pods: [Pod]
  networkVolumes: [NetworkVolume]
  containerRegistryCreds: [ContainerRegistryAuth]
}

type Pod {
  id: String!
  name: String!
  desiredStatus: String!
  lastStatusChange: String
  createdAt: DateTime
  imageName: String
  dockerArgs: String
  dockerId: String
  containerDiskInGb: Int
  containerRegistryAuthId: String
  volumeInGb: Float
  volumeMountPath: String
  networkVolumeId: String
  costPerHr: Float
  env: [String]
  gpuCount: Int
  vcpuCount: Float
  memoryInGb: Float
  locked: Boolean
  machineId: String
  podType: String
  port: Int
  ports: String
  templateId: String
  uptimeSeconds: Int
  machine: PodMachineInfo
  runtime: PodRuntime
}

type PodMachineInfo { podHostId: String gpuDisplayName: String }
type PodRuntime { uptimeInSeconds: Int ports: [PodRuntimePort] gpus: [PodRuntimeGpu] }
type PodRuntimePort { ip: String isIpPublic: Boolean privatePort: Int publicPort: Int type: String }
type PodRuntimeGpu { id: String gpuUtilPercent: Float memoryUtilPercent: Float }
type NetworkVolume { id: String name: String size: Int dataCenterId: String }
type ContainerRegistryAuth { id: String name: String }
"""


log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Asked:
    """A GraphQL request: the text, its variables, and the pod whose key it came with (None: the account's)."""

    query: str
    variables: dict[str, Any]
    operation_name: str | None
    owner: str | None


class Refused(Exception):
    """The request does not fit the schema: HTTP 400."""

    def __init__(self, code: str, errors: list[GraphQLError]) -> None:
        super().__init__(code)
        self.code = code
        self.errors = errors


def run(cloud: Cloud, asked: Asked) -> ExecutionResult:
    """Data and errors; Refused when nothing was done."""
    document = _document(asked.query)
    result = execute_sync(
        _schema(),
        document,
        root_value=Root(cloud, asked.owner).fields(),
        variable_values=asked.variables,
        operation_name=asked.operation_name,
    )
    errors = [_known(error) for error in result.errors or []]
    result.errors = errors or None
    if result.data is None and errors and not any(error.path for error in errors):
        raise Refused("BAD_USER_INPUT", errors)
    return result


def _known(error: GraphQLError) -> GraphQLError:
    """A mistake of ours is logged; the caller hears what the service says then."""
    cause = error.original_error
    if cause is None or isinstance(cause, (GraphQLError, Problem)):
        return error
    log.error("a GraphQL field broke off", exc_info=cause)
    return GraphQLError(GENERIC_ERROR, path=error.path)


def _document(text: str) -> DocumentNode:
    try:
        document = parse(text)
    except GraphQLError as error:
        raise Refused("GRAPHQL_PARSE_FAILED", [error]) from None
    except RecursionError:
        raise Refused("GRAPHQL_PARSE_FAILED", [GraphQLError("Syntax Error: the document is too deep.")]) from None
    wrong = validate(_schema(), document)
    if wrong:
        raise Refused("GRAPHQL_VALIDATION_FAILED", wrong)
    return document


@cache
def _schema() -> GraphQLSchema:
    return build_schema(SDL)


class Root:
    """The top-level fields. Those about one pod are open to that pod's own key, as far as its rights say."""

    def __init__(self, cloud: Cloud, owner: str | None) -> None:
        self._cloud = cloud
        self._owner = owner
        self._texts = cloud.facts.texts

    def fields(self) -> dict[str, Callable[..., Any]]:
        """By their names on the wire."""
        return {
            "pod": self._pod,
            "myself": self._myself,
            "podTerminate": self._pod_terminate,
            "podStop": self._pod_stop,
            "updateRegistryAuth": self._update_registry_auth,
        }

    def _admit(self, field: str) -> None:
        if self._owner and f"graphql.{field}" not in self._cloud.facts.pod_key_rights:
            raise _error(self._texts.graphql_unauthorized, "UNAUTHORIZED")

    def _found(self, pod_id: str) -> Pod | None:
        try:
            pod = self._cloud.get(pod_id)
        except Problem:
            return None
        if self._owner not in (None, pod.id):
            raise _error(self._texts.graphql_unauthorized, "UNAUTHORIZED")
        return pod

    def _pod(self, _: Any, input: dict[str, Any] | None = None) -> dict[str, Any] | None:  # noqa: A002 - the wire's word
        self._admit("pod")
        pod = self._found((input or {}).get("podId") or "")
        return pod_fields(self._cloud, pod) if pod else None

    def _myself(self, _: Any) -> dict[str, Any]:
        self._admit("myself")
        return _account_fields(self._cloud)

    def _pod_terminate(self, _: Any, input: dict[str, Any]) -> None:  # noqa: A002
        self._admit("podTerminate")
        pod = self._found(input["podId"])
        if pod is None:
            raise _error(self._texts.pod_not_found_to_terminate, "POD_NOT_FOUND")
        self._cloud.delete(pod.id, "terminate")

    def _pod_stop(self, _: Any, input: dict[str, Any]) -> dict[str, Any]:  # noqa: A002
        self._admit("podStop")
        pod = self._found(input["podId"])
        if pod is None:
            raise _error(self._texts.pod_not_found_to_stop, "POD_NOT_FOUND")
        self._cloud.act(pod.id, "stop")
        return pod_fields(self._cloud, pod)

    def _update_registry_auth(self, _: Any, input: dict[str, Any]) -> dict[str, Any]:  # noqa: A002
        self._admit("updateRegistryAuth")
        registry = self._cloud.account.update_registry(input["id"], input["username"], input["password"])
        return {"id": registry.id, "name": registry.name}


def _error(text: str, code: str) -> GraphQLError:
    return GraphQLError(text, extensions={"code": code})


def _account_fields(cloud: Cloud) -> dict[str, Any]:
    now_s, account = time.time(), cloud.account
    return {
        "id": "user_localcloud",
        "email": "nobody@localcloud.invalid",
        "pubKey": "\n".join(account.ssh_keys),
        "clientBalance": cloud.ledger.balance_usd(now_s),
        "currentSpendPerHr": cloud.ledger.usd_per_hr() + account.storage_usd_per_hr(),
        "spendLimit": SPEND_LIMIT_USD_PER_HR,
        "pods": [pod_fields(cloud, pod) for pod in cloud.pods.values()],
        "networkVolumes": [
            {"id": volume.id, "name": volume.name, "size": volume.size_gb, "dataCenterId": volume.data_center_id}
            for volume in account.volumes.values()
        ],
        "containerRegistryCreds": [
            {"id": registry.id, "name": registry.name} for registry in account.registries.values()
        ],
    }


def pod_fields(cloud: Cloud, pod: Pod) -> dict[str, Any]:
    """A pod in GraphQL's words: the state is the wished one, `env` is a list of `K=V`."""
    request, stopped = pod.request, pod.status is Status.EXITED
    persistent = (request.mounts or {}).get("persistent")
    disk: dict[str, Any] = persistent if isinstance(persistent, dict) else {}
    gpu = cloud.facts.gpu(request.hardware())
    running_s = None if pod.running_since_s is None else int(time.time() - pod.running_since_s)
    return {
        "id": pod.id,
        "name": pod.name,
        "desiredStatus": "EXITED" if stopped else "RUNNING",
        "lastStatusChange": _last_change(pod),
        "createdAt": rfc3339(pod.created_at_s),
        "imageName": request.image,
        "dockerArgs": request.args or "",
        "dockerId": None,
        "containerDiskInGb": request.disk_gb,
        "containerRegistryAuthId": request.registry,
        "volumeInGb": disk.get("size", 0),
        "volumeMountPath": disk.get("path"),
        "networkVolumeId": volume_of(pod),
        "costPerHr": pod.price_usd_per_hr,
        "env": [f"{key}={value}" for key, value in request.env.items()],
        "gpuCount": request.gpu.count if request.gpu else 0,
        "vcpuCount": vcpu_count(request),
        "memoryInGb": 24 * (request.gpu.count if request.gpu else 1),
        "locked": pod.locked,
        "machineId": f"machine-{pod.data_center_id}",
        "podType": "RESERVED",
        "port": None,
        "ports": ",".join(request.ports),
        "templateId": None,
        "uptimeSeconds": running_s or 0,
        "machine": {"podHostId": f"{pod.id}-64410065", "gpuDisplayName": gpu.name if gpu else None},
        "runtime": None if running_s is None else _runtime(pod, running_s),
    }


def _runtime(pod: Pod, running_s: int) -> dict[str, Any]:
    shown = pod.ports_shown(time.time())
    ports = [
        {"ip": PUBLIC_IP, "isIpPublic": True, "privatePort": private, "publicPort": public, "type": "tcp"}
        for private, public in shown.items()
    ]
    return {"uptimeInSeconds": running_s, "ports": ports, "gpus": []}


def _last_change(pod: Pod) -> str:
    at_s = pod.history[-1][0] if pod.history else pod.created_at_s
    when = datetime.fromtimestamp(at_s, UTC).strftime("%a %b %d %Y %H:%M:%S GMT+0000 (Coordinated Universal Time)")
    return f"{'Exited by user' if pod.status is Status.EXITED else 'Rented by User'}: {when}"
