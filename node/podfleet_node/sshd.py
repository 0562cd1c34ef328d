"""The pod's SSH server, for bootstrap steps, drains and people: the image's `sshd` with a host key of this very start.

Standard library only; the supervisor starts it once. It starts only where the pod was given a PUBLIC_KEY, an `sshd` is
on PATH, and nobody else serves SSH here: a host key that we did not make belongs to somebody who does (localcloud).
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from podfleet_node.logs import emit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from podfleet_node.paths import Paths

KEYGEN_S = 20.0
OURS = "podfleet-node"  # the comment in keys of ours
NO_KEY = frozenset({"", "null"})  # what a pod sees whose account has no key
SEPARATION_DIR = Path("/run/sshd")  # sshd insists on it, and some container starts bring an empty /run

CONFIG = """\
# Written by podfleet-node at each start.
Port {port}
HostKey {host_key}
AuthorizedKeysFile {authorized_keys}
AuthenticationMethods publickey
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
X11Forwarding no
PidFile none
SetEnv PODFLEET_ROOT={root}
"""


def start(environ: Mapping[str, str], paths: Paths, *, port: int = 22) -> subprocess.Popen[bytes] | None:
    """Make the host key if there is none, then start `sshd` as a child. None where it is not ours to start, or fails.

    Never raises: the caller is PID 1, and a pod without SSH still works, or ends itself for lack of its `start`.
    """
    public_key = environ.get("PUBLIC_KEY", "").strip()
    path = environ.get("PATH", "")
    sshd, keygen = shutil.which("sshd", path=path), shutil.which("ssh-keygen", path=path)
    if public_key in NO_KEY or sshd is None or keygen is None or _served_by_others(paths):
        return None
    try:
        _make_host_key(keygen, paths)
        config = _write_config(paths, public_key, port)
        with contextlib.suppress(OSError):
            SEPARATION_DIR.mkdir(mode=0o755, parents=True, exist_ok=True)
        # -D: stay a child of ours, -e: log to stderr. Its environment holds no key of the pod.
        child = subprocess.Popen([sshd, "-D", "-e", "-f", str(config)], env={"PATH": path}, stdin=subprocess.DEVNULL)
    except (OSError, ValueError, subprocess.SubprocessError) as err:
        emit("sshd.failed", level="error", error=type(err).__name__)
        return None
    emit("sshd.started", pid=child.pid)
    return child


def _served_by_others(paths: Paths) -> bool:
    try:
        comment = paths.host_key_file.read_text(encoding="utf-8").split()[2:]
    except FileNotFoundError:
        return False
    except (OSError, UnicodeDecodeError):
        return True
    return comment != [OURS]


def _make_host_key(keygen: str, paths: Paths) -> None:
    """A container that was stopped and started still has the one of before; one that was restarted has a clean disk."""
    private = paths.host_key_file.with_suffix("")
    if private.exists() and paths.host_key_file.exists():
        return
    private.unlink(missing_ok=True)  # half a pair: keygen would ask whether to overwrite it
    private.parent.mkdir(parents=True, exist_ok=True)
    command = [keygen, "-q", "-t", "ed25519", "-N", "", "-C", OURS, "-f", str(private)]
    subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=True, timeout=KEYGEN_S)


def _write_config(paths: Paths, public_key: str, port: int) -> Path:
    folder = paths.host_key_file.parent
    authorized, config = folder / "podfleet_authorized_keys", folder / "podfleet_sshd_config"
    authorized.write_text(public_key + "\n", encoding="utf-8")
    authorized.chmod(0o600)
    private = paths.host_key_file.with_suffix("")
    text = CONFIG.format(port=port, host_key=private, authorized_keys=authorized, root=paths.root)
    config.write_text(text, encoding="utf-8")
    return config
