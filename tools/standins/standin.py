"""What the stand-in plugins share: a resource provider on the engine's gRPC messages.

Test doubles: they serve the unmodified `pulumi_command` and `pulumi_tailscale` resources where the real plugins cannot
be fetched, inside the scratch plugin home of local and test stacks only. `provision/plugins.py` packs this file, one
of `command.py` and `tailscale.py`, and `pulumi_protos.py` into an archive for `pulumi plugin install`.

A plugin stays close to the wire: a resource's properties come as a protobuf Struct and go back as they came, with
what the operation adds, so that secrets and assets keep their marks.
"""

# ruff: noqa: ARG002, N802 - names and arguments of the methods are the gRPC service's
from __future__ import annotations

import os
import signal
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from concurrent import futures
from typing import Any, ClassVar

import grpc
from google.protobuf import empty_pb2
from google.protobuf.struct_pb2 import Struct, Value
from pulumi_protos import engine_pb2, engine_pb2_grpc, plugin_pb2, provider_pb2, provider_pb2_grpc

# how the engine marks special values: a struct whose field SIGNATURE holds one of these
SIGNATURE = "4dabf18193072939515e22adb298388d"
SECRET = "1b47061264138c4ac30d75fd1eb44270"  # noqa: S105 - a mark, not a secret
ASSETS = ("c44067f5952c0a294b673a41bacd8c17", "0def7320c3a5731c473e5ecbe6d01bc7")  # asset, archive

WORKERS = 64
MAX_MESSAGE_BYTES = 400 << 20
# the engine's address is a loopback one: a proxy from the environment has no part in it
NO_PROXY = (("grpc.enable_http_proxy", 0),)


class PluginError(Exception):
    """An operation failed; the message is what the user sees beside the resource."""


def plain(value: Value) -> Any:
    """A value as Python has it: secrets unwrapped, whole numbers as int, an asset as {"hash": …}."""
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        fields = value.struct_value.fields
        mark = fields[SIGNATURE].string_value if SIGNATURE in fields else ""
        if mark == SECRET:
            return plain(fields["value"])
        if mark in ASSETS:
            return {"hash": fields["hash"].string_value}
        return plains(value.struct_value)
    if kind == "list_value":
        return [plain(item) for item in value.list_value.values]
    if kind == "number_value":
        return int(value.number_value) if value.number_value.is_integer() else value.number_value
    return None if kind in (None, "null_value") else getattr(value, kind)


def plains(properties: Struct) -> dict[str, Any]:
    return {key: plain(value) for key, value in properties.fields.items()}


def with_values(properties: Struct, values: Mapping[str, Any], secret: Iterable[str] = ()) -> Struct:
    """A copy with these values set; the names in `secret` are marked so."""
    result = Struct()
    result.CopyFrom(properties)
    marked = {key: {SIGNATURE: SECRET, "value": values[key]} for key in secret}
    result.update({**values, **marked})
    return result


class StandIn(provider_pb2_grpc.ResourceProviderServicer, ABC):
    """A plugin: subclasses say what they serve and override create, read, update, delete."""

    package: ClassVar[str]
    version: ClassVar[str]
    inputs: ClassVar[dict[str, set[str]]]
    """Type -> all of its inputs: a diff compares these and no outputs."""
    replace_on: ClassVar[dict[str, set[str]]]
    """Type -> the inputs whose change makes a new resource."""

    def __init__(self, engine: str) -> None:
        self.cancelled = False
        self._channel = grpc.insecure_channel(engine, options=NO_PROXY)
        self._engine = engine_pb2_grpc.EngineStub(self._channel)

    # what a subclass overrides

    def configure(self, config: dict[str, Any]) -> None:
        """The provider's own arguments, once, before any resource."""

    @abstractmethod
    def create(self, request: Any) -> tuple[str, Struct]:
        """Id and properties of the new resource."""

    def read(self, request: Any) -> tuple[str, Struct, Struct]:
        """Id, properties and inputs as they are now; by default as they were."""
        return request.id, request.properties, request.inputs

    @abstractmethod
    def update(self, request: Any) -> Struct:
        """The properties after the change."""

    @abstractmethod
    def delete(self, request: Any) -> None:
        """What is gone already counts as deleted."""

    def differences(self, kind: str, old: dict[str, Any], new: dict[str, Any]) -> tuple[list[str], list[str]]:
        """Changed inputs, and those of them that replace."""
        changed = sorted(key for key in self.inputs[kind] if old.get(key) != new.get(key))
        return changed, [key for key in changed if key in self.replace_on[kind]]

    def log(self, urn: str, message: str, fleeting: bool = False) -> None:
        """A line under the resource in `pulumi up`; a fleeting one shows while the operation runs."""
        severity = engine_pb2.INFO
        self._engine.Log(engine_pb2.LogRequest(severity=severity, message=message, urn=urn, ephemeral=fleeting))

    # the service; names are the engine's. No Handshake: with one, the engine takes supportsPreview for granted
    # and calls Create and Update in a preview

    def GetPluginInfo(self, request: Any, context: Any) -> Any:
        return plugin_pb2.PluginInfo(version=self.version)

    def GetSchema(self, request: Any, context: Any) -> Any:
        return provider_pb2.GetSchemaResponse(schema=f'{{"name": "{self.package}", "version": "{self.version}"}}')

    def CheckConfig(self, request: Any, context: Any) -> Any:
        return provider_pb2.CheckResponse(inputs=request.news)

    def DiffConfig(self, request: Any, context: Any) -> Any:
        return _diff([] if plains(request.olds) == plains(request.news) else [""], [])

    def Configure(self, request: Any, context: Any) -> Any:
        _guarded(context, lambda: self.configure(plains(request.args)))
        # supportsPreview False: in a preview the engine itself answers "unknown"
        return provider_pb2.ConfigureResponse(acceptSecrets=True, supportsPreview=False)

    def Check(self, request: Any, context: Any) -> Any:
        known = self.inputs.get(request.type, set())
        failures = [
            provider_pb2.CheckFailure(property=key, reason="not served by this stand-in")
            for key in request.news.fields
            if key not in known
        ]
        if not known:
            failures.append(provider_pb2.CheckFailure(reason=f"{request.type} is not served by this stand-in"))
        return provider_pb2.CheckResponse(inputs=request.news, failures=failures)

    def Diff(self, request: Any, context: Any) -> Any:
        return _diff(*self.differences(request.type, plains(request.olds), plains(request.news)))

    def Create(self, request: Any, context: Any) -> Any:
        new_id, properties = _guarded(context, lambda: self.create(request))
        return provider_pb2.CreateResponse(id=new_id, properties=properties)

    def Read(self, request: Any, context: Any) -> Any:
        found_id, properties, inputs = _guarded(context, lambda: self.read(request))
        return provider_pb2.ReadResponse(id=found_id, properties=properties, inputs=inputs)

    def Update(self, request: Any, context: Any) -> Any:
        return provider_pb2.UpdateResponse(properties=_guarded(context, lambda: self.update(request)))

    def Delete(self, request: Any, context: Any) -> Any:
        _guarded(context, lambda: self.delete(request))
        return empty_pb2.Empty()

    def Cancel(self, request: Any, context: Any) -> Any:
        self.cancelled = True
        return empty_pb2.Empty()

    @classmethod
    def main(cls) -> None:
        """Serve until the engine is done with us: it sends SIGINT then, and waits up to 5 s for the plugin to go."""
        signal.signal(signal.SIGINT, lambda *_: os._exit(0))
        engine = next(word for word in sys.argv[1:] if not word.startswith("-"))
        server = grpc.server(
            futures.ThreadPoolExecutor(WORKERS), options=[("grpc.max_receive_message_length", MAX_MESSAGE_BYTES)]
        )
        provider_pb2_grpc.add_ResourceProviderServicer_to_server(cls(engine), server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        print(port, flush=True)
        server.wait_for_termination()


def _guarded(context: Any, operation: Callable[[], Any]) -> Any:
    try:
        return operation()
    except Exception as error:  # the outermost frame of an operation: grpc would show a bare class name
        context.abort(grpc.StatusCode.UNKNOWN, str(error) or repr(error))
        raise


def _diff(changed: list[str], replaces: list[str]) -> Any:
    kinds = provider_pb2.PropertyDiff
    return provider_pb2.DiffResponse(
        changes=provider_pb2.DiffResponse.DIFF_SOME if changed else provider_pb2.DiffResponse.DIFF_NONE,
        diffs=changed,
        replaces=replaces,
        detailedDiff={
            key: kinds(kind=kinds.UPDATE_REPLACE if key in replaces else kinds.UPDATE, inputDiff=True)
            for key in changed
            if key
        },
        hasDetailedDiff=bool(changed) and changed != [""],
    )
