"""Config that is allowed and bites: each trap as a finding, with the key that is meant. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from urllib.parse import urlsplit

from podfleet.config import PodfleetConfig
from podfleet.doctor.findings import Finding, ok, warn
from podfleet.urls import is_loopback

BIG_IMAGE_GB = 14.0  # from here on "Exited by Runpod" two seconds after the rent was reported
TAILNET = ip_network("100.64.0.0/10")
PINNED = re.compile(r"@sha256:[0-9a-f]{64}$|:(?!latest$)[\w][\w.-]*$")
WHAT = "config"


def check_config(config: PodfleetConfig) -> Iterator[Finding]:
    """A warning per trap, or one line that there is none."""
    found = list(_traps(config))
    yield from found
    if not found:
        yield ok(WHAT, "no traps")


def _traps(config: PodfleetConfig) -> Iterator[Finding]:
    yield from _cost(config)
    yield from _network(config)
    yield from _image(config)


def _cost(config: PodfleetConfig) -> Iterator[Finding]:
    if not config.max_runtime_minutes:
        yield _trap("maxRuntimeMinutes", "0: no pod has an end of its own", "set it, 720 for example")
    if not config.max_usd_per_hour and not config.max_usd_per_day:
        yield _trap("maxUsdPerHour", "and podfleet:maxUsdPerDay are 0: no limit in dollars", "set one of them")
    if config.keep_alive:
        yield _trap("keepAlive", "true: only the lifetime ends a pod", "set it to false after the experiment")
    elif not config.stop_on_empty_queue and not config.idle_timeout_minutes:
        yield _trap(
            "idleTimeoutMinutes",
            "0, and podfleet:stopOnEmptyQueue is false: a pod without work lives on",
            "set one of them",
        )


def _network(config: PodfleetConfig) -> Iterator[Finding]:
    local_pods = is_loopback(config.runpod_url)
    if is_loopback(config.queue_url) and not local_pods:
        yield _trap("queueUrl", "is this machine's loopback: rented pods cannot reach it", "use its tailnet address")
    if _in_tailnet(config.queue_url) and not config.join:
        yield _trap("queueUrl", "is in a tailnet, and podfleet:join is false", "set podfleet:join to true")
    if config.acl == "own" and not is_loopback(config.tailscale_url):
        yield _trap(
            "acl", "own: this stack replaces the whole policy of the tailnet", "use none, unless it is alone there"
        )
    if config.runpod_url.startswith("http://") and not local_pods:
        yield _trap("runpodUrl", "is not encrypted: the key is sent in clear", "use https://")


def _image(config: PodfleetConfig) -> Iterator[Finding]:
    if not PINNED.search(config.image):
        yield _trap(
            "image", f"{config.image} is not pinned: hosts keep an old one, pods differ", "name a tag or @sha256:…"
        )
    if config.image_gb > BIG_IMAGE_GB:
        yield _trap("imageGb", f"{config.image_gb:g}: images from 14 GB on were ended at boot", "make it smaller")
    if not config.min_cuda_version and not is_loopback(config.runpod_url):
        yield _trap("minCudaVersion", "empty: hosts with an old driver are rented, too", "set it to the image's CUDA")


def _trap(key: str, text: str, do: str) -> Finding:
    return warn(WHAT, f"podfleet:{key} {text}", do)


def _in_tailnet(url: str) -> bool:
    try:
        return ip_address(urlsplit(url).hostname or "") in TAILNET
    except ValueError:
        return (urlsplit(url).hostname or "").endswith(".ts.net")
