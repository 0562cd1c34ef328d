"""`localcloud up|down|status|reset`: data on stdout, progress on stderr, trouble in one line with exit code 2."""

import json
import os
import select
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from localcloud import fault_cli, remote
from localcloud.errors import LocalcloudError, StartError
from localcloud.remote import DEFAULT_DIR
from localcloud.statedir import Running, StateDir

START_DEADLINE_S = 30.0
DOWN_DEADLINE_S = 30.0

app = typer.Typer(
    name="localcloud", help="The stand-in cloud on this machine.", no_args_is_help=True, add_completion=False
)
Dir = Annotated[Path, typer.Option("--dir", help="Where everything is kept.")]
app.add_typer(fault_cli.app, name="fault")


def main() -> None:
    """The command."""
    try:
        app(standalone_mode=False)
    except typer.TyperException as error:
        _report_usage(error)
    except LocalcloudError as error:
        sys.stderr.write(f"localcloud: {error}\n")
        sys.exit(error.exit_code)


def _report_usage(error: typer.TyperException) -> None:
    """Wrong use: one line; called without a command the help, which was shown by now."""
    text = " ".join(error.format_message().split())
    if text:
        sys.stderr.write(f"localcloud: {text}\n")
    sys.exit(error.exit_code)


@app.command()
def up(
    folder: Dir = DEFAULT_DIR,
    runpod_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of the RunPod API; 0 = any free one.")
    ] = 8790,
    tailscale_port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the Tailscale API; 0 = any.")] = 8791,
    facts: Annotated[Path | None, typer.Option(help="YAML file whose keys replace the packaged facts.")] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Go on with the account of the last time (`state: kept`).")
    ] = False,
    foreground: Annotated[bool, typer.Option("--foreground", help="Stay; end with Ctrl-C.")] = False,
) -> None:
    """Start it in the background and print where it listens."""
    command = daemon_command(folder, runpod_port, tailscale_port, facts)
    command += ["--keep"] if keep else []
    if foreground:
        os.execv(command[0], command)  # noqa: S606 - the daemon takes this process over
    state = StateDir(folder)
    stale = None if state.is_locked() else state.running()
    running = _start(command, state)
    if stale:
        sys.stderr.write(f"localcloud: replaced a stale localcloud.json of pid {stale.pid}, which is gone\n")
    sys.stdout.write(f"RunPod API     {running.runpod_url}/v2\nTailscale API  {running.tailscale_url}/api/v2\n")
    sys.stdout.write(f"credentials    {state.path / 'credentials.env'}\n")


@app.command()
def down(folder: Dir = DEFAULT_DIR) -> None:
    """End it and what runs in its pods; a kept account is there at the next `up`. Fine when nothing runs."""
    state = StateDir(folder)
    running = state.running()
    if not state.is_locked() or running is None:
        state.json.unlink(missing_ok=True)
        sys.stderr.write("localcloud: not running\n")
        return
    _signal(running.pid, signal.SIGTERM)
    deadline_s = time.monotonic() + DOWN_DEADLINE_S
    while state.is_locked():
        if time.monotonic() > deadline_s:
            _signal(running.pid, signal.SIGKILL)  # its pods go with it, however it ends
            deadline_s += DOWN_DEADLINE_S
        time.sleep(0.05)
    state.json.unlink(missing_ok=True)
    sys.stderr.write("localcloud: ended\n")


@app.command()
def status(
    folder: Dir = DEFAULT_DIR,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Pods and money."""
    running = remote.running(folder)
    ledger = remote.call(running, "GET", "/_emu/ledger")
    pods = [pod for pod in remote.call(running, "GET", "/_emu/pods")["pods"] if pod["status"] != "TERMINATED"]
    if as_json:
        sys.stdout.write(json.dumps({**asdict(running), "pods": pods, "ledger": ledger}, indent=1) + "\n")
        return
    sys.stdout.write(f"running, pid {running.pid}\n{running.runpod_url}  {running.tailscale_url}\n")
    for pod in pods:
        sys.stdout.write(f"{pod['id']}  {pod['status']:<12}  ${pod['cost']:.2f}/h  {pod['name']}\n")
    sys.stdout.write(
        f"{len(pods)} pods, ${ledger['usd_per_hr']:.2f}/h, ${ledger['total_usd']:.4f} spent, "
        f"${ledger['balance_usd']:.2f} left\n"
    )


@app.command()
def reset(folder: Dir = DEFAULT_DIR) -> None:
    """End all pods and forget everything; the daemon goes on."""
    remote.call(remote.running(folder), "POST", "/_emu/reset")
    sys.stderr.write("localcloud: reset\n")


def daemon_command(folder: Path, runpod_port: int, tailscale_port: int, facts: Path | None) -> list[str]:
    """How the daemon is started."""
    command = [sys.executable, "-P", "-m", "localcloud.daemon", "--dir", str(folder.absolute())]
    command += ["--runpod-port", str(runpod_port), "--tailscale-port", str(tailscale_port)]
    return [*command, "--facts", str(facts.absolute())] if facts else command


def _start(command: list[str], state: StateDir) -> Running:
    state.make()
    reader, writer = os.pipe()
    with state.log.open("ab") as log:
        process = subprocess.Popen(
            [*command, "--ready-fd", str(writer)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=[writer],
            start_new_session=True,
            cwd="/",
        )
    os.close(writer)
    return Running(**read_news(reader, process, str(state.log)))


def read_news(reader: int, process: "subprocess.Popen[Any]", log: str) -> dict[str, Any]:
    """What the daemon says on its pipe; StartError with its reason, or with where to look."""
    ready, _, _ = select.select([reader], [], [], START_DEADLINE_S)
    with os.fdopen(reader, encoding="utf-8") as pipe:
        line = pipe.readline() if ready else ""
    if not line:
        process.kill()
        raise StartError(f"it did not start; see {log}")
    news: dict[str, Any] = json.loads(line)
    if "error" in news:
        process.wait()
        raise StartError(news["error"])
    return news


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


if __name__ == "__main__":
    main()
