"""One stack: its file, its shell, its key, what it talks to, what a killed update may have left. Changes nothing."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from podfleet import processes
from podfleet.avoid import AvoidList
from podfleet.config import NAMESPACE, STACK_VARIABLE, PodfleetConfig
from podfleet.doctor.findings import Finding, fail, ok, warn
from podfleet.doctor.raw import Raw
from podfleet.doctor.traps import check_config
from podfleet.errors import KEY_VARIABLE, AuthError, ConfigError, ProviderError, SignalError, StateUnreadable
from podfleet.providers.runpod.census import is_ours
from podfleet.providers.runpod.client import Access, RunpodClient
from podfleet.providers.runpod.settings import access_from
from podfleet.signals.queue import QueueSignal
from podfleet.spans import span
from podfleet.state import Lock, read_state, state_folder
from podfleet.workspace import UID, Workspace

TAILSCALE_KEY = "TAILSCALE_API_KEY"
TAILSCALE_OAUTH = ("TAILSCALE_OAUTH_CLIENT_ID", "TAILSCALE_OAUTH_CLIENT_SECRET")
SKEW_TO_KNOW_S, SKEW_TO_MEND_S = 30.0, 300.0
MARKS = (STACK_VARIABLE, "PULUMI_BACKEND_URL", "PULUMI_HOME")
SHOWN = 3


def check_stack(workspace: Workspace, env: Mapping[str, str], *, now_s: float) -> Iterator[Finding]:
    """In the order in which things need each other; a file that does not parse is the last one told."""
    where = str(workspace.stack_file.relative_to(workspace.project_dir))
    make = f'eval "$(podfleet env {workspace.stack})"'
    try:
        if not workspace.raw_config().get(f"{NAMESPACE}:{UID}"):
            yield fail("stack file", f"{where} has no uid and no SSH key yet", f"{make} makes them, once")
            return
        config = workspace.config()
    except ConfigError as error:
        for problem in error.problems:
            yield fail("stack file", problem, f"mend {where}; docs/config.md lists all keys")
        return
    yield ok("stack file", where)
    try:
        access = access_from(env, config.runpod_url, config.uid)
    except ConfigError as error:
        yield fail("uid and shell", str(error), make)
        return
    yield ok("uid and shell", config.uid)
    yield from _cloud(config, access, prefix=workspace.prefix, now_s=now_s)
    yield _queue(config)
    yield _tailnet(config, env)
    yield from _leftovers(workspace, env)
    yield from _avoided(workspace, now_s=now_s)
    yield from check_config(config)


def _cloud(config: PodfleetConfig, access: Access, *, prefix: str, now_s: float) -> Iterator[Finding]:
    if access.key_problem:
        yield fail(
            "RunPod key", access.key_problem, f"set {KEY_VARIABLE}, or podfleet:credentialsFile to a file with it"
        )
        return
    with closing(RunpodClient(access)) as client:
        found = _key(client, config, prefix)
        yield found
        if found.level == "ok":
            yield _gpus(client, config)
    with Raw(access.base_url) as raw:
        yield skew_finding(raw.get("/v2/openapi.json", with_key=False).headers.get("date", ""), now_s=now_s)


def _key(client: RunpodClient, config: PodfleetConfig, prefix: str) -> Finding:
    try:
        pods = client.list_pods()
    except AuthError as error:
        return fail(
            "RunPod key",
            str(error),
            f"a key with rights for pods and secrets; podfleet:runpodUrl is {config.runpod_url}",
        )
    except ProviderError as error:
        return fail("RunPod", str(error), "look at podfleet:runpodUrl, the network, and RunPod's status page")
    ours = sum(is_ours(pod, uid=config.uid, prefix=prefix) for pod in pods)
    return ok("RunPod key", f"accepted; {len(pods)} pods in the account, {ours} of this stack")


def _gpus(client: RunpodClient, config: PodfleetConfig) -> Finding:
    clouds = ("SECURE", "COMMUNITY") if config.cloud == "ALL" else (config.cloud,)
    try:
        offers = [offer for cloud in clouds for offer in client.gpu_offers(cloud=cloud)]
    except ProviderError as error:
        return warn(
            "GPU types", f"the catalogue cannot be read: {error}", "`up` asks for podfleet:gpuTypes all the same"
        )
    known = {offer.gpu for offer in offers}
    if strange := [gpu for gpu in config.gpu_types if gpu not in known]:
        close = difflib.get_close_matches(strange[0], known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"podfleet:cloud is {config.cloud}"
        return fail(
            "GPU types", f"not in the catalogue: {', '.join(strange)}", f"podfleet:gpuTypes wants exact ids; {hint}"
        )
    wanted = [offer for offer in offers if offer.gpu in (config.gpu_types or known)]
    free = [offer for offer in wanted if offer.availability != "NONE"]
    if not free:
        return warn("GPU types", "none of them is free now", "more podfleet:gpuTypes, or the other podfleet:cloud")
    best = min(free, key=lambda offer: offer.usd_per_hr)
    return ok(
        "GPU types",
        f"{len(free)} of {len(wanted)} offers are free; the cheapest is {best.gpu} at ${best.usd_per_hr:.2f}/h",
    )


def skew_finding(date: str, *, now_s: float) -> Finding:
    """A pod's end is written by this machine's clock and read by the pod's."""
    try:
        there_s = parsedate_to_datetime(date).timestamp()
    except (TypeError, ValueError):
        return warn("clock", "RunPod does not tell its time")
    apart_s = abs(now_s - there_s)
    if apart_s < SKEW_TO_KNOW_S:
        return ok("clock", "within a few seconds of RunPod's")
    side = "ahead of" if now_s > there_s else "behind"
    text = f"{span(apart_s)} {side} RunPod's: lifetimes and ages are wrong by as much"
    mend = fail if apart_s >= SKEW_TO_MEND_S else warn
    return mend("clock", text, "set this machine's clock, by NTP")


def _queue(config: PodfleetConfig) -> Finding:
    try:
        with QueueSignal(config.queue_url) as queue:
            nodes = queue.nodes()
    except SignalError as error:
        what = "`reconcile`, and `scale` to fewer pods, need it; pods may reach it where this machine does not"
        return warn("queue", str(error), what)
    return ok("queue", f"{config.queue_url}: {sum(node.online for node in nodes.values())} nodes online")


def _tailnet(config: PodfleetConfig, env: Mapping[str, str]) -> Finding:
    if not config.tailnet:
        return ok("tailnet", "none")
    if key := env.get(TAILSCALE_KEY):
        with Raw(config.tailscale_url, key) as raw:
            answer = raw.get(f"/api/v2/tailnet/{config.tailnet}/keys")
        if answer.status == 200:
            return ok("tailnet", f"{TAILSCALE_KEY} is accepted for {config.tailnet!r}")
        if answer.status in (401, 403):
            return fail("tailnet", f"the key is refused: {answer}", f"{TAILSCALE_KEY} with the right to make auth keys")
        return warn(
            "tailnet", f"{config.tailscale_url}: {answer}", "look at podfleet:tailscaleUrl and podfleet:tailnet"
        )
    if all(env.get(name) for name in TAILSCALE_OAUTH):
        return ok("tailnet", "an OAuth client is set (not tried)")
    return fail("tailnet", "no credentials", f"set {TAILSCALE_KEY}, or {' and '.join(TAILSCALE_OAUTH)}")


def _leftovers(workspace: Workspace, env: Mapping[str, str]) -> Iterator[Finding]:
    folder = state_folder(workspace, env)
    locks = folder.locks() if folder else []
    yield from (_lock(lock, workspace.stack) for lock in locks)
    if not locks:
        yield ok("lock", "free" if folder else "not to be seen from here; `up` tells")
    if folder and not folder.checkpoint.exists():
        yield ok("state", "none yet: this stack has never been up")
    else:
        yield _state(workspace, env)
    found = processes.leftovers({name: env.get(name) for name in MARKS}, folder=workspace.project_dir)
    if found:
        pids = ", ".join(str(process.pid) for process in found)
        yield warn("processes", f"left by a killed update: {pids}", f"`podfleet up {workspace.stack}` ends them")
    else:
        yield ok("processes", "none left over")


def _lock(lock: Lock, stack: str) -> Finding:
    if lock.holder is None:
        return fail("lock", f"{lock.file} cannot be read", "remove it, once no update is running")
    host = processes.this_host()
    seen = processes.look(lock.holder.pid) if lock.holder.host == host else None
    who = f"pid {lock.holder.pid} on {lock.holder.host}"
    if why := processes.why_not_dead(lock.holder, host=host, seen=seen):
        return warn("lock", f"held by {who}: {why}", "wait for that update")
    return warn(
        "lock", f"left by {who}, which is dead", f"`podfleet up {stack}` goes past it, `podfleet unlock` removes it"
    )


def _state(workspace: Workspace, env: Mapping[str, str]) -> Finding:
    try:
        view = read_state(workspace, env)
    except StateUnreadable as error:
        return fail("state", str(error), f"`podfleet up {workspace.stack}` puts a copy back where there is one")
    if view.pending:
        some = ", ".join(view.pending[:SHOWN])
        text = f"{len(view.pending)} operations are pending ({some}): an update was killed"
        return warn("state", text, f"`podfleet up {workspace.stack}` clears them and adopts their pods")
    return ok("state", f"readable, {len(view.ids)} resources")


def _avoided(workspace: Workspace, *, now_s: float) -> Iterator[Finding]:
    found = AvoidList.of(workspace.state_dir, workspace.stack)
    if hosts := found.hosts(now_s=now_s):
        last = hosts[-1]
        at = datetime.fromtimestamp(last.at_s, UTC)
        newest = f"{last.gpu} in {last.data_center_id} ({last.reason}, {at:%H:%M} UTC)"
        text = f"{len(hosts)} passed over for a day, the last one {newest}"
        yield warn("hosts", text, f"remove {found.file.relative_to(workspace.project_dir)} to ask for them again")
