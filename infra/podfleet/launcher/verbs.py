"""The engine's calls as calls of a provider: properties out of messages, results into messages. No threads in here.

Each function is one method of the ResourceProvider service; `host` runs it in a worker thread. What a provider raises
goes through.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf import empty_pb2
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct
from pulumi.dynamic import ResourceProvider
from pulumi.dynamic.dynamic import PROVIDER_KEY
from pulumi.runtime import rpc
from pulumi.runtime.proto import provider_pb2 as wire

from podfleet.launcher.pickled import Providers
from podfleet.providers.runpod.stopping import Stopping

Props = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Verbs:
    """What reaches out into the world is not begun once the process was told to stop."""

    providers: Providers
    stopping: Stopping

    def configure(self, request: Any) -> Message:
        config = {key: rpc.unwrap_rpc_secret(value) for key, value in _props(request.args).items()}
        self.providers.configure(config)
        return wire.ConfigureResponse(acceptSecrets=False)

    def check(self, request: Any) -> Message:
        olds, news = _props(request.olds, unknowns=True), _props(request.news, unknowns=True)
        checked = self._provider(news, olds).check(olds, news)
        failures = [wire.CheckFailure(property=each.property, reason=each.reason) for each in checked.failures or ()]
        return wire.CheckResponse(inputs=_struct(checked.inputs, news[PROVIDER_KEY]), failures=failures)

    def diff(self, request: Any) -> Message:
        olds, news = _props(request.olds, unknowns=True), _props(request.news, unknowns=True)
        found = self._provider(news, olds).diff(request.id, olds, news)
        changes = {None: "DIFF_UNKNOWN", True: "DIFF_SOME", False: "DIFF_NONE"}[found.changes]
        return wire.DiffResponse(
            changes=wire.DiffResponse.DiffChanges.Value(changes),
            replaces=found.replaces or (),
            deleteBeforeReplace=bool(found.delete_before_replace),
        )

    def create(self, request: Any) -> Message:
        self.stopping.check(f"creating {_name(request.urn)}")
        props = _props(request.properties)
        made = self._provider(props).create(props)
        return wire.CreateResponse(id=made.id, properties=_struct(made.outs, props[PROVIDER_KEY]))

    def read(self, request: Any) -> Message:
        """Without `__provider` the engine asks for a resource that is in no state: `pulumi import`."""
        self.stopping.check(f"reading {_name(request.urn)}")
        props = _props(request.properties)
        text = props.get(PROVIDER_KEY) or self.providers.text_for(_type(request.urn))
        found = self.providers.get(text).read(request.id, props)
        if not found.id:
            return wire.ReadResponse()
        answer = wire.ReadResponse(id=found.id, properties=_struct(found.outs, text))
        if found.inputs is not None:
            answer.inputs.CopyFrom(_struct(found.inputs, text))
        return answer

    def update(self, request: Any) -> Message:
        self.stopping.check(f"updating {_name(request.urn)}")
        olds, news = _props(request.olds), _props(request.news)
        updated = self._provider(news).update(request.id, olds, news)
        return wire.UpdateResponse(properties=_struct(updated.outs, news[PROVIDER_KEY]))

    def delete(self, request: Any) -> Message:
        self.stopping.check(f"deleting {_name(request.urn)}")
        props = _props(request.properties)
        self._provider(props).delete(request.id, props)
        return empty_pb2.Empty()

    def _provider(self, news: Props, olds: Props | None = None) -> ResourceProvider:
        text = news[PROVIDER_KEY]
        return self.providers.get(olds[PROVIDER_KEY] if text == rpc.UNKNOWN and olds else text)


def _props(message: Struct, *, unknowns: bool = False) -> Props:
    return dict(rpc.deserialize_properties(message, unknowns))


def _struct(props: Mapping[str, Any] | None, provider: str) -> Struct:
    """Properties with their provider, as the state keeps them."""
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(rpc.serialize_properties({**(props or {}), PROVIDER_KEY: provider}, {}))
    finally:
        loop.close()


def _type(urn: str) -> str:
    """`urn:pulumi:STACK::PROJECT::PARENT$TYPE::NAME` → TYPE."""
    return urn.split("::")[2].rsplit("$", 1)[-1]


def _name(urn: str) -> str:
    return urn.rsplit("::", 1)[-1]
