"""The drain over real SSH: many pods at once, one deadline, and nobody waits for a pod that cannot be told."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import asyncssh
import pytest

from podfleet.errors import ApiUnavailable
from podfleet.providers.runpod import drain as drain_module
from podfleet.providers.runpod.drain import Drain, find_host_key
from podfleet.providers.runpod.wire import LogLine, PodView, SshAddress

HOST_KEY = asyncssh.generate_private_key("ssh-ed25519")
OTHER_KEY = asyncssh.generate_private_key("ssh-ed25519")


@dataclass
class FakeNode:
    """What `podfleet-node drain` does on the far side: takes `takes_s`, then exits with `code`."""

    takes_s: float = 0.0
    code: int = 0
    stdout: str = ""
    commands: list[str] = field(default_factory=list)

    async def run(self, process: asyncssh.SSHServerProcess[str]) -> None:
        self.commands.append(process.command or "")
        await asyncio.sleep(self.takes_s)
        process.stdout.write(self.stdout)
        process.exit(self.code)


Serve = Callable[[FakeNode], int]


@pytest.fixture
def serve(ssh_key: tuple[str, str]) -> Iterator[Serve]:
    """Starts an sshd per node in one background loop; returns its port."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    servers: list[asyncssh.SSHAcceptor] = []

    async def listen(node: FakeNode) -> asyncssh.SSHAcceptor:
        keys = asyncssh.import_authorized_keys(ssh_key[1])
        return await asyncssh.listen(
            "127.0.0.1", 0, server_host_keys=[HOST_KEY], authorized_client_keys=keys, process_factory=node.run
        )

    def start(node: FakeNode) -> int:
        servers.append(asyncio.run_coroutine_threadsafe(listen(node), loop).result(10))
        return int(servers[-1].get_port())

    async def stop() -> None:
        for server in servers:
            server.close()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    yield start
    asyncio.run_coroutine_threadsafe(stop(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def pod(number: int, port: int | None, status: str = "RUNNING") -> PodView:
    ssh = SshAddress("127.0.0.1", port, "root") if port else None
    return PodView(f"pod{number}", f"p-dev-slot-{number:02}-0badcafe", status, ssh=ssh)


def key_line(key: asyncssh.SSHKey = HOST_KEY) -> LogLine:
    return LogLine("t", "container", f"podfleet-node host-key {key.export_public_key().decode().strip()}")


def drain(ssh_key: tuple[str, str], *, deadline_s: float = 30.0, key: asyncssh.SSHKey = HOST_KEY) -> Drain:
    return Drain(lambda _id, _tail: [key_line(key)], private_key=ssh_key[0], deadline_s=deadline_s)


def test_many_pods_drain_at_the_same_time(serve: Serve, ssh_key: tuple[str, str]) -> None:
    nodes = [FakeNode(takes_s=1.0, stdout='{"drained": true, "released": 2, "finished": 1}') for _ in range(6)]
    pods = [pod(number, serve(node)) for number, node in enumerate(nodes)]
    started = time.monotonic()
    outcomes = drain(ssh_key).run(pods)
    assert time.monotonic() - started < 5
    assert all(outcome.told for outcome in outcomes)
    assert {outcome.text for outcome in outcomes} == {"drained, 1 finished, 2 given back"}
    assert nodes[0].commands[0].startswith("podfleet-node drain --deadline-s ")


@pytest.mark.parametrize(
    ("code", "told", "text"), [(3, True, "deadline passed"), (4, False, "no node running"), (127, False, "status 127")]
)
def test_what_the_node_answers_is_told(
    serve: Serve, ssh_key: tuple[str, str], code: int, told: bool, text: str
) -> None:
    (outcome,) = drain(ssh_key).run([pod(1, serve(FakeNode(code=code)))])
    assert outcome.told is told
    assert text in outcome.text


def test_the_deadline_ends_a_drain_that_hangs(
    serve: Serve, ssh_key: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drain_module, "RELEASE_S", 0.2)
    started = time.monotonic()
    (outcome,) = drain(ssh_key, deadline_s=1.0).run([pod(1, serve(FakeNode(takes_s=60)))])
    assert time.monotonic() - started < 5
    assert not outcome.told


def test_a_pod_that_cannot_be_told_holds_up_no_other(
    serve: Serve, ssh_key: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drain_module, "CONNECT_S", 1.0)
    silent = asyncio.run(_silent_port())
    pods = [pod(1, serve(FakeNode())), pod(2, silent), pod(3, None), pod(4, 1, "STARTING")]
    started = time.monotonic()
    outcomes = {outcome.pod_id: outcome for outcome in drain(ssh_key).run(pods)}
    assert time.monotonic() - started < 5
    assert outcomes["pod1"].told
    assert [outcomes[f"pod{n}"].told for n in (2, 3, 4)] == [False, False, False]


async def _silent_port() -> int:
    """Nobody listens here any more."""
    server = await asyncio.start_server(lambda _r, _w: None, "127.0.0.1", 0)
    port: int = server.sockets[0].getsockname()[1]
    server.close()
    return port


def test_another_host_key_is_told_nothing(serve: Serve, ssh_key: tuple[str, str]) -> None:
    node = FakeNode()
    (outcome,) = drain(ssh_key, key=OTHER_KEY).run([pod(1, serve(node))])
    assert not outcome.told
    assert node.commands == []


def test_without_a_key_or_with_a_bad_one_the_end_goes_on(serve: Serve, ssh_key: tuple[str, str]) -> None:
    pods = [pod(1, serve(FakeNode()))]
    for key in ("", "no PEM"):
        (outcome,) = Drain(lambda _i, _t: [key_line()], private_key=key, deadline_s=5).run(pods)
        assert not outcome.told


def test_a_log_that_answers_late_is_read_again(serve: Serve, ssh_key: tuple[str, str]) -> None:
    answers = [[], [key_line()]]
    (outcome,) = Drain(lambda _i, _t: answers.pop(0) if answers else [], private_key=ssh_key[0], deadline_s=5).run(
        [pod(1, serve(FakeNode()))]
    )
    assert outcome.told


def test_logs_that_cannot_be_read_are_no_obstacle(ssh_key: tuple[str, str]) -> None:
    def fail(_id: str, _tail: int) -> list[LogLine]:
        raise ApiUnavailable("down")

    (outcome,) = Drain(fail, private_key=ssh_key[0], deadline_s=5, ssh_answers=lambda _: True).run([pod(1, 22)])
    assert not outcome.told
    assert outcome.text == "no logs: down"


def test_the_last_host_key_in_the_log_counts() -> None:
    lines = [key_line(OTHER_KEY), LogLine("t", "container", "work"), key_line(HOST_KEY)]
    assert find_host_key(lines) == HOST_KEY.export_public_key().decode().strip()
    assert find_host_key([]) == ""
