"""`podfleet sweep` without an engine: the stand-in cloud, a real queue server, a state as the engine writes it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from localcloud.testing import RunningCloud, wait_until
from podfleet import processes
from podfleet.podspec import secret_name
from podfleet_queue.testing import RunningQueue
from podfleet_queue.testing import running as running_queue

STACK, UID, PREFIX = "dev", "dev-00000001", "podfleet-dev-"
FOREIGN = "dev-ffffffff"
ENGINELESS = "/nonexistent"
SILENCE_S = 3.0
COMMAND = str(Path(sys.executable).parent / "podfleet")


@dataclass
class Site:
    """A checkout with one stack, on a machine without an engine; the state is in a folder beside it."""

    root: Path
    cloud: RunningCloud
    queue_url: str
    config: dict[str, Any] = field(default_factory=dict)

    @property
    def checkpoint(self) -> Path:
        return self.root / "state" / ".pulumi" / "stacks" / "podfleet" / f"{STACK}.json"

    def lay(self, **more: Any) -> None:
        minutes = {"sweepMinAgeMinutes": 0, "sweepLooksApartMinutes": 0.003, "reachableDeadlineMinutes": 0.0001}
        minutes |= {"heartbeatSilenceMinutes": SILENCE_S / 60, "bootstrapDeadlineMinutes": 0.0001}
        self.config = {
            "uid": UID,
            "image": "example/podfleet:1",
            "gpuTypes": ["NVIDIA L4"],
            "bootstrap": "none",
            "queueUrl": self.queue_url,
            "runpodUrl": self.cloud.runpod_url,
            "tailscaleUrl": self.cloud.tailscale_url,
            "backendUrl": f"file://{self.root / 'state'}",
            "absenceIntervalSeconds": 0.1,
            "pollIntervalSeconds": 0.1,
            "drainDeadlineSeconds": 1,
            **minutes,
            **more,
        }
        (self.root / "stacks").mkdir(parents=True, exist_ok=True)
        (self.root / "Pulumi.yaml").write_text("name: podfleet\nruntime: python\nstackConfigDir: stacks\n")
        values = {f"podfleet:{key}": value for key, value in self.config.items()}
        (self.root / "stacks" / f"Pulumi.{STACK}.yaml").write_text(yaml.safe_dump({"config": values}))

    def rent(self, slot: int = 1, *, uid: str = UID, name: str = "", **env: str) -> str:
        """A pod, as our provider would rent it; its id."""
        body = {
            "name": name or f"{PREFIX}slot-{slot:02}-0badcafe",
            "image": "example/podfleet:1",
            "gpu": {"id": "NVIDIA L4", "count": 1},
            "env": {"PODFLEET_UID": uid, **env},
        }
        with self.cloud.client() as client:
            return str(client.post("/v2/pods", json=body).raise_for_status().json()["id"])

    def knows(self, *ids: str, uid: str = UID, names: tuple[str, ...] = ()) -> None:
        """Write the state as an engine would have."""
        guard = {"type": "pulumi-python:dynamic/runpod:Guard", "id": f"guard-{uid}", "urn": "u::guard"}
        kind = "pulumi-python:dynamic/runpod:Pod"
        pods = [{"type": kind, "id": pod, "urn": f"u::{pod}", "outputs": {}} for pod in ids]
        named = [{"type": "t", "id": name, "urn": f"u::{name}", "outputs": {"name": name}} for name in names]
        resources = [{**guard, "outputs": {"uid": uid, "wanted": []}}, *pods, *named]
        self.checkpoint.parent.mkdir(parents=True, exist_ok=True)
        self.checkpoint.write_text(json.dumps({"version": 3, "checkpoint": {"latest": {"resources": resources}}}))

    def lock(self, pid: int) -> None:
        folder = self.root / "state" / ".pulumi" / "locks" / "organization" / "podfleet" / STACK
        folder.mkdir(parents=True, exist_ok=True)
        now = datetime.now(UTC).isoformat()
        lock = {"pid": pid, "username": "me", "hostname": processes.this_host(), "timestamp": now}
        (folder / "0.json").write_text(json.dumps(lock))

    def environ(self, **more: str) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if key in ("HOME", "LANG", "PYTHONPATH")}
        return {**kept, "PATH": ENGINELESS, "RUNPOD_API_KEY": self.cloud.api_key, **more}

    def sweep(self, *words: str, **env: str) -> tuple[int, list[dict[str, Any]], list[str]]:
        """Exit code, findings, notes."""
        done = self.run(*words, "--json", **env)
        try:
            said = json.loads(done.stdout)
        except ValueError:
            pytest.fail(f"{done.returncode}: {done.stdout}{done.stderr}")
        return done.returncode, said["found"], said["notes"]

    def run(self, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
        command = [COMMAND, "sweep", STACK, *words]
        return subprocess.run(
            command, cwd=self.root, env=self.environ(**env), capture_output=True, text=True, timeout=60, check=False
        )

    def ids(self) -> set[str]:
        return {pod["id"] for pod in self.cloud.live_pods()}

    def beat(self, slot: int = 1) -> Callable[[], None]:
        """Register a node of that pod's name; answers its heartbeat."""
        name = f"{PREFIX}slot-{slot:02}-0badcafe"
        row = httpx.post(f"{self.queue_url}/api/nodes/register", json={"name": name, "url": "http://x"}).json()
        url, headers = f"{self.queue_url}/api/nodes/{row['node_id']}/heartbeat", {"X-Transcriber-Key": row["api_key"]}

        def beat() -> None:
            httpx.post(url, json={}, headers=headers).raise_for_status()

        beat()
        return beat


@pytest.fixture(scope="module")
def queue(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningQueue]:
    with running_queue(tmp_path_factory.mktemp("queue"), offline_s=2.5) as server:
        yield server


@pytest.fixture
def site(cloud: RunningCloud, queue: RunningQueue, tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path / "site", cloud, queue.url)
    made.lay()
    yield made
    for row in httpx.get(f"{queue.url}/api/nodes").json()["nodes"]:
        httpx.delete(f"{queue.url}/api/nodes/{row['id']}")


def test_what_the_state_does_not_know_is_shown_with_its_price_and_ended_when_told_so(site: Site) -> None:
    known, lost = site.rent(1), site.rent(2)
    site.knows(known)
    code, found, _ = site.sweep()
    assert code == 3
    assert [(each["id"], each["reason"], each["orphan"]) for each in found] == [(lost, "not in the state", True)]
    assert (found[0]["usd_per_hr"], found[0]["usd_by_tomorrow"]) == (0.49, 11.76)
    assert site.ids() == {known, lost}, "nothing is ended without --yes"
    shown = site.run().stdout
    assert "not in the state" in shown
    assert "0.49" in shown
    assert "11.76" in shown
    code, found, _ = site.sweep("--yes")
    assert (code, [(each["id"], each["ended"]) for each in found]) == (0, [(lost, True)])
    assert site.ids() == {known}
    assert site.sweep("--yes")[:2] == (0, [])


def test_a_foreign_pod_is_never_touched(site: Site) -> None:
    foreign = {
        site.rent(1, uid=FOREIGN),
        site.rent(2, name="somebody-else-slot-01-0badcafe"),
        site.rent(3, uid="", PODFLEET_EXPIRES_AT_S="1"),
    }
    site.knows()
    assert site.sweep("--yes")[:2] == (0, [])
    assert site.ids() == foreign


def test_a_young_pod_is_left_alone(site: Site) -> None:
    site.lay(sweepMinAgeMinutes=15)
    young = site.rent(1)
    site.knows()
    assert site.sweep("--yes")[:2] == (0, [])
    assert site.ids() == {young}


def test_a_live_fleet_without_a_reconciler_and_without_a_state_is_left_alone(site: Site) -> None:
    pods = {site.rent(1), site.rent(2)}
    site.beat(1)
    site.beat(2)
    assert site.sweep("--yes")[:2] == (0, [])
    assert site.ids() == pods


def test_a_state_of_another_checkout_does_not_speak_for_this_fleet(site: Site) -> None:
    """A cron machine's own checkout has a state, too: an empty one."""
    pod = site.rent(1)
    site.beat(1)
    for uid in (FOREIGN, ""):
        site.knows(uid=uid)
        assert site.sweep("--yes")[:2] == (0, [])
        assert site.ids() == {pod}


def test_an_update_at_work_is_left_alone(site: Site) -> None:
    pods = {site.rent(1), site.rent(2, PODFLEET_EXPIRES_AT_S="1")}
    site.knows()
    site.lock(os.getpid())
    code, found, _ = site.sweep("--yes")
    assert code == 3
    assert all(each["reason"].endswith("; an update is at work") and not each["ended"] for each in found)
    assert len(found) == 2
    assert site.ids() == pods
    ended = subprocess.Popen(["true"])
    ended.wait()
    site.lock(ended.pid)
    code, found, _ = site.sweep("--yes")
    assert (code, len(found), site.ids()) == (0, 2, set()), "the lock of a dead process holds nobody up"


def test_a_silent_pod_is_an_orphan_where_no_state_can_be_read(site: Site) -> None:
    silent, loud = site.rent(1), site.rent(2)
    site.beat(1)
    beat = site.beat(2)
    limit_s = time.monotonic() + SILENCE_S + 1
    while time.monotonic() < limit_s:
        beat()
        time.sleep(0.2)
    code, found, _ = site.sweep("--yes")
    assert (code, [each["id"] for each in found], site.ids()) == (0, [silent], {loud})
    assert found[0]["reason"].startswith("no heartbeat for 0 min; state not readable (there is no state of this stack")


def test_a_pod_that_nobody_can_see_is_shown_and_not_ended(site: Site) -> None:
    pod = site.rent(1)
    site.lay(queueUrl="http://127.0.0.1:9")
    code, found, notes = site.sweep("--yes")
    assert (code, [each["orphan"] for each in found], site.ids()) == (3, [False], {pod})
    assert "nor heartbeats (http://127.0.0.1:9/api/nodes: " in found[0]["reason"]
    assert any(note.startswith("node registrations: not looked at (") for note in notes)


def test_past_its_lifetime_a_pod_needs_no_other_witness(site: Site) -> None:
    """In the state, heard by the server, and still alive: its own fuse did not work."""
    past = str(int(time.time()) - 7200)
    pod = site.rent(1, PODFLEET_EXPIRES_AT_S=past)
    later = site.rent(2, PODFLEET_EXPIRES_AT_S=str(int(time.time()) + 600))
    site.knows(pod, later)
    site.beat(1)
    code, found, _ = site.sweep("--yes")
    assert (code, site.ids()) == (0, {later})
    assert found[0]["reason"] == "past its lifetime for 2.0 h"


def test_a_list_that_fails_is_an_error_and_ends_nothing(site: Site) -> None:
    pod = site.rent(1)
    site.knows()
    site.cloud.fault("pods.list", "status", status=500, times=100)
    done = site.run("--yes")
    site.cloud.release()
    assert (done.returncode, done.stdout, site.ids()) == (1, "", {pod})
    assert done.stderr.startswith("podfleet: RunPod says 500")


def test_a_pod_that_will_not_go_is_said_to_be_there(site: Site) -> None:
    pod = site.rent(1)
    site.knows()
    site.cloud.fault("pods.delete", "status", status=403, times=100)
    code, found, notes = site.sweep("--yes")
    site.cloud.release()
    assert (code, [each["ended"] for each in found], site.ids()) == (3, [False], {pod})
    assert any("not ended: RunPod says 403" in note for note in notes)


def test_rows_of_nodes_whose_pod_is_gone_go_too(site: Site) -> None:
    pod = site.rent(1)
    site.knows(pod)
    site.beat(1)
    site.beat(2)
    for name in ("podfleet-dev-eu-slot-01-0badcafe", "somebodys-node"):
        httpx.post(f"{site.queue_url}/api/nodes/register", json={"name": name, "url": "http://x"}).raise_for_status()
    assert site.sweep("--yes")[:2] == (0, []), "while it is heard it stays, pod or not"
    wait_until(lambda: all(row["status"] == "offline" for row in rows(site)), timeout_s=10)
    code, found, _ = site.sweep("--yes")
    assert code == 0
    assert [(each["kind"], each["name"], each["ended"]) for each in found] == [
        ("node", f"{PREFIX}slot-02-0badcafe", True)
    ]
    assert f"{PREFIX}slot-02-0badcafe" not in {row["name"] for row in rows(site)}
    assert len(rows(site)) == 3


def rows(site: Site) -> list[dict[str, Any]]:
    return list(httpx.get(f"{site.queue_url}/api/nodes").json()["nodes"])


def test_devices_that_are_long_offline_leave_the_tailnet(site: Site) -> None:
    site.lay(tailnet="-")
    site.knows(site.rent(1))
    code, found, notes = site.sweep("--yes")
    assert (code, found, notes) == (0, [], ["tailnet devices: not looked at (TAILSCALE_API_KEY is not set)"])
    long_ago = (datetime.now(UTC) - timedelta(hours=5)).isoformat()
    ours: dict[str, Any] = {"tags": ["tag:runpod"], "connectedToControl": False, "lastSeen": long_ago}
    gone = {**ours, "hostname": f"{PREFIX}slot-02-0badcafe-1"}
    kept: list[dict[str, Any]] = [
        {**ours, "hostname": f"{PREFIX}slot-01-0badcafe"},  # its pod is there
        {**gone, "tags": ["tag:other"]},
        {**gone, "hostname": "podfleet-other-slot-02-0badcafe"},
        {**gone, "connectedToControl": True},
        {**gone, "lastSeen": datetime.now(UTC).isoformat()},
    ]
    with httpx.Client(base_url=site.cloud.tailscale_url) as tailnet:
        ids = [tailnet.post("/_emu/devices", json=device).json()["id"] for device in (gone, *kept)]
        try:
            key = {"TAILSCALE_API_KEY": site.cloud.tailscale_api_key}
            code, found, _ = site.sweep("--yes", **key)
            assert (code, [(each["kind"], each["ended"]) for each in found]) == (0, [("device", True)])
            assert found[0]["reason"] == "offline for 5.0 h, and its pod is gone"
            assert [each["id"] for each in tailnet.get("/_emu/devices").json()["devices"]] == ids[1:]
            wrong = site.sweep(TAILSCALE_API_KEY="tskey-canary")
            assert wrong[0] == 0
            assert wrong[2] == ["tailnet devices: not looked at (the tailnet's API answered 401 to GET tailnet)"]
        finally:
            for device_id in ids[1:]:
                site_key = (site.cloud.tailscale_api_key, "")
                tailnet.delete(f"/api/v2/device/{device_id}", auth=site_key)


def test_account_secrets_that_nothing_uses_go_and_volumes_never_do(site: Site) -> None:
    used, known, unused = (secret_name("podfleet", STACK, UID, purpose) for purpose in ("used", "known", "unused"))
    foreign = secret_name("podfleet", STACK, FOREIGN, "unused")
    with site.cloud.client() as client:
        for name in (used, known, unused, foreign):
            body = {"name": name, "value": "canary", "description": ""}
            client.post("/v2/account/secrets", json=body).raise_for_status()
        volume = secret_name("podfleet", STACK, UID, "models")
        body = {"name": volume, "size": 10, "dataCenter": "EU-RO-1"}
        client.post("/v2/network-volumes", json=body).raise_for_status()
        pod = site.rent(1, KEY="{{ RUNPOD_SECRET_" + used + " }}")
        assert site.sweep("--yes")[2], "without a state nothing can be said of them"
        site.knows(pod, names=(known,))
        code, found, _ = site.sweep("--yes")
        assert code == 3
        assert {(each["kind"], each["name"], each["ended"]) for each in found} == {
            ("secret", unused, True),
            ("volume", volume, False),
        }
        left = {each["name"] for each in client.get("/v2/account/secrets").json()["secrets"]}
        assert left >= {used, known, foreign}
        assert unused not in left
        assert volume in {each["name"] for each in client.get("/v2/network-volumes").json()["networkVolumes"]}


def test_watching_goes_on_until_it_is_interrupted(site: Site) -> None:
    site.knows()
    words = ["--watch", "--every-minutes", "0.002", "--json", "--yes"]
    watch = subprocess.Popen(
        [COMMAND, "sweep", STACK, *words],
        cwd=site.root,
        env=site.environ(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert watch.stdout is not None
    assert json.loads(watch.stdout.readline())["found"] == []
    pod = site.rent(1)
    while not (found := json.loads(watch.stdout.readline())["found"]):
        pass
    assert [(each["id"], each["ended"]) for each in found] == [(pod, True)]
    watch.send_signal(signal.SIGINT)
    _, err = watch.communicate(timeout=20)
    assert watch.returncode == 0
    assert err.splitlines()[-1] == "podfleet: stopped"
    assert "Traceback" not in err
