"""The engine, driven through the Automation API: preview, up, refresh, destroy, generation, and the size in one edit.

Called by the command line and the reconciler. The program is the one in `infra/`; the stack file is the checkout's.
"""

from __future__ import annotations

import json
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from pulumi import automation as auto

from podfleet.config import NAMESPACE
from podfleet.errors import STALE, EngineError, StackLocked, StaleGeneration
from podfleet.providers.runpod.settings import GENERATION_VARIABLE
from podfleet.workspace import PARALLEL, Workspace

GUARD_TYPE = "pulumi-python:dynamic/runpod:Guard"
POD_TYPE = "pulumi-python:dynamic/runpod:Pod"
FAILED_POD = re.compile(r"\bpod ([A-Za-z0-9_-]{1,64}) (?:is|could not be) ")  # how PodFailed begins
FROM_A_PLUGIN = "Exception calling application: "  # what gRPC puts before the text of a provider's error
SEEN_ABOVE = frozenset({"update failed", "preview failed"})  # the engine's last word, when the reason is told already
Show = Callable[[str], None]


class Deployment:
    """One stack of one checkout. Methods raise EngineError; StackLocked when another update runs."""

    def __init__(self, workspace: Workspace, env: Mapping[str, str], *, show: Show) -> None:
        self._workspace = workspace
        self._show = show
        options = auto.LocalWorkspaceOptions(work_dir=str(workspace.project_dir), env_vars=dict(env))
        self._stack = _guarded(
            lambda: auto.select_stack(stack_name=workspace.stack, work_dir=str(workspace.project_dir), opts=options)
        )

    def preview(self) -> None:
        _guarded(lambda: self._stack.preview(on_output=self._show, parallel=PARALLEL))

    def tell(self, variables: Mapping[str, str]) -> None:
        """Environment of the engine and its providers, from the next run on."""
        self._stack.workspace.env_vars.update(variables)

    def up(self, *, expect_generation: str = "", refresh: bool = False) -> None:
        """Raises StaleGeneration where the fleet is no longer the one of `expect_generation`; empty: any will do.

        With `refresh` it looks first at what has become of the pods: what has ended is rented again.
        """
        self.tell({GENERATION_VARIABLE: expect_generation})
        _guarded(
            lambda: self._stack.up(
                on_output=self._show, parallel=PARALLEL, suppress_outputs=False, refresh=refresh or None
            )
        )

    def resize(self, slots: Sequence[str], *, decision: str, expect_generation: str = "") -> None:
        """Write the size and bring it about. An `up` that is refused as a whole leaves the stack file as it was."""
        file = self._workspace.stack_file
        before = file.read_bytes()
        self.set_size(slots, decision=decision)
        written = file.read_bytes()
        try:
            self.up(expect_generation=expect_generation)
        except (StackLocked, StaleGeneration):
            if file.read_bytes() == written:  # else somebody else's size is in there by now
                file.write_bytes(before)
            raise

    def refresh(self) -> None:
        _guarded(lambda: self._stack.refresh(on_output=self._show, parallel=PARALLEL))

    def destroy(self) -> None:
        _guarded(lambda: self._stack.destroy(on_output=self._show, parallel=PARALLEL))

    def generation(self) -> str:
        """Guard's generation as the state has it; empty before the first `up`.

        Not the output of that name: an `up` that failed in a pod has changed Guard and left the outputs as they were.
        """
        for resource in self._resources(GUARD_TYPE):
            return str((resource.get("outputs") or {}).get("generation") or "")
        return ""

    def pod_ids(self) -> dict[str, str]:
        """Slot → pod, as the state has it; one that is about to be deleted does not count."""
        pods = [pod for pod in self._resources(POD_TYPE) if pod.get("id") and not pod.get("delete")]
        return {str((pod.get("inputs") or {}).get("slot")): str(pod["id"]) for pod in pods}

    def _resources(self, type_: str) -> list[dict[str, Any]]:
        state: dict[str, Any] = _guarded(self._stack.export_stack).deployment or {}
        return [resource for resource in state.get("resources") or () if resource["type"] == type_]

    def set_size(self, slots: Sequence[str], *, decision: str) -> None:
        """Write `pods`, `slots` and the reason for them in one edit of the stack file."""
        values: dict[str, dict[str, Any]] = {
            "pods": {"value": str(len(slots))},
            "slots": {"value": json.dumps(list(slots)), "objectValue": list(slots)},
            "decision": {"value": decision},
        }
        text = json.dumps({f"{NAMESPACE}:{key}": {**value, "secret": False} for key, value in values.items()})
        _guarded(lambda: self._stack.workspace.set_all_config_json(self._workspace.stack, text))


def _guarded(call: Callable[[], Any]) -> Any:
    try:
        with _engine_first():
            return call()
    except auto.ConcurrentUpdateError as error:
        raise StackLocked(_lock_line(str(error))) from None
    except auto.CommandError as error:
        if STALE in str(error):  # it comes from another process: its text is all that there is
            raise StaleGeneration from None
        reasons = _reasons(str(error))
        raise EngineError(reasons, pod_ids=list(dict.fromkeys(FAILED_POD.findall(reasons)))) from None


@contextmanager
def _engine_first() -> Iterator[None]:
    """A terminal's Ctrl-C reaches the engine, too: it finishes what it has begun, and only then we are interrupted.

    Raises KeyboardInterrupt afterwards, whatever the engine said.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []

    def note(number: int, _frame: object) -> None:
        if not came:
            print("podfleet: interrupted: the engine finishes what it has begun", file=sys.stderr)  # noqa: T201
        came.append(number)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before or signal.SIG_DFL)
        if came:
            raise KeyboardInterrupt


def _lock_line(text: str) -> str:
    found = re.search(r"created by (\S+) \(pid (\d+)\)(?: at (\S+))?", text)
    holder = f" (pid {found[2]} on {found[1].split('@')[-1]})" if found else ""
    return (
        f"another update of this stack is running{holder}: wait for it; "
        "if that process is dead, run `pulumi cancel --yes` and try again"
    )


def _reasons(text: str) -> str:
    """The engine's error lines, each once; its whole output when it names none."""
    lines = [line.split("error: ", 1)[1].strip() for line in text.splitlines() if "error: " in line]
    told = dict.fromkeys(line.removeprefix(FROM_A_PLUGIN) for line in lines)
    return "\n".join([line for line in told if line not in SEEN_ABOVE] or told) or text.strip()
