"""Does an sshd answer there? Asked before a pod's log is read, since that read counts against the account's limit."""

from __future__ import annotations

import socket

from podfleet.providers.runpod.wire import SshAddress

CONNECT_S = 5.0
BANNER = b"SSH-"


def answers(address: SshAddress) -> bool:
    """Whether the first that is said there is SSH's: what forwards the port may accept and say nothing."""
    try:
        with socket.create_connection((address.host, address.port), CONNECT_S) as sock:
            return sock.recv(len(BANNER), socket.MSG_WAITALL) == BANNER
    except OSError:
        return False
