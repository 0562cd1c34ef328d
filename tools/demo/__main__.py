"""`make demo`: the whole fleet on one machine, on real speech, from nothing to nothing.

Starts the stand-in cloud and the queue server, queues the episodes, shows the plan with its price, brings up two
pods, lets the reconciler raise the size, watches the transcripts arrive, destroys everything and proves that nothing
is left. Ends with one line; exits non-zero when anything is not as it has to be.
"""

from __future__ import annotations

import argparse
import re
import shutil
import signal
import sys
import time
from pathlib import Path

import httpx
from rich.console import Console
from tools.demo.episodes_queue import Episodes
from tools.demo.verdict import Verdict, leftovers, verdict
from tools.demo.watch import Watch
from tools.stage import CHECKOUT, PORTS, STACK, Stage, StageError, free_ports

FOLDER = CHECKOUT / ".podfleet" / "demo"
MARK = ".podfleet-demo"  # in a folder that is ours to empty
DRAIN_LIMIT_S = 900
UP = ["pulumi", "up", "--yes", "--skip-preview", "--non-interactive", "--stack", STACK]
DESTROY = ["pulumi", "destroy", "--yes", "--skip-preview", "--non-interactive", "--stack", STACK]
RECONCILE = [str(Path(sys.executable).parent / "podfleet"), "reconcile", STACK, "--once"]
console = Console(highlight=False, stderr=False)


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--folder", type=Path, default=FOLDER, help="where this run's state and logs are kept")
    options.add_argument("--keep", action="store_true", help="keep the state of the run; logs are always kept")
    chosen = options.parse_args()
    folder = chosen.folder.resolve()
    if folder != FOLDER and folder.exists() and any(folder.iterdir()) and not (folder / MARK).exists():
        options.error(f"{folder} holds something that is not of a demo; it would be removed")
    _clean(folder)
    stage = Stage(folder, free_ports(PORTS))
    for number in (signal.SIGINT, signal.SIGTERM):  # also where a shell's background job was told to ignore them
        signal.signal(number, signal.default_int_handler)
    try:
        end = _play(stage)
    except KeyboardInterrupt:
        end = _interrupted(stage)
    except Exception as error:  # noqa: BLE001  the outermost frame: whatever it was, nothing may be left running
        console.print(f"podfleet demo: {error or type(error).__name__}", style="red", markup=False, soft_wrap=True)
        end = _interrupted(stage)
    _stop(stage)
    if not chosen.keep:
        shutil.rmtree(folder / "project", ignore_errors=True)
    console.print(str(end), style="bold green" if end.good else "bold red", markup=False, soft_wrap=True)
    if not end.good:
        console.print(f"logs: {stage.logs} and {folder / 'cloud'}", markup=False, soft_wrap=True)
    return 0 if end.good else 1


def _play(stage: Stage) -> Verdict:
    """The scenes, in order."""
    _scene("1 · the stand-in cloud and the queue server, on loopback")
    stage.lay()
    stage.start_cloud()
    stage.start_queue()
    console.print(f"cloud {stage.cloud_url}   tailnet {stage.tailscale_url}   queue {stage.queue_url}")

    _scene("2 · sixteen episodes of real speech")
    episodes = Episodes.load()
    episodes.enqueue(stage)
    console.print(episodes.summary())

    _scene("3 · the plan, with its price; then two pods")
    _engine(stage, ["pulumi", "preview", "--non-interactive", "--stack", STACK], "preview")
    _engine(stage, UP, "up")

    _scene("4 · the reconciler sizes the fleet from the queue")
    _engine(stage, RECONCILE, "reconcile")

    _scene("5 · transcripts arrive")
    Watch(stage, episodes, console).until_drained(limit_s=DRAIN_LIMIT_S)

    _scene("6 · destroy, and look for anything left")
    _engine(stage, DESTROY, "destroy")
    return verdict(stage, episodes)


def _engine(stage: Stage, command: list[str], name: str) -> None:
    """Run a command of the engine, show its lines and keep them in a log."""
    console.print(
        f"$ {' '.join(Path(word).name if word.startswith('/') else word for word in command)}",
        style="bold",
        markup=False,
    )
    started_s = time.monotonic()
    log = stage.logs / f"{name}.log"
    shown = Shown()
    with log.open("a") as file:

        def show(line: str) -> None:
            file.write(f"{line}\n")
            if shown.wants(line):
                console.print(f"  {line}", style="dim", markup=False, soft_wrap=True)

        rc = stage.stream(command, show)
    console.print(f"  ({time.monotonic() - started_s:.0f} s)", style="dim")
    if rc:
        raise StageError(f"{name} failed (exit {rc}); see {log}")


class Shown:
    """Which of the engine's lines a spectator wants; the log has them all."""

    NOISE = re.compile(
        r"^\s*$|^@|ing \(0s\)\s*$|messages?\s*$| refresh| running\s*$"  # ticks, starts, what did not change
        r"|^    [\w:/-]+ [\w-]+\s*$|^The resources|^If you want"
    )
    SAID_AGAIN = ("Diagnostics:", "Outputs:")

    def __init__(self) -> None:
        self._again = False

    def wants(self, line: str) -> bool:
        if line.startswith(self.SAID_AGAIN):
            self._again = True
        elif line.startswith("Resources:"):
            self._again = False
        return "error" in line or not (self._again or self.NOISE.search(line))


def _interrupted(stage: Stage) -> Verdict:
    """Ctrl-C or a failure: whatever was made is destroyed, then counted. The cloud's own end is the last fuse."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    console.print("cleaning up: destroying whatever was made; this takes a few seconds", style="yellow")
    try:
        stage.pulumi("cancel", "--yes")
        stage.pulumi("destroy", "--yes", "--skip-preview")
        left = leftovers(stage)
    except (StageError, httpx.HTTPError, OSError, KeyError) as error:
        left = (
            f"what is left is not known ({error or type(error).__name__}); the stand-in cloud is stopped with its pods"
        )
    return Verdict(good=False, line=f"podfleet demo: interrupted · {left}")


def _stop(stage: Stage) -> None:
    stage.stop_queue()
    stage.stop_cloud()


def _clean(folder: Path) -> None:
    """Away with the last run, ending what of it may still be alive."""
    if (folder / "cloud").exists():
        Stage(folder, free_ports(PORTS)).stop_cloud()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / MARK).touch()


def _scene(title: str) -> None:
    console.print()
    console.rule(title, align="left", style="cyan")


if __name__ == "__main__":
    sys.exit(main())
