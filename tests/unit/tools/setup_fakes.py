"""Made-up programs and a made-up package index, for the tests of the set-up steps."""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(PROJECT / "tools"))  # tools/ is no package: its scripts run as they are

from provision.places import Places  # noqa: E402 - after the line above

GO_MOD = """module podfleet-tools
go 1.25.11
require (
\tgithub.com/pulumi/pulumi/pkg/v3 v3.259.0
\tgithub.com/pulumi/pulumi/sdk/v3 v3.259.0
)
"""


def program(places: Places, name: str, body: str) -> Path:
    """A made-up program on the PATH of `places`."""
    file = Path(places.env["PATH"]) / name
    file.write_text(f"#!/bin/sh\n{body}\n")
    file.chmod(0o755)
    return file


@dataclass
class FakeIndex:
    """A package index on loopback: `files` of the project uv; `html` speaks PEP 503; requests are kept."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    html: bool = False
    status: int = 200
    requests: list[tuple[str, str | None]] = field(default_factory=list)

    def add(self, name: str, content: bytes) -> str:
        self.files[name] = content
        return hashlib.sha256(content).hexdigest()

    def listing(self) -> tuple[str, bytes]:
        links = [f"../../files/{name}" for name in self.files]
        if self.html:
            rows = "".join(f'<a href="{link}#sha256=0">{link}</a>' for link in links)
            return "text/html", f"<html><body>{rows}</body></html>".encode()
        rows = [{"filename": Path(link).name, "url": link, "hashes": {}} for link in links]
        return "application/vnd.pypi.simple.v1+json", json.dumps({"files": rows}).encode()
