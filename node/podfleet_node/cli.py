"""The command `podfleet-node`. The only place that reads the environment.

argparse instead of Typer, and imports inside the commands: `run` is PID 1 and must stand before anything that can
break, and the other commands are steps over SSH that a person or a provider waits for.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from podfleet_node.errors import NodeError, NoNodeRunning, SettingsError
from podfleet_node.paths import Paths

if TYPE_CHECKING:
    from collections.abc import Sequence

RC_DEADLINE_PASSED = 3
RC_NO_NODE = 4
START_PATIENCE_S = 15.0


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    args = _parser().parse_args(argv)
    try:
        return int(args.command(args))
    except NoNodeRunning as err:
        return _complain(err, RC_NO_NODE)
    except NodeError as err:
        return _complain(err, 2)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="podfleet-node", description="The runtime of a podfleet pod.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, command: Any, text: str | None) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text) if text else commands.add_parser(name)
        sub.set_defaults(command=command)
        return sub

    add("run", _run, "the whole node; PID 1 of a pod")
    add("start", _start, "let a node work that waits for it")
    add("configure", _configure, "write settings (a JSON object on stdin); a running node reads them again")
    drain = add("drain", _drain, "stop claiming, finish the current job, give the rest back")
    drain.add_argument("--deadline-s", type=float, default=None, metavar="N", help="default: the setting")
    add("status", _status, "what the node does now").add_argument("--json", action="store_true")
    check = add("check", _check, "versions, engine and decoder of this pod; fails when something is missing")
    check.add_argument("--engine", default="", metavar="NAME", help="default: the setting")
    worker = add("worker", _worker, None)
    worker.add_argument("--events-fd", type=int, default=None)
    engine = add("engine", _engine, None)
    engine.add_argument("--engine", required=True)
    engine.add_argument("--model", default="")
    decode = add("decode", _decode, None)
    decode.add_argument("source", type=Path)
    decode.add_argument("target", type=Path)
    return parser


def _run(_args: argparse.Namespace) -> int:
    from podfleet_node.supervisor import run

    return run(os.environ)


def _worker(args: argparse.Namespace) -> int:
    from podfleet_node.worker_process import run

    return run(os.environ, args.events_fd)


def _engine(args: argparse.Namespace) -> int:
    from podfleet_node.engine_process import serve

    return serve(args.engine, args.model)


def _decode(args: argparse.Namespace) -> int:
    from podfleet_node.decode_pyav import decode

    return decode(args.source, args.target)


def _start(_args: argparse.Namespace) -> int:
    """The node may still be on its way up when the step comes: have some patience."""
    from podfleet_node.control import call

    give_up_at_s = time.monotonic() + START_PATIENCE_S
    while True:
        try:
            return _show(call(_paths().control_file, "POST", "/start"))
        except NoNodeRunning:
            if time.monotonic() >= give_up_at_s:
                raise
            time.sleep(0.2)


def _configure(_args: argparse.Namespace) -> int:
    from podfleet_node.control import call
    from podfleet_node.files import write_json
    from podfleet_node.settings import NodeSettings

    values = _object_from_stdin()
    NodeSettings.checked(values)
    write_json(_paths().settings_file, values)
    try:
        call(_paths().control_file, "POST", "/reload")
    except NoNodeRunning:
        return _show({"configured": True, "reloaded": False})
    return _show({"configured": True, "reloaded": True})


def _drain(args: argparse.Namespace) -> int:
    from podfleet_node.control import call

    patience_s = 3600.0 if args.deadline_s is None else args.deadline_s + 30.0
    answer = call(_paths().control_file, "POST", "/drain", {"deadline_s": args.deadline_s}, timeout_s=patience_s)
    _show(answer)
    return 0 if answer.get("drained") else RC_DEADLINE_PASSED


def _status(args: argparse.Namespace) -> int:
    from podfleet_node.control import call

    answer = call(_paths().control_file, "GET", "/status")
    if args.json:
        return _show(answer)
    worker = answer.pop("worker", {})
    for name, value in [*answer.items(), *worker.items()]:
        sys.stdout.write(f"{name:<20} {value}\n")
    return 0


def _check(args: argparse.Namespace) -> int:
    from podfleet_node.check import missing, report

    for line in report(os.environ):
        sys.stdout.write(line + "\n")
    if lacking := missing(os.environ, args.engine):
        raise SettingsError("; ".join(lacking))
    return 0


def _paths() -> Paths:
    return Paths(Path(os.environ.get("PODFLEET_ROOT") or "/"))


def _object_from_stdin() -> dict[str, Any]:
    try:
        values = json.load(sys.stdin)
    except ValueError:
        raise SettingsError("stdin is not JSON") from None
    if not isinstance(values, dict):
        raise SettingsError("stdin is not a JSON object")
    return values


def _show(answer: dict[str, Any]) -> int:
    sys.stdout.write(json.dumps(answer) + "\n")
    return 0


def _complain(err: NodeError, code: int) -> int:
    sys.stderr.write(f"podfleet-node: {err}\n")
    return code
