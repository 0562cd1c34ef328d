"""The tailnet policy that a fleet needs, as a document. Pure.

Pods may call the transcription server and nothing else; operators and the server may call pods; pods call nobody's
laptop.
"""

from __future__ import annotations

import json
from typing import Any

POD_TAG = "tag:runpod"
SERVER_TAG = "tag:server"
POD_PORTS = (22, 8477, 9464)


def policy(*, server_port: int) -> dict[str, Any]:
    """The whole policy, for a tailnet of its own (`acl: own`) and as the snippet that `acl: none` prints."""
    to_pods = [f"{POD_TAG}:{port}" for port in POD_PORTS]
    return {
        "tagOwners": {POD_TAG: ["autogroup:admin"], SERVER_TAG: ["autogroup:admin"]},
        "acls": [
            {"action": "accept", "src": [POD_TAG], "dst": [f"{SERVER_TAG}:{server_port}"]},
            {"action": "accept", "src": ["autogroup:admin", SERVER_TAG], "dst": to_pods},
        ],
        "ssh": [{"action": "accept", "src": ["autogroup:admin"], "dst": [POD_TAG], "users": ["root"]}],
    }


def document(*, server_port: int) -> str:
    """The policy as the text that Tailscale stores."""
    return json.dumps(policy(server_port=server_port), indent=2) + "\n"
