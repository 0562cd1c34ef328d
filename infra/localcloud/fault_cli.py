"""`localcloud fault add|list|remove|clear|kinds`: what the running cloud shall do wrong. Called by `cli`."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from localcloud import facts
from localcloud.errors import BadFault
from localcloud.faultkinds import KINDS
from localcloud.faults import Action
from localcloud.remote import DEFAULT_DIR, call, running

app = typer.Typer(help="What shall go wrong.", no_args_is_help=True)
Dir = Annotated[Path, typer.Option("--dir", help="Where everything is kept.")]
ACTIONS = get_args(Action)
ROW = "{id:<5} {what:<32} {hits:>4} {matched:>7}  {rest}\n"


@app.command()
def add(  # noqa: PLR0913, PLR0917 - one parameter per option
    kind: Annotated[str, typer.Argument(help="A kind (see `kinds`), or an action with --op.")],
    nth: Annotated[int, typer.Option(min=1, help="The first match to fail.")] = 1,
    times: Annotated[int | None, typer.Option(min=0, help="So many matches; 0 = for ever.")] = None,
    name: Annotated[str | None, typer.Option(help="Only pods and secrets whose name contains this.")] = None,
    probability: Annotated[float | None, typer.Option(help="Above 0, at most 1.")] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed fails the same matches.")] = None,
    delay: Annotated[float | None, typer.Option(min=0, help="Seconds.")] = None,
    op: Annotated[str | None, typer.Option(help="The operation, for kinds of any request and for actions.")] = None,
    phase: Annotated[str | None, typer.Option(help="before or after the commit, for actions.")] = None,
    status: Annotated[int | None, typer.Option(help="HTTP status of an answer.")] = None,
    detail: Annotated[str | None, typer.Option(help="Words of an answer, or of a system log line.")] = None,
    folder: Dir = DEFAULT_DIR,
) -> None:
    """Arm a fault and print its id."""
    if kind not in (*KINDS, *ACTIONS):
        raise BadFault(f"there is no fault {kind!r}; kinds: {', '.join(KINDS)}; with --op also: {', '.join(ACTIONS)}")
    options = {
        "kind" if kind in KINDS else "action": kind,
        "nth": nth,
        "times": times,
        "name_contains": name,
        "probability": probability,
        "seed": seed,
        "delay_s": delay,
        "op": op,
        "phase": phase,
        "status": status,
        "detail": detail,
    }
    given = {key: value for key, value in options.items() if value is not None}
    sys.stdout.write(call(running(folder), "POST", "/_emu/faults", given)["id"] + "\n")


@app.command("list")
def show(
    folder: Dir = DEFAULT_DIR, as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False
) -> None:
    """Armed and used-up faults, with how often each matched and hit."""
    faults: list[dict[str, Any]] = call(running(folder), "GET", "/_emu/faults")["faults"]
    if as_json:
        sys.stdout.write(json.dumps(faults, indent=1) + "\n")
        return
    sys.stdout.write(ROW.format(id="ID", what="FAULT", hits="HITS", matched="MATCHED", rest=""))
    for fault in faults:
        what = fault["kind"] or f"{fault['action']} {fault['phase']} {fault['op']}"
        numbers = {"id": fault["id"], "hits": fault["hits"], "matched": fault["matched"]}
        sys.stdout.write(ROW.format(what=what, rest=_rest(fault), **numbers))


@app.command()
def remove(fault_id: Annotated[str, typer.Argument(metavar="ID")], folder: Dir = DEFAULT_DIR) -> None:
    """Disarm one fault and let go what it holds."""
    call(running(folder), "DELETE", f"/_emu/faults/{fault_id}")


@app.command()
def clear(folder: Dir = DEFAULT_DIR) -> None:
    """Disarm all faults and let go what they hold."""
    call(running(folder), "DELETE", "/_emu/faults")


@app.command()
def kinds() -> None:
    """The named faults, one line each, with what they use where an order says nothing."""
    usual = facts.load().fault_defaults
    for name, kind in KINDS.items():
        given = usual[name].given() if name in usual else {}
        defaults = ", ".join(f"{key} {value}" for key, value in given.items() if key != "detail")
        sys.stdout.write(f"{name:<18} {kind.text}{f' ({defaults})' if defaults else ''}\n")


def _rest(fault: dict[str, Any]) -> str:
    words = [f"nth {fault['nth']}", f"times {fault['times'] or 'for ever'}"]
    words += [f"name {fault['name_contains']}"] if fault["name_contains"] else []
    words += [f"probability {fault['probability']} seed {fault['seed']}"] if fault["probability"] < 1 else []
    words += [f"delay {fault['delay_s']} s"] if fault["delay_s"] else []
    return ", ".join(words)
