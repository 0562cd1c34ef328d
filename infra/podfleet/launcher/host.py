"""The gRPC server that the engine talks to: calls go to worker threads, Cancel is answered at once, the end is orderly.

The engine starts this process, reads the port from its stdout, and holds its stdin open for as long as it lives. It
says Cancel at the first Ctrl-C, sends SIGINT when it is done with us, and says nothing when it is killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any

import grpc
import structlog
from google.protobuf import empty_pb2
from google.protobuf.message import Message
from pulumi.runtime._grpc_settings import _GRPC_CHANNEL_OPTIONS
from pulumi.runtime.proto import plugin_pb2
from pulumi.runtime.proto import provider_pb2 as wire

from podfleet.errors import ConfigError, PodfleetError
from podfleet.launcher.pickled import Providers, set_up_thread
from podfleet.launcher.verbs import Verbs
from podfleet.providers.runpod.engine import EngineWatch, watch_engine
from podfleet.providers.runpod.stopping import STOPPING, Stopping

log = structlog.get_logger()
SERVICE = "pulumirpc.ResourceProvider"
WORKERS_VARIABLE = "PODFLEET_DYNAMIC_WORKERS"
DEFAULT_WORKERS, MOST_WORKERS = 64, 1024
QUICK_WORKERS = 4  # for what only computes: it does not queue behind pods that boot
ANSWER_S = 5.0  # for the last answers to be sent
WATCH_S = 2.0  # between two looks for the engine
CLOSED_WATCH_S = 0.2  # once it has closed our stdin: then it is most likely gone
NO_SCHEMA = "dynamic resources have no schema; what was imported is imported: use --generate-code=false"
Handler = Callable[[Any, grpc.aio.ServicerContext], Awaitable[Message]]


def workers_from(environ: Mapping[str, str]) -> int:
    """How many operations at once. Raises ConfigError."""
    text = environ.get(WORKERS_VARIABLE) or str(DEFAULT_WORKERS)
    if text.isascii() and text.isdigit() and 1 <= int(text) <= MOST_WORKERS:
        return int(text)
    raise ConfigError(f"{WORKERS_VARIABLE} is {text!r}: it can be 1 to {MOST_WORKERS}")


def serve() -> int:
    """Until the engine is done with us or gone. The exit status."""
    return asyncio.run(Host(workers_from(os.environ), watch_engine(), STOPPING).run())


class Host:
    """One server, one engine."""

    def __init__(self, workers: int, engine: EngineWatch, stopping: Stopping) -> None:
        self._engine = engine
        self._stopping = stopping
        self._workers = ThreadPoolExecutor(workers, "operation", set_up_thread)
        self._quick = ThreadPoolExecutor(QUICK_WORKERS, "quick", set_up_thread)
        self._verbs = Verbs(Providers(), stopping)
        self._at_work = 0
        self._leaving = False
        self._over = asyncio.Event()

    async def run(self) -> int:
        server = grpc.aio.server(options=_GRPC_CHANNEL_OPTIONS)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, self._methods()),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._leave, "the engine has closed it")
        sys.stdout.write(f"{port}\n")
        sys.stdout.flush()
        watching = asyncio.create_task(self._watch())
        await self._over.wait()
        watching.cancel()
        await server.stop(ANSWER_S)
        sys.stderr.flush()
        os._exit(0)  # threads that read a log or a closed stdin have nothing to finish

    def _methods(self) -> dict[str, grpc.RpcMethodHandler]:
        """What is not in this table is UNIMPLEMENTED for the engine, which knows what that means."""
        verbs, slow, quick = self._verbs, self._workers, self._quick
        table: dict[str, tuple[Handler, type[Message]]] = {
            "Configure": (self._in(quick, verbs.configure), wire.ConfigureRequest),
            "Check": (self._in(quick, verbs.check), wire.CheckRequest),
            "Diff": (self._in(quick, verbs.diff), wire.DiffRequest),
            "Create": (self._in(slow, verbs.create), wire.CreateRequest),
            "Read": (self._in(slow, verbs.read), wire.ReadRequest),
            "Update": (self._in(slow, verbs.update), wire.UpdateRequest),
            "Delete": (self._in(slow, verbs.delete), wire.DeleteRequest),
            "Cancel": (self._cancel, empty_pb2.Empty),
            "GetPluginInfo": (_plugin_info, empty_pb2.Empty),
            "GetSchema": (_no_schema, wire.GetSchemaRequest),
        }
        return {
            name: grpc.unary_unary_rpc_method_handler(handler, request.FromString, _to_bytes)
            for name, (handler, request) in table.items()
        }

    def _in(self, threads: Executor, verb: Callable[[Any], Message]) -> Handler:
        """A handler that runs `verb` in one of `threads`; what it raises becomes one line for the engine."""

        async def handle(request: Any, context: grpc.aio.ServicerContext) -> Message:
            self._at_work += 1
            try:
                # shielded: an engine that hangs up must not make us forget a POST that is on its way
                work = asyncio.get_running_loop().run_in_executor(threads, verb, request)
                work.add_done_callback(self._done)
                return await asyncio.shield(work)
            except PodfleetError as error:
                await context.abort(grpc.StatusCode.UNKNOWN, str(error))
            except Exception as error:  # the outermost loop of an operation
                log.exception("operation.failed")
                await context.abort(grpc.StatusCode.UNKNOWN, f"{type(error).__name__}: {error}")
            raise AssertionError("unreachable: abort raises")

        return handle

    def _done(self, work: asyncio.Future[Message]) -> None:
        self._at_work -= 1
        if not work.cancelled():
            work.exception()  # nobody may be there any more to fetch it
        if self._leaving and not self._at_work:
            self._over.set()

    async def _cancel(self, _request: Any, _context: grpc.aio.ServicerContext) -> Message:
        self._stopping.ask("the update was cancelled")
        return empty_pb2.Empty()

    def _leave(self, why: str) -> None:
        """Begin nothing more; go when what was begun is finished."""
        self._stopping.ask(why)
        self._leaving = True
        if not self._at_work:
            self._over.set()

    async def _watch(self) -> None:
        """Leave when the engine is gone: its end of our stdin closes, its port does, our parent is another."""
        closed = asyncio.Event()
        loop = asyncio.get_running_loop()
        threading.Thread(target=_read_to_end, args=(loop, closed), daemon=True).start()
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(closed.wait(), WATCH_S)
                await asyncio.sleep(CLOSED_WATCH_S)
            if not await loop.run_in_executor(self._quick, self._engine.alive):
                self._leave("the engine is gone")
                return


def _read_to_end(loop: asyncio.AbstractEventLoop, closed: asyncio.Event) -> None:
    with contextlib.suppress(OSError):
        while os.read(0, 4096):
            pass
    loop.call_soon_threadsafe(closed.set)


async def _plugin_info(_request: Any, _context: grpc.aio.ServicerContext) -> Message:
    return plugin_pb2.PluginInfo(version="0.1.0")


async def _no_schema(_request: Any, context: grpc.aio.ServicerContext) -> Message:
    """Only `pulumi import` asks, once it has imported, to write program text for what the program has already."""
    await context.abort(grpc.StatusCode.UNIMPLEMENTED, NO_SCHEMA)
    raise AssertionError("unreachable: abort raises")


def _to_bytes(message: Message) -> bytes:
    return bytes(message.SerializeToString())
