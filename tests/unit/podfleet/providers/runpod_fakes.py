"""A RunPod small enough to be wrong in every way, and a clock that tests move. For the unit tests of this folder.

`FakeRunpod` is a transport for the real client, so that the wire is real; what it answers next can be scripted.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import httpx

from podfleet.providers.runpod.client import Access, Patience, RunpodClient
from podfleet.providers.runpod.core import RentSpec
from podfleet.providers.runpod.engine import NoEngine
from podfleet.providers.runpod.runtime import Runtime, build
from podfleet.providers.runpod.settings import ProviderSettings

CAPACITY = (
    "There are no longer any instances available with the requested specifications. Please refresh and try again."
)
Answer = Callable[[httpx.Request], httpx.Response]
UID = "dev-00000001"
SPEC = RentSpec(
    name="podfleet-dev-slot-01-0badcafe",
    uid=UID,
    slot="slot-01",
    spec_hash="0badcafe",
    image="img:1",
    gpu_types=("GPU A", "GPU B"),
    cloud="SECURE",
    data_center_ids=(),
    min_cuda_version="12.8",
    disk_gb=20,
    ports=("22/tcp",),
    env={"PODFLEET_NODE_NAME": "n"},
)


class FakeClock:
    """Sleeping moves it; `at` runs things when a moment is reached."""

    def __init__(self) -> None:
        self.t = 1000.0
        self.slept: list[float] = []
        self.at: list[tuple[float, Callable[[], object]]] = []

    def now_s(self) -> float:
        return 1_800_000_000.0 + self.t

    def monotonic_s(self) -> float:
        self.t += 1e-6  # no two moments are the same
        return self.t

    def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            return
        self.slept.append(seconds)
        self.t += seconds
        for moment, action in [due for due in self.at if due[0] <= self.t]:
            self.at.remove((moment, action))
            action()


def problem(status: int, detail: str, **headers: str) -> httpx.Response:
    return httpx.Response(
        status,
        json={"title": "problem", "status": status, "detail": detail},
        headers={"content-type": "application/problem+json", "x-request-id": "req-1", **headers},
    )


NONE_LEFT: dict[str, Any] = {"availability": "NONE", "dataCenters": [], "cudaVersions": []}


def gpu_row(gpu: str, secure: float, community: float = 0.0, **more: Any) -> dict[str, Any]:
    """A line of the catalogue; `cuda=12.4`: no host of it has a later version."""
    price = {"secure": secure, "community": community}
    return {"id": gpu, "name": gpu, "memory": 24, "price": price, "availability": "HIGH", **more}


class FakeRunpod:
    """Pods, secrets and logs in dictionaries. `script[(method, path-prefix)]` holds answers that come first."""

    def __init__(self) -> None:
        self.pods: dict[str, dict[str, Any]] = {}
        self.secrets: dict[str, dict[str, str]] = {}
        self.registries: dict[str, dict[str, str]] = {}
        self.volumes: dict[str, dict[str, Any]] = {}
        self.logs: dict[str, list[tuple[str, str]]] = {}
        self.requests: list[httpx.Request] = []
        self.script: dict[str, list[Answer]] = {}
        self.page_size = 100
        self.gpus = [gpu_row("GPU A", 0.25), gpu_row("GPU B", 0.3)]
        self._numbers = itertools.count(1)
        self._ids = (f"pod{n:04d}" for n in itertools.count(1))

    # Tests talk to these

    def add(self, name: str, uid: str = "dev-00000001", status: str = "RUNNING", **more: Any) -> str:
        pod_id = next(self._ids)
        env = {"PODFLEET_UID": uid, "PODFLEET_SPEC_HASH": name.rsplit("-", 1)[-1]}
        stamp = datetime.fromtimestamp(1_800_000_000 + len(self.pods), tz=UTC).isoformat()
        self.pods[pod_id] = {"id": pod_id, "name": name, "status": status, "env": env, "createdAt": stamp, **more}
        return pod_id

    def next(self, op: str, *answers: Answer) -> None:
        self.script.setdefault(op, []).extend(answers)

    def posts(self) -> list[dict[str, Any]]:
        return [json.loads(r.content) for r in self.requests if r.method == "POST" and r.url.path == "/v2/pods"]

    def deletes(self) -> list[str]:
        return [r.url.path.rsplit("/", 1)[1] for r in self.requests if r.method == "DELETE"]

    def asked(self) -> list[str]:
        """The candidates of the POSTs, in their order."""
        return [" ".join([body["gpu"]["id"], body["cloud"], *body.get("dataCenterIds", [])]) for body in self.posts()]

    def catalogue_reads(self) -> list[str]:
        """The clouds of the catalogue's requests."""
        return [r.url.params["cloud"] for r in self.requests if r.url.path == "/v2/catalog/gpus"]

    def lists(self) -> int:
        return sum(1 for r in self.requests if r.method == "GET" and r.url.path == "/v2/pods")

    def names(self) -> list[str]:
        return sorted(pod["name"] for pod in self.pods.values())

    # The wire

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        op = self._op(request)
        if self.script.get(op):
            return self.script[op].pop(0)(request)
        answer: Answer = getattr(self, f"do_{op}")
        return answer(request)

    @staticmethod
    def _op(request: httpx.Request) -> str:
        path = request.url.path.removeprefix("/v2")
        if path.endswith("/logs"):
            return "logs"
        kinds = {"/account/secrets": "secret", "/catalog": "gpus", "/registries": "registry"}
        kinds |= {"/network-volumes": "volume", "/billing": "billing", "/graphql": "graphql"}
        kind = next((kind for start, kind in kinds.items() if path.startswith(start)), "pod")
        return f"{request.method.lower()}_{kind}"

    def do_get_pod(self, request: httpx.Request) -> httpx.Response:
        rows = list(self.pods.values())
        start = int(request.url.params.get("cursor", "0"))
        end = start + self.page_size
        more = {"hasNextPage": end < len(rows), "nextCursor": str(end)}
        return httpx.Response(200, json={"pods": rows[start:end], "pagination": more})

    def do_post_pod(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        pod_id = self.add(body["name"], status="PROVISIONING")
        place = next(iter(body.get("dataCenterIds", [])), None)
        self.pods[pod_id] |= {"env": body["env"], "gpu": body["gpu"], "cost": 0.25, "cloud": body["cloud"]}
        self.pods[pod_id] |= {"dataCenterId": place}
        return httpx.Response(201, json=self.pods[pod_id])

    def do_delete_pod(self, request: httpx.Request) -> httpx.Response:
        gone = self.pods.pop(request.url.path.rsplit("/", 1)[1], None)
        return httpx.Response(204) if gone else problem(404, "resource not found")

    def do_get_secret(self, request: httpx.Request) -> httpx.Response:
        cards = [{"id": key, "name": row["name"]} for key, row in self.secrets.items()]
        return httpx.Response(200, json={"secrets": cards})

    def do_post_secret(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        if any(row["name"] == body["name"] for row in self.secrets.values()):
            return problem(409, "name is taken")
        secret_id = f"sec{len(self.secrets) + 1}"
        self.secrets[secret_id] = body
        return httpx.Response(201, json={"id": secret_id, "name": body["name"]})

    def do_patch_secret(self, request: httpx.Request) -> httpx.Response:
        row = self.secrets.get(request.url.path.rsplit("/", 1)[1])
        if row is None:
            return problem(404, "resource not found")
        row |= json.loads(request.content)
        return httpx.Response(200, json={"id": request.url.path.rsplit("/", 1)[1], "name": row["name"]})

    def do_delete_secret(self, request: httpx.Request) -> httpx.Response:
        gone = self.secrets.pop(request.url.path.rsplit("/", 1)[1], None)
        return httpx.Response(204) if gone else problem(404, "resource not found")

    def do_get_registry(self, request: httpx.Request) -> httpx.Response:
        cards = [{"id": key, "name": row["name"]} for key, row in self.registries.items()]
        return httpx.Response(200, json={"registries": cards})

    def do_post_registry(self, request: httpx.Request) -> httpx.Response:
        registry_id = f"reg{next(self._numbers)}"
        self.registries[registry_id] = json.loads(request.content)
        return httpx.Response(201, json={"id": registry_id, "name": self.registries[registry_id]["name"]})

    def do_delete_registry(self, request: httpx.Request) -> httpx.Response:
        gone = self.registries.pop(request.url.path.rsplit("/", 1)[1], None)
        return httpx.Response(204) if gone else problem(404, "resource not found")

    def do_get_volume(self, request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"networkVolumes": list(self.volumes.values())})

    def do_post_volume(self, request: httpx.Request) -> httpx.Response:
        volume_id = f"vol{next(self._numbers)}"
        self.volumes[volume_id] = {"id": volume_id, **json.loads(request.content)}
        return httpx.Response(201, json=self.volumes[volume_id])

    def do_patch_volume(self, request: httpx.Request) -> httpx.Response:
        row = self.volumes.get(request.url.path.rsplit("/", 1)[1])
        if row is None:
            return problem(404, "resource not found")
        row |= json.loads(request.content)
        return httpx.Response(200, json=row)

    def do_delete_volume(self, request: httpx.Request) -> httpx.Response:
        gone = self.volumes.pop(request.url.path.rsplit("/", 1)[1], None)
        return httpx.Response(204) if gone else problem(404, "resource not found")

    def do_get_gpus(self, request: httpx.Request) -> httpx.Response:
        floor = float(request.url.params.get("minCudaVersion", "0"))
        rows = [row if floor <= row.get("cuda", 99) else {**row, **NONE_LEFT} for row in self.gpus]
        return httpx.Response(200, json={"gpus": rows})

    def do_logs(self, request: httpx.Request) -> httpx.Response:
        wanted = request.url.params["source"]
        lines = self.logs.get(request.url.path.split("/")[-2], [])
        events = [{"ts": "t", "source": source, "line": text} for source, text in lines if source == wanted]
        text = "".join(f"id: t/{n}\ndata: {json.dumps(event)}\n\n" for n, event in enumerate(events))
        return httpx.Response(200, text=text, headers={"content-type": "text/event-stream"})


def client_of(fake: Answer, clock: FakeClock | None = None, key: str = "rpa_test") -> RunpodClient:
    return RunpodClient(
        Access("http://127.0.0.1:9", key),
        transport=httpx.MockTransport(fake),
        clock=clock or FakeClock(),
        patience=Patience(retry_wait_s=0.0),
    )


def runtime_of(fake: FakeRunpod, clock: FakeClock, *, jitter: float = 0.5, **settings: Any) -> Runtime:
    """One round of creates, unless told otherwise."""
    quick = {"create_rounds": 1, **settings}
    chosen = ProviderSettings(api_key="rpa_test", base_url="http://127.0.0.1:9", **quick)
    return build(chosen, client_of(fake, clock), NoEngine(), clock, jitter=lambda: jitter, ssh_answers=lambda _: True)


def lost(request: httpx.Request) -> httpx.Response:
    raise httpx.ReadTimeout("timed out", request=request)
