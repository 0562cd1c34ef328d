"""Small Python language host: the engine starts it as `pulumi-language-python` where no official one is installed.

It serves the LanguageRuntime service on the messages of the `pulumi` package, and runs our program with the Python
that runs it (`runtime.options` is not read: Pulumi.yaml names no virtualenv). Enough for `pulumi preview`, `up`,
`refresh`, `destroy`, `about` and Python policy packs; not for `new`, `install`, `package add` or `convert`.
An official installation brings its own host, and Pulumi.yaml stays the same for both.
"""

# ruff: noqa: ARG002, N802 - names and arguments of the methods are the gRPC service's
from __future__ import annotations

import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent import futures
from importlib import metadata
from pathlib import Path
from typing import IO, Any, NoReturn

import grpc
from google.protobuf import empty_pb2, message_factory
from pulumi_protos import language_pb2 as lang
from pulumi_protos import language_pb2_grpc as lang_grpc
from pulumi_protos import plugin_pb2

# the message type of GetRequiredPackagesResponse.packages, wherever the installed package defines it
_packages = lang.GetRequiredPackagesResponse.DESCRIPTOR.fields_by_name["packages"]
PackageDependency = message_factory.GetMessageClass(_packages.message_type)

PYTHON = os.environ.get("PULUMI_PYTHON_CMD") or sys.executable
EXEC = "pulumi-language-python-exec"
BAIL = 32  # exit status of a program that failed after it had already reported why
MAX_MESSAGE_BYTES = 400 << 20  # the engine's own limit


class LanguageHost(lang_grpc.LanguageRuntimeServicer):
    """One method per call of the engine; `engine` is its address, passed on to the program."""

    def __init__(self, engine: str) -> None:
        self._engine = engine

    def Handshake(self, request: Any, context: Any) -> Any:
        return lang.LanguageHandshakeResponse()

    def GetPluginInfo(self, request: Any, context: Any) -> Any:
        return plugin_pb2.PluginInfo(version="0.1.0")

    def RuntimeOptionsPrompts(self, request: Any, context: Any) -> Any:
        return lang.RuntimeOptionsResponse()

    def About(self, request: Any, context: Any) -> Any:
        return lang.AboutResponse(executable=PYTHON, version=sys.version.split()[0])

    def GetProgramDependencies(self, request: Any, context: Any) -> Any:
        found = [lang.DependencyInfo(name=dist.name, version=dist.version) for dist in metadata.distributions()]
        return lang.GetProgramDependenciesResponse(dependencies=found)

    def GetRequiredPackages(self, request: Any, context: Any) -> Any:
        return lang.GetRequiredPackagesResponse(packages=list(plugin_packages()))

    def InstallDependencies(self, request: Any, context: Any) -> Iterator[Any]:
        """Nothing to install: `make setup` did."""
        yield lang.InstallDependenciesResponse(stdout=b"")

    def Run(self, request: Any, context: Any) -> Any:
        status = subprocess.call(
            program_command(request, self._engine), env=program_env(request), cwd=request.pwd or None
        )
        if status == 0:
            return lang.RunResponse()
        if status == BAIL:
            return lang.RunResponse(bail=True)
        return lang.RunResponse(error=f"program exited with non-zero exit code: {status}")

    def RunPlugin(self, request: Any, context: Any) -> Iterator[Any]:
        """A plugin written in Python, such as a policy pack; its output is passed on as it comes."""
        process = subprocess.Popen(
            plugin_command(request),
            cwd=request.pwd or None,
            env={**os.environ, **dict(pair.split("=", 1) for pair in request.env)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        context.add_callback(process.terminate)  # no effect on one that has ended
        for name, chunk in output_chunks(process):
            yield lang.RunPluginResponse(stdout=chunk) if name == "stdout" else lang.RunPluginResponse(stderr=chunk)
        yield lang.RunPluginResponse(exitcode=process.wait())

    def Cancel(self, request: Any, context: Any) -> Any:
        return empty_pb2.Empty()


def program_command(request: Any, engine: str) -> list[str]:
    info = request.info
    flags = {
        "monitor": request.monitor_address,
        "engine": engine,
        "project": request.project,
        "root_directory": info.root_directory,
        "pwd": request.pwd,
        "stack": request.stack,
        "dry_run": "true" if request.dryRun else "false",
        "parallel": str(request.parallel),
        "organization": request.organization,
    }
    words = [word for flag, value in flags.items() for word in (f"--{flag}", value)]
    program = str(Path(info.program_directory) / info.entry_point)
    return [PYTHON, "-u", exec_script(), *words, program, *request.args]


def program_env(request: Any) -> dict[str, str]:
    return {
        **os.environ,
        "no_grpc_proxy": "127.0.0.1,localhost",  # the program dials the engine, which a proxy could not reach
        "PULUMI_CONFIG": json.dumps(dict(request.config)),
        "PULUMI_CONFIG_SECRET_KEYS": json.dumps(list(request.configSecretKeys)),
    }


def plugin_command(request: Any) -> list[str]:
    info = request.info
    program = str(Path(info.program_directory) / info.entry_point) if info.program_directory else request.program
    if request.kind == "analyzer":
        return [PYTHON, "-u", "-m", "pulumi.policy", *request.args, program]
    return [PYTHON, "-u", "-m", "pulumi.run.plugin", program, *request.args]


def exec_script() -> str:
    """The program that runs a Pulumi program: from the environment, else beside this file, else on PATH."""
    beside = Path(__file__).resolve().parent / EXEC
    found = os.environ.get("PULUMI_PY_EXEC") or (str(beside) if beside.exists() else shutil.which(EXEC))
    if not found:
        raise RuntimeError(f"{EXEC} not found on PATH: run `make setup`")
    return found


def plugin_packages() -> Iterator[Any]:
    """Every installed distribution that carries a pulumi-plugin.json, used by the program or not."""
    for dist in metadata.distributions():
        for file in dist.files or []:
            if file.name != "pulumi-plugin.json":
                continue
            plugin = json.loads(Path(str(dist.locate_file(file))).read_text())
            if plugin.get("resource"):
                yield PackageDependency(
                    name=plugin.get("name"),
                    version="v" + (plugin.get("version") or dist.version),
                    kind="resource",
                    server=plugin.get("server") or "",
                )


def output_chunks(process: subprocess.Popen[bytes]) -> Iterator[tuple[str, bytes]]:
    """What a process writes, as ("stdout" or "stderr", bytes), until both are closed."""
    chunks: queue.Queue[tuple[str, bytes]] = queue.Queue()

    def pump(stream: IO[bytes], name: str) -> None:
        while chunk := os.read(stream.fileno(), 4096):
            chunks.put((name, chunk))
        chunks.put((name, b""))

    streams = {"stdout": process.stdout, "stderr": process.stderr}
    for name, stream in streams.items():
        threading.Thread(target=pump, args=(stream, name), daemon=True).start()
    still_open = len(streams)
    while still_open:
        name, chunk = chunks.get()
        if chunk:
            yield name, chunk
        else:
            still_open -= 1


def leave(*_: object) -> NoReturn:
    if os.getpgrp() == os.getpid():  # a program still running holds our pipes open, and the engine would wait for it
        os.killpg(0, signal.SIGKILL)
    os._exit(0)


def main() -> None:
    # Plugins run in process groups of their own: Ctrl-C does not come here. The engine sends SIGINT when it is done
    # with a plugin and waits 5 s for it to go, so leave at once.
    signal.signal(signal.SIGINT, leave)
    engine = next((word for word in sys.argv[1:] if not word.startswith("-")), "")
    server = grpc.server(
        futures.ThreadPoolExecutor(16), options=[("grpc.max_receive_message_length", MAX_MESSAGE_BYTES)]
    )
    lang_grpc.add_LanguageRuntimeServicer_to_server(LanguageHost(engine), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    main()
