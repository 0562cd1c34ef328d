"""Stand-in for the `command` plugin: local.Command, remote.Command, remote.CopyToRemote. A test double.

Behaves as measured with the real plugin, with these differences: no asset_paths and archive_paths, no CopyFile, no
functions, output is logged when a command has ended, and a refused environment variable goes unnoticed.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import subprocess
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from google.protobuf.struct_pb2 import Struct, Value
from standin import PluginError, StandIn, plains, with_values

if TYPE_CHECKING:
    import asyncssh

RUN = {"create", "update", "delete", "stdin", "environment", "triggers", "logging", "addPreviousOutputInEnv"}
LOCAL, REMOTE, COPY = "command:local:Command", "command:remote:Command", "command:remote:CopyToRemote"
FIRST_WAIT_S, LONGEST_WAIT_S = 0.1, 5.0
DIAL_LIMIT, DIAL_TIMEOUT_S = 10, 15

Ended = tuple[int, str, str]
"""Exit status, stdout, stderr."""


class Command(StandIn):
    package, version = "command", "1.2.1"
    inputs = {  # noqa: RUF012 - typed in the base class
        LOCAL: RUN | {"dir", "interpreter"},
        REMOTE: RUN | {"connection"},
        COPY: {"connection", "source", "remotePath", "triggers"},
    }
    replace_on = {LOCAL: {"triggers"}, REMOTE: {"triggers"}, COPY: {"triggers"}}  # noqa: RUF012

    def create(self, request: Any) -> tuple[str, Struct]:
        created = self._perform(request, request.properties, Struct(), "create")
        return request.name + secrets.token_hex(4), created

    def update(self, request: Any) -> Struct:
        verb = "update" if plains(request.news).get("update") else "create"
        return self._perform(request, request.news, request.olds, verb)

    def delete(self, request: Any) -> None:
        if request.type != COPY and plains(request.properties).get("delete"):
            self._perform(request, request.properties, request.properties, "delete")

    def _perform(self, request: Any, new: Struct, old: Struct, verb: str) -> Struct:
        wanted, before = plains(new), plains(old)
        if request.type == COPY:
            asyncio.run(self._copy(request.urn, wanted, new.fields["source"]))
            return new
        command = wanted.get(verb)
        if not command:
            return with_values(new, {key: before.get(key) or "" for key in ("stdout", "stderr")})
        env = dict(wanted.get("environment") or {})
        if before and wanted.get("addPreviousOutputInEnv", True):
            env |= {f"PULUMI_COMMAND_{key.upper()}": before.get(key) or "" for key in ("stdout", "stderr")}
        if request.type == LOCAL:
            code, out, err = run_local(command, wanted, env)
        else:
            code, out, err = asyncio.run(self._run_remote(request.urn, command, wanted, env))
        self._show(request.urn, wanted.get("logging", "stdoutAndStderr"), out, err)
        if code:
            raise PluginError(f"Process exited with status {code}: running {command!r}:\n{out}{err}")
        return with_values(new, {"stdout": out.removesuffix("\n"), "stderr": err.removesuffix("\n")})

    def _show(self, urn: str, logging: str, out: str, err: str) -> None:
        for name, text in (("stdout", out), ("stderr", err)):
            if text.strip() and name in logging.lower():
                self.log(urn, text.rstrip("\n"))

    async def _run_remote(self, urn: str, command: str, wanted: dict[str, Any], env: dict[str, str]) -> Ended:
        async with await self._connect(urn, wanted["connection"]) as ssh:
            done = await ssh.run(command, input=wanted.get("stdin") or "", env=env)
        code = done.returncode if done.returncode is not None else -1
        return code, str(done.stdout or ""), str(done.stderr or "")

    async def _copy(self, urn: str, wanted: dict[str, Any], source: Value) -> None:
        fields, target = source.struct_value.fields, wanted["remotePath"]
        async with await self._connect(urn, wanted["connection"]) as ssh, ssh.start_sftp_client() as sftp:
            await sftp.makedirs(str(PurePosixPath(target).parent), exist_ok=True)
            if "text" in fields:
                async with sftp.open(target, "w") as file:
                    await file.write(fields["text"].string_value)
            elif "path" in fields:
                await sftp.put(fields["path"].string_value, target, recurse=True)
            else:
                raise PluginError("only file and string assets are served by this stand-in")

    async def _connect(self, urn: str, connection: dict[str, Any]) -> asyncssh.SSHClientConnection:
        """Dial until it works: waits grow from 0.1 s to 5 s; every kind of failure counts, as in the real plugin."""
        import asyncssh  # only here: it takes 0.4 s, and most starts of this plugin never dial

        tunnel = await self._connect(urn, connection["proxy"]) if connection.get("proxy") else None
        limit = int(connection.get("dialErrorLimit", DIAL_LIMIT))
        timeout_s = connection.get("perDialTimeout", DIAL_TIMEOUT_S)
        wait_s, failed = FIRST_WAIT_S, 0
        while True:
            try:
                return await asyncio.wait_for(dial(connection, tunnel), timeout_s or None)
            except (OSError, asyncssh.Error, TimeoutError) as error:
                failed += 1
                if self.cancelled or 0 <= limit <= failed:
                    raise PluginError(f"after {failed} failed attempts: {told(error)}") from error
                self.log(urn, f"Dial {failed}/{limit if limit >= 0 else 'inf'} failed: retrying", fleeting=True)
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 1.5, LONGEST_WAIT_S)


async def dial(connection: dict[str, Any], tunnel: asyncssh.SSHClientConnection | None) -> asyncssh.SSHClientConnection:
    """One attempt. Only what the resource says counts: no ~/.ssh/config, no default keys, no known_hosts file."""
    import asyncssh

    pinned, key = connection.get("hostKey"), connection.get("privateKey")
    keys = [asyncssh.import_private_key(key, connection.get("privateKeyPassword"))] if key else None
    return await asyncssh.connect(
        connection["host"],
        port=int(connection.get("port") or 22),
        username=connection.get("user") or "root",
        client_keys=keys,
        password=connection.get("password"),
        agent_path=connection.get("agentSocketPath") or os.environ.get("SSH_AUTH_SOCK"),
        known_hosts=([asyncssh.import_public_key(pinned)], [], []) if pinned else None,  # None: not checked at all
        config=None,
        tunnel=tunnel,
    )


def told(error: Exception) -> str:
    """The words of the real plugin (Go's SSH client) where they were measured, else those of the error."""
    import asyncssh

    if isinstance(error, asyncssh.HostKeyNotVerifiable):
        return "ssh: handshake failed: ssh: host key mismatch"
    if isinstance(error, asyncssh.PermissionDenied):
        return "ssh: handshake failed: ssh: unable to authenticate"
    return str(error) or type(error).__name__


def run_local(command: str, wanted: dict[str, Any], env: dict[str, str]) -> Ended:
    words = [*(wanted.get("interpreter") or ["/bin/sh", "-c"]), command]
    done = subprocess.run(
        words,
        input=(wanted.get("stdin") or "").encode(),
        capture_output=True,
        cwd=wanted.get("dir"),
        env={**os.environ, **env},
        check=False,
    )
    return done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")


if __name__ == "__main__":
    Command.main()
