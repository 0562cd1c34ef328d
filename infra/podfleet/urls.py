"""Whether a text is a URL that a client can use, and whether it is on this machine, which no proxy can reach. Pure."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit


def is_url(text: str) -> bool:
    """Whether an HTTP client can take it: scheme, a host, a port that is one; no blanks."""
    try:
        parts = urlsplit(text)
        return (
            parts.scheme in ("http", "https")
            and bool(parts.hostname)
            and parts.port != 0
            and text.isprintable()
            and " " not in text
        )
    except ValueError:
        return False


def is_loopback(url: str) -> bool:
    """Whether the URL's host is this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
