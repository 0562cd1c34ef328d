"""What documentation does not settle, asked of the real API: reads that cost nothing and change nothing.

Each answer stands beside what podfleet takes for granted; where they differ, a warning says so. The questions are those
of `docs/runpod.md`, section "The first minute with a real account".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from podfleet.doctor.findings import Finding, fail, ok, warn
from podfleet.doctor.raw import Answer
from podfleet.providers.runpod.budget import quotas
from podfleet.providers.runpod.client import DEFAULT_URL

V1_URLS = {DEFAULT_URL: "https://rest.runpod.io"}  # anywhere else v1 is beside v2
NO_SUCH_GPU = "PODFLEET NO SUCH GPU"
BALANCE_QUERY = "query { myself { clientBalance currentSpendPerHr } }"
SPOT_QUERY = 'query { __type(name: "Mutation") { fields { name } } }'
SPOT_MUTATION = "podRentInterruptable"
TELL_US = "podfleet takes something else for granted: please report it"
OK, UNAUTHORIZED, FORBIDDEN, NOT_FOUND, GONE = 200, 401, 403, 404, 410
CALLS_PER_MINUTE = 60  # what the documentation shows


class Asks(Protocol):
    """`raw.Raw`."""

    def get(self, path: str, *, params: Mapping[str, str] | None = None, with_key: bool = True) -> Answer: ...
    def post(self, path: str, json: Mapping[str, Any]) -> Answer: ...


def v1_url(base_url: str) -> str:
    """Where the retired API is or was."""
    return V1_URLS.get(base_url.rstrip("/"), base_url)


def ask_live(api: Asks, v1: Asks) -> Iterator[Finding]:
    """In the order of the documentation's questions. About a dozen requests."""
    listed = api.get("/v2/pods")
    yield _v1(v1.get("/v1/pods", with_key=False))
    yield _pages(listed)
    yield _rate(listed)
    yield _openapi(api.get("/v2/openapi.json", with_key=False))
    yield _catalogue(api.get("/v2/catalog/gpus", params={"include": "AVAILABILITY", "product": "POD"}))
    yield _no_such_gpu(api.get(f"/v2/catalog/gpus/{NO_SUCH_GPU}"))
    yield _right("secrets", api.get("/v2/account/secrets"), "tailnet keys travel as account secrets")
    yield _right("billing", api.get("/v2/billing/pods"), "podfleet:maxUsdPerDay counts by the bill")
    balance = api.post("/graphql", {"query": BALANCE_QUERY})
    yield _graphql(balance)
    yield _spot(api.post("/graphql", {"query": SPOT_QUERY}) if balance.status == OK else balance)
    yield _tags(api.get("/v2/tags"))


def _v1(answer: Answer) -> Finding:
    if answer.status == GONE:
        return ok("REST v1", "410: retired, as expected")
    return ok("REST v1", f"{answer}: podfleet does not use it")


def _pages(answer: Answer) -> Finding:
    """The shape of the pod list: a pager that reads one page too few loses pods."""
    if answer.status != OK or not isinstance(answer.body, dict) or not isinstance(answer.body.get("pods"), list):
        shape = f"200 with {sorted(answer.body)}" if isinstance(answer.body, dict) and answer.status == OK else answer
        return fail("pod list", f"not as expected: {shape}", "nothing works without it: " + TELL_US)
    count, more = len(answer.body["pods"]), answer.body.get("pagination")
    if more is None:
        return ok("pod list", f"{count} pods, no `pagination`: the list is taken as complete")
    if not isinstance(more, dict) or "hasNextPage" not in more:
        return warn(
            "pod list", f"`pagination` has another shape: {sorted(more) if isinstance(more, dict) else more!r}", TELL_US
        )
    if more["hasNextPage"]:
        return ok("pod list", f"in pages of {count}, next page by `nextCursor`")
    return ok("pod list", f"{count} pods on one page, `pagination` as expected")


def _rate(answer: Answer) -> Finding:
    """Paced by these headers; without them by 429 alone."""
    found = quotas({_canonical(key): value for key, value in answer.headers.items()})
    if not found:
        return warn("rate limit", "no RateLimit headers: podfleet learns from 429 only", TELL_US)
    told = ", ".join(f"{'?' if quota.limit is None else quota.limit} per {quota.name}" for quota in found)
    minute = next((quota.limit for quota in found if quota.name == "minute"), None)
    if minute is not None and minute < CALLS_PER_MINUTE:
        return warn("rate limit", f"{told}: less than usual", "a fleet starts and ends more slowly")
    return ok("rate limit", f"{told}; {found[0].left} left now")


def _canonical(name: str) -> str:
    return {"ratelimit": "RateLimit", "ratelimit-policy": "RateLimit-Policy"}.get(name.lower(), name)


def _openapi(answer: Answer) -> Finding:
    body = answer.body if isinstance(answer.body, dict) else {}
    if answer.status != OK or "paths" not in body:
        return warn("openapi.json", f"not readable: {answer}")
    version = (body.get("info") or {}).get("version", "?")
    return ok("openapi.json", f"version {version}, {len(body['paths'])} paths")


def _catalogue(answer: Answer) -> Finding:
    gpus = answer.body.get("gpus") if isinstance(answer.body, dict) else None
    if answer.status != OK or not isinstance(gpus, list):
        return fail("catalogue", f"not readable: {answer}", "prices and stock come from it: " + TELL_US)
    free = sum(isinstance(gpu, dict) and gpu.get("availability") not in (None, "NONE") for gpu in gpus)
    return ok("catalogue", f"{len(gpus)} GPU types, {free} of them free in the secure cloud")


def _no_such_gpu(answer: Answer) -> Finding:
    """The text for a create is asked for with --spend only."""
    if answer.status == NOT_FOUND:
        return ok("unknown GPU id", f"{answer} (by the catalogue)")
    return warn("unknown GPU id", f"{answer} (by the catalogue; 404 was expected)")


def _right(what: str, answer: Answer, why: str) -> Finding:
    if answer.status == OK:
        return ok(what, "readable")
    if answer.status in (UNAUTHORIZED, FORBIDDEN):
        return warn(what, f"the key may not read them: {answer}", f"{why}: give the key that right")
    return warn(what, f"{answer}", f"{why}: {TELL_US}")


def _graphql(answer: Answer) -> Finding:
    if answer.status == GONE:
        return warn("GraphQL", "410: retired; no balance, and pods end themselves by v2 alone")
    try:
        myself = answer.body["data"]["myself"]
        usd, spend = float(myself["clientBalance"]), float(myself.get("currentSpendPerHr") or 0)
    except (KeyError, TypeError, ValueError):
        return warn("GraphQL", f"no balance: {answer}", "low balance is noticed by 402 only")
    return ok("GraphQL", f"alive; balance ${usd:.2f}, the account spends ${spend:.2f}/h")


def _spot(answer: Answer) -> Finding:
    """Asked of the schema: a request that might rent is no question."""
    try:
        names = {field["name"] for field in answer.body["data"]["__type"]["fields"]}
    except (KeyError, TypeError):
        return ok("spot", f"its schema is not shown ({answer.status or 'no answer'}): taken as not offered")
    if SPOT_MUTATION in names:
        return warn("spot", f"{SPOT_MUTATION} is still in the schema", "podfleet does not use it")
    return ok("spot", f"{SPOT_MUTATION} is gone, as expected")


def _tags(answer: Answer) -> Finding:
    if answer.status == OK:
        return ok("tags", "GET /v2/tags answers; podfleet marks its pods by name and environment")
    return ok("tags", f"{answer}: podfleet does not need them")
