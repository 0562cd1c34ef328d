"""One pod for about a minute: what only a rented pod can tell. It costs a cent or two, and is always ended.

The pod runs a few lines of Python in a small public image: it asks the API with the key that RunPod gives each pod,
prints the answers, and then ends itself. Its name has the stack's prefix and its environment the stack's uid, so that
whatever happens to us `podfleet sweep` finds it; and it is ended here, too, until two lists prove it gone.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from podfleet.config import PodfleetConfig
from podfleet.doctor.findings import Finding, fail, ok, warn
from podfleet.errors import ApiUnavailable, NoCapacity, ProviderError, RequestRejected
from podfleet.providers.runpod.clock import Clock
from podfleet.providers.runpod.runtime import Runtime
from podfleet.providers.runpod.wire import (
    EXPIRES_VARIABLE,
    SLOT_VARIABLE,
    SPEC_HASH_VARIABLE,
    UID_VARIABLE,
    GpuOffer,
    PodRequest,
    PodView,
)
from podfleet.ready import last_words
from podfleet.spans import span

IMAGE = "python:3.12-alpine"  # small: on a host within seconds
SLOT = "doctor"
URL_VARIABLE = "PODFLEET_PROBE_URL"
REST_VARIABLE = "PODFLEET_PROBE_REST_S"  # between what it says and its end: the line has to be read
LEAST_REST_S, MOST_POLL_S = 4.0, 5.0
LINE = "podfleet-probe "
NO_SUCH_GPU = "PODFLEET NO SUCH GPU"
LIFETIME_S = 600.0
BOOT_S = 240.0
GONE_BY_ITSELF_S = 60.0
TYPICAL_S = 60.0
TRIES = 3
SCRIPT = """
import os, time, urllib.error, urllib.request
me, base = os.environ["RUNPOD_POD_ID"], os.environ["PODFLEET_PROBE_URL"]
def ask(method, path, body=None):
    headers = {"Authorization": "Bearer " + os.environ.get("RUNPOD_API_KEY", ""), "User-Agent": "podfleet-probe",
               "Content-Type": "application/json"}
    request = urllib.request.Request(base + path, method=method, headers=headers, data=body)
    try:
        return urllib.request.urlopen(request, timeout=15).status
    except urllib.error.HTTPError as error:
        return error.code
    except Exception as error:
        return type(error).__name__
query = ('{"query": "query { pod(input: { podId: \\\\"%s\\\\" }) { id } }"}' % me).encode()
print("podfleet-probe self=%s list=%s graphql=%s" % (
    ask("GET", "/v2/pods/" + me), ask("GET", "/v2/pods"), ask("POST", "/graphql", query)), flush=True)
time.sleep(float(os.environ["PODFLEET_PROBE_REST_S"]))
print("podfleet-probe delete=%s" % ask("DELETE", "/v2/pods/" + me), flush=True)
time.sleep(3600)
"""


@dataclass(frozen=True, slots=True)
class Offered:
    """The cheapest pod that is free now."""

    gpu: str
    cloud: str
    usd_per_hr: float

    def __str__(self) -> str:
        usd = self.usd_per_hr * TYPICAL_S / 3600
        return (
            f"one {self.gpu} ({self.cloud.lower()}) at ${self.usd_per_hr:.2f}/h, for about a minute: about ${usd:.3f}"
        )


def cheapest(offers: list[GpuOffer]) -> list[Offered]:
    """By price; what is sold out is not among them."""
    free = [offer for offer in offers if offer.availability != "NONE" and offer.usd_per_hr > 0]
    return [Offered(each.gpu, each.cloud, each.usd_per_hr) for each in sorted(free, key=lambda offer: offer.usd_per_hr)]


class Probe:
    """One run. `findings` always ends what it has rented; a pod that would not end is its last finding."""

    def __init__(self, config: PodfleetConfig, *, prefix: str, cloud: Runtime, clock: Clock) -> None:
        self._config = config
        self._cloud = cloud
        self._clock = clock
        self._poll_s = min(MOST_POLL_S, config.poll_interval_seconds)
        token = secrets.token_hex(4)
        self._name = f"{prefix}{SLOT}-{token}"
        self._unclear = False
        self.ended: Finding | None = None
        self._env = {
            UID_VARIABLE: config.uid,
            SPEC_HASH_VARIABLE: token,
            SLOT_VARIABLE: SLOT,
            EXPIRES_VARIABLE: f"{clock.now_s() + LIFETIME_S:.0f}",
            URL_VARIABLE: config.runpod_url,
            REST_VARIABLE: f"{max(LEAST_REST_S, 2 * self._poll_s):.1f}",
        }

    def offers(self) -> list[Offered]:
        """What could be rented now, cheapest first."""
        found = [offer for cloud in ("SECURE", "COMMUNITY") for offer in self._cloud.client.gpu_offers(cloud=cloud)]
        return cheapest(found)

    def findings(self, offers: list[Offered]) -> Iterator[Finding]:
        """Rent, look, end. The end happens on any way out of here, also where nobody takes the next finding."""
        started_s, rented = self._clock.monotonic_s(), False
        usd_per_hr = 0.0
        try:
            yield self._bad_gpu()
            pod, said = self._rent(offers)
            yield said
            if pod:
                rented, usd_per_hr, started_s = True, pod.cost_usd_per_hr, self._clock.monotonic_s()
                yield from self._look(pod)
        finally:
            self.ended = self._end()
        yield self.ended
        if rented:
            lived_s = self._clock.monotonic_s() - started_s
            yield ok("cost", f"{span(lived_s)} at ${usd_per_hr:.2f}/h: about ${usd_per_hr * lived_s / 3600:.4f}")

    def _request(self, gpu: str, cloud: str) -> PodRequest:
        args = json.dumps({"entrypoint": ["python3", "-c"], "cmd": [SCRIPT]})
        return PodRequest(self._name, IMAGE, gpu, cloud, None, "", 5, (), self._env, args=args)

    def _bad_gpu(self) -> Finding:
        """The text for an unknown id. Should it rent something all the same, `_end` ends it by its name."""
        try:
            pod = self._cloud.client.create_pod(self._request(NO_SUCH_GPU, "SECURE"))
        except (RequestRejected, NoCapacity) as error:
            return ok("unknown GPU id", f"a create says: {error}")
        except ProviderError as error:
            self._note(error)
            return warn("unknown GPU id", f"a create says: {error}")
        return warn(
            "unknown GPU id",
            f"a create rented {pod.id} ({pod.gpu}) all the same",
            "it is ended below; please report it",
        )

    def _rent(self, offers: list[Offered]) -> tuple[PodView | None, Finding]:
        refusals: list[ProviderError] = []
        for offer in offers[:TRIES]:
            try:
                self._cloud.spend.reserve(name=self._name, uid=self._config.uid, usd_per_hr=offer.usd_per_hr)
                pod = self._cloud.client.create_pod(self._request(offer.gpu, offer.cloud))
            except NoCapacity as error:
                self._cloud.spend.settle(self._name, None)
                refusals.append(error)
                continue
            except ProviderError as error:
                if not self._note(error):
                    self._cloud.spend.settle(self._name, None)
                return None, fail("create", str(error), "whatever came of it is ended below")
            self._cloud.spend.settle(self._name, pod.id)
            return pod, ok("create", f"201, {pod.id} is {pod.status} at ${pod.cost_usd_per_hr:.2f}/h")
        return None, fail("create", str(refusals[-1]) if refusals else "nothing is free", "try again later")

    def _note(self, error: ProviderError) -> bool:
        """Whether a pod may have come of a request that failed."""
        maybe = isinstance(error, ApiUnavailable) and error.maybe_done
        self._unclear = self._unclear or maybe
        return maybe

    def _look(self, pod: PodView) -> Iterator[Finding]:
        yield self._read_your_writes(pod)
        said = self._first_line(pod)
        yield said
        if said.level == "ok":
            yield self._ends_itself(pod)

    def _read_your_writes(self, pod: PodView) -> Finding:
        """How long a new pod is missing from the list."""
        start_s = self._clock.monotonic_s()
        listed = self._wait(lambda: any(each.id == pod.id for each in self._cloud.client.list_pods()), GONE_BY_ITSELF_S)
        if not listed:
            return warn(
                "read your writes", f"not in a list for {GONE_BY_ITSELF_S:.0f} s", "raise podfleet:reconcileSeconds"
            )
        waited_s = self._clock.monotonic_s() - start_s
        if waited_s < 2:
            return ok("read your writes", "a list that follows a create shows the pod")
        key = "podfleet:absenceIntervalSeconds"
        text = f"a list shows a new pod after {waited_s:.0f} s"
        short = waited_s > self._config.absence_interval_seconds
        return warn("read your writes", text, f"{key} has to be more") if short else ok("read your writes", text)

    def _first_line(self, pod: PodView) -> Finding:
        """Proves the log endpoint, and tells what the pod's own key may do."""
        start_s, found = self._clock.monotonic_s(), list[str]()

        def spoken() -> bool:
            lines = self._cloud.client.pod_logs(pod.id, source="container", tail=50, wait_s=3.0)
            found[:] = [line.text.removeprefix(LINE) for line in lines if line.text.startswith(f"{LINE}self=")]
            return bool(found)

        if not self._wait(spoken, BOOT_S):
            system = [line.text for line in self._cloud.client.pod_logs(pod.id, source="system", tail=5)]
            return warn("pod's log", f"nothing in it within {BOOT_S:.0f} s{last_words(system)}", "try it again")
        took_s = self._clock.monotonic_s() - start_s
        return ok("pod's log and key", f"read after {span(took_s)}; with its own key: {found[-1]}")

    def _ends_itself(self, pod: PodView) -> Finding:
        """The first fuse: DELETE by the pod's own key."""
        since_s = self._clock.monotonic_s()
        gone = self._wait(lambda: pod.id not in {each.id for each in self._cloud.client.list_pods()}, GONE_BY_ITSELF_S)
        if gone:
            return ok(
                "pod ends itself", f"by DELETE with its own key, within {span(self._clock.monotonic_s() - since_s)}"
            )
        lines = self._cloud.client.pod_logs(pod.id, source="container", tail=50, wait_s=3.0)
        refused = next((line.text for line in lines if line.text.startswith(f"{LINE}delete=")), "nothing in its log")
        return warn("pod ends itself", f"not by DELETE on v2: {refused}", "GraphQL and the sweep are left: report it")

    def _end(self) -> Finding:
        """Everything of this name, whoever made it. Two complete lists prove it."""
        start_s = self._clock.monotonic_s()
        try:
            found = self._left(start_s)
            self._cloud.ending.end(found, why="the probe is over")
        except ProviderError as error:
            return fail("end", f"{self._name}: {error}", "look at RunPod's page now; `podfleet sweep` ends it later")
        took = span(self._clock.monotonic_s() - start_s)
        return ok("end", f"{len(found)} to end; absent from two complete lists, after {took}")

    def _left(self, start_s: float) -> tuple[PodView, ...]:
        """What is there of this name. After an unclear answer a pod may come later."""
        until_s = start_s + (self._config.reconcile_seconds if self._unclear else 0.0)
        while True:
            found = self._cloud.census.named(self._name, self._config.uid, since_s=self._clock.monotonic_s())
            if found or self._clock.monotonic_s() >= until_s:
                return found
            self._clock.sleep(self._poll_s)

    def _wait(self, reached: Callable[[], bool], limit_s: float) -> bool:
        end_s = self._clock.monotonic_s() + limit_s
        while True:
            try:
                if reached():
                    return True
            except ProviderError:
                pass  # asked again below; the limit tells
            if self._clock.monotonic_s() >= end_s:
                return False
            self._clock.sleep(self._poll_s)
