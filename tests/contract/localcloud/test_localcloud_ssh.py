"""SSH into pods with real clients: pinned host key, key login, commands, files, and who is kept out."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from localcloud.testing import RunningCloud, wait_until

Create = Callable[..., dict[str, Any]]


class Login:
    """A key pair, and a connection to one pod with its pinned host key."""

    def __init__(self, cloud: RunningCloud, create: Create, **more: Any) -> None:
        self.key = asyncssh.generate_private_key("ssh-ed25519")
        public = self.key.export_public_key().decode()
        more["env"] = {"PUBLIC_KEY": public, "PODFLEET_UID": "u", **more.get("env", {})}
        self.pod_id = str(create(ports=["22/tcp"], **more)["id"])
        self.port = int(cloud.wait_for_event("pod.started", pod_id=self.pod_id)["ssh_port"])
        self.root = cloud.folder / "pods" / self.pod_id
        self.host_key = (self.root / "etc/ssh/ssh_host_ed25519_key.pub").read_text("utf-8")

    def run(self, use: Callable[[asyncssh.SSHClientConnection], Awaitable[Any]], **more: Any) -> Any:
        async def session() -> Any:
            known = asyncssh.import_known_hosts(f"[127.0.0.1]:{self.port} {self.host_key}")
            options = {"username": "root", "client_keys": [self.key], "known_hosts": known, **more}
            async with asyncssh.connect("127.0.0.1", self.port, **options) as connection:
                return await use(connection)

        return asyncio.run(session())


def until_listening(login: Login) -> None:
    def probe() -> bool:
        try:
            login.run(lambda connection: connection.run("true"))
        except ConnectionRefusedError:
            return False
        return True

    wait_until(probe, what="sshd")


def test_a_command_has_the_pod_s_folder_the_image_s_environment_and_its_exit_code(
    cloud: RunningCloud, create: Create
) -> None:
    login = Login(cloud, create)
    until_listening(login)
    done = login.run(lambda connection: connection.run("pwd; env; cat; echo oops >&2; exit 7", input="by stdin"))
    assert done.exit_status == 7
    assert done.stderr == "oops\n"
    first, *rest = done.stdout.splitlines()
    assert first == str(login.root)
    env = dict(line.split("=", 1) for line in rest if "=" in line)
    assert rest[-1] == "by stdin"
    assert set(env) - {"PWD", "SHLVL", "_", "OLDPWD"} == {"PATH", "HOME", "LANG", "PODFLEET_ROOT", "TMPDIR"}
    assert env["PODFLEET_ROOT"] == env["HOME"] == str(login.root)
    command = "pwd; env; cat; echo oops >&2; exit 7"
    assert cloud.wait_for_event("ssh.exec", command=command)["pod_id"] == login.pod_id
    assert cloud.wait_for_event("ssh.exit", command=command)["rc"] == 7


def test_a_megabyte_of_output_arrives_whole_and_a_left_over_process_holds_nothing_up(
    cloud: RunningCloud, create: Create
) -> None:
    login = Login(cloud, create)
    until_listening(login)
    done = login.run(lambda connection: connection.run("sleep 300 & head -c 1000000 /dev/zero | tr '\\0' x; echo $!"))
    assert len(done.stdout) > 1_000_000
    left_over = int(done.stdout.lstrip("x"))
    assert Path(f"/proc/{left_over}").exists()
    with cloud.client() as api:
        api.delete(f"/v2/pods/{login.pod_id}")
    wait_until(lambda: not Path(f"/proc/{left_over}").exists(), what="end of what the session left")


def test_files_go_into_the_pod_s_folder_and_not_beyond(cloud: RunningCloud, create: Create, tmp_path: Path) -> None:
    login = Login(cloud, create)
    until_listening(login)
    source = tmp_path / "wheel.whl"
    source.write_bytes(b"\0wheel")

    async def upload(connection: asyncssh.SSHClientConnection) -> None:
        async with connection.start_sftp_client() as sftp:
            await sftp.put(str(source), "tmp/one.whl")
            await sftp.put(str(source), "/tmp/two.whl")
            await sftp.put(str(source), "../../three.whl")
        await asyncssh.scp(str(source), (connection, "tmp/four.whl"))

    login.run(upload)
    for name in ("tmp/one.whl", "tmp/two.whl", "three.whl", "tmp/four.whl"):
        assert (login.root / name).read_bytes() == b"\0wheel"


@pytest.mark.parametrize("wrong", ["user", "key", "password"])
def test_only_root_with_the_pod_s_key_gets_in(cloud: RunningCloud, create: Create, wrong: str) -> None:
    login = Login(cloud, create)
    until_listening(login)
    more: dict[str, Any] = {
        "user": {"username": "ubuntu"},
        "key": {"client_keys": [asyncssh.generate_private_key("ssh-ed25519")]},
        "password": {"client_keys": None, "password": "root"},
    }[wrong]
    with pytest.raises(asyncssh.PermissionDenied):
        login.run(lambda connection: connection.run("true"), **more)


def test_without_a_key_in_its_environment_a_pod_lets_nobody_in(cloud: RunningCloud, create: Create) -> None:
    login = Login(cloud, create, env={"PUBLIC_KEY": "null"})
    with pytest.raises(asyncssh.PermissionDenied):
        until_listening(login)


def test_an_impostor_answers_with_another_host_key(cloud: RunningCloud, create: Create) -> None:
    cloud.settings(ssh_impostor_names=["evil"])
    with pytest.raises(asyncssh.HostKeyNotVerifiable):
        until_listening(Login(cloud, create, name="evil-twin"))


def test_sshd_answers_only_some_time_after_running(cloud: RunningCloud, create: Create) -> None:
    cloud.settings(ssh_s=0.6)
    login = Login(cloud, create)
    with pytest.raises(ConnectionRefusedError):
        login.run(lambda connection: connection.run("true"))
    until_listening(login)


def test_a_restarted_pod_has_another_host_key_and_its_old_port_is_closed(cloud: RunningCloud, create: Create) -> None:
    login = Login(cloud, create)
    until_listening(login)
    with cloud.client() as api:
        api.post(f"/v2/pods/{login.pod_id}/action", json={"action": "restart"})
    wait_until(lambda: len(cloud.events("pod.started")) == 2, what="second start")
    assert (login.root / "etc/ssh/ssh_host_ed25519_key.pub").read_text("utf-8") != login.host_key
    with pytest.raises(ConnectionRefusedError):
        login.run(lambda connection: connection.run("true"))


def test_the_old_port_of_a_process_that_exited_is_closed(cloud: RunningCloud, create: Create) -> None:
    cloud.settings(restart_backoff_s=60)
    login = Login(cloud, create, cmd=["-c", "while ! test -e tmp/end; do sleep 0.05; done"])
    until_listening(login)
    login.run(lambda connection: connection.run("touch tmp/end"))
    cloud.wait_for_event("pod.exited", pod_id=login.pod_id)

    def refused() -> bool:
        try:
            login.run(lambda connection: connection.run("true"))
        except (OSError, asyncssh.Error):
            return True
        return False

    wait_until(refused, what="end of sshd")
