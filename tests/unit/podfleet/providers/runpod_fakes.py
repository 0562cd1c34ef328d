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
from podfleet.providers.runpod.engine import NoEngine
from podfleet.providers.runpod.runtime import Runtime, build
from podfleet.providers.runpod.settings import ProviderSettings

CAPACITY = (
    "There are no longer any instances available with the requested specifications. Please refresh and try again."
)
Answer = Callable[[httpx.Request], httpx.Response]


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


class FakeRunpod:
    """Pods, secrets and logs in dictionaries. `script[(method, path-prefix)]` holds answers that come first."""

    def __init__(self) -> None:
        self.pods: dict[str, dict[str, Any]] = {}
        self.secrets: dict[str, dict[str, str]] = {}
        self.logs: dict[str, list[tuple[str, str]]] = {}
        self.requests: list[httpx.Request] = []
        self.script: dict[str, list[Answer]] = {}
        self.page_size = 100
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
        kind = "secret" if path.startswith("/account/secrets") else "gpus" if path.startswith("/catalog") else "pod"
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
        self.pods[pod_id] |= {"env": body["env"], "gpu": body["gpu"], "cost": 0.25, "cloud": body["cloud"]}
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


def runtime_of(fake: FakeRunpod, clock: FakeClock, **settings: Any) -> Runtime:
    chosen = ProviderSettings(api_key="rpa_test", base_url="http://127.0.0.1:9", **settings)
    return build(chosen, client_of(fake, clock), NoEngine(), clock)


def lost(request: httpx.Request) -> httpx.Response:
    raise httpx.ReadTimeout("timed out", request=request)
