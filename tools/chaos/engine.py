"""A stand-in for the Pulumi engine, true to it where a crash is concerned: what it saves when, and in which order.

Create → saved; replaced: the old one deleted and forgotten before the new one is made; not declared any more: deleted
last, dependents first; one failure: nothing new begins, what is under way ends and is saved, exit status 1.
(Measured on the real one; the real one itself is driven by `engine_points`.) Runs in `driver`'s process, and in the
stateful property test.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from tools.chaos.program import Declared, Ref
from tools.chaos.statefile import Resource, StateFile

PARALLEL = 64
Props = dict[str, Any]


class StepFailed(Exception):
    """A provider's error, or its death; the text is what a person would see."""


class Abandoned(Exception):
    """The engine was told to behave as if it had been killed."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One call of a provider."""

    verb: str
    kind: str
    id: str = ""
    olds: Props = field(default_factory=dict, repr=False)
    news: Props = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; `replace` and `changes` are a diff's."""

    id: str = ""
    outs: Props = field(default_factory=dict, repr=False)
    changes: bool = False
    replace: bool = False


class Port(Protocol):
    """The way to the providers; raises StepFailed."""

    def ask(self, ask: Ask) -> Answer: ...


class Engine:
    """One update of one stack. `steps` are those that were more than a look, as begun."""

    def __init__(self, port: Port, file: StateFile, say: Callable[[str], None], parallel: int = PARALLEL) -> None:
        self._port = port
        self._file = file
        self._say = say
        self._lock = threading.RLock()
        self._resources = file.load()
        self._pending: list[str] = []
        self._failed = False
        self._abandoned = False
        self._parallel = parallel
        self.steps: list[str] = []

    @property
    def resources(self) -> Mapping[str, Resource]:
        """As the state has them."""
        return self._resources

    def update(self, program: Sequence[Declared], *, refresh: bool = False) -> bool:
        """`up`; False where a step failed."""
        if refresh and not self.refresh():
            return False
        declared = {each.name: each for each in program}
        self._walk(
            {name: self._registering(each) for name, each in declared.items()},
            {name: each.dependencies for name, each in declared.items()},
        )
        return not self._failed and self._delete_all([name for name in self._resources if name not in declared])

    def destroy(self) -> bool:
        """Everything, dependents first."""
        return self._delete_all(list(self._resources))

    def refresh(self) -> bool:
        """Read everything; what is gone leaves the state."""
        self._walk({name: self._reading(each) for name, each in self._resources.items()}, {})
        return not self._failed

    def abandon(self) -> None:
        """From now on as if killed: nothing is saved, nothing new is asked for. For tests in one process."""
        with self._lock:
            self._abandoned = True

    # One resource

    def _registering(self, declared: Declared) -> Callable[[], None]:
        def register() -> None:
            news = self._resolved(declared.inputs)
            old = self._resources.get(declared.name)
            self._ask(Ask("check", declared.kind, olds=old.inputs if old else {}, news=news))
            if old:
                diff = self._ask(Ask("diff", declared.kind, old.id, old.outputs, news))
                if not diff.changes:
                    self._keep(declared, old.id, news, old.outputs)
                    return
                if not diff.replace:
                    outs = self._step("update", declared.name, Ask("update", old.kind, old.id, old.outputs, news)).outs
                    self._keep(declared, old.id, news, outs)
                    return
                self._delete(old)
            made = self._step("create", declared.name, Ask("create", declared.kind, news=news))
            self._keep(declared, made.id, news, made.outs)

        return register

    def _reading(self, known: Resource) -> Callable[[], None]:
        def read() -> None:
            found = self._ask(Ask("read", known.kind, known.id, known.outputs))
            with self._saving():
                if found.id:
                    known.outputs = found.outs
                else:
                    del self._resources[known.name]

        return read

    def _delete_all(self, names: Sequence[str]) -> bool:
        chosen = [self._resources[name] for name in names]
        self._walk(
            {each.name: self._deleting(each) for each in chosen},
            {each.name: [other.name for other in chosen if each.name in other.after] for each in chosen},
        )
        return not self._failed

    def _deleting(self, known: Resource) -> Callable[[], None]:
        return lambda: self._delete(known)

    def _delete(self, known: Resource) -> None:
        self._step("delete", known.name, Ask("delete", known.kind, known.id, known.outputs))
        with self._saving():
            self._resources.pop(known.name, None)

    def _keep(self, declared: Declared, id_: str, news: Props, outs: Props) -> None:
        with self._saving():
            after = sorted(declared.dependencies)
            self._resources[declared.name] = Resource(declared.name, declared.kind, id_, news, outs, after)

    def _resolved(self, value: Any) -> Any:
        if isinstance(value, Ref):
            known = self._resources[value.name]
            return known.id if value.prop == "id" else known.outputs[value.prop]
        if isinstance(value, Mapping):
            return {key: self._resolved(each) for key, each in value.items()}
        return [self._resolved(each) for each in value] if isinstance(value, list) else value

    # Steps and saves

    def _step(self, verb: str, name: str, ask: Ask) -> Answer:
        """A change: noted as begun, done, told."""
        with self._saving():
            if self._failed:
                raise StepFailed("not begun: another step has failed")
            self.steps.append(f"{verb} {name}")
            self._pending.append(f"{verb} {name}")
        self._say(f"{verb} {name} …")
        try:
            answer = self._ask(ask)
        finally:
            with self._saving():
                self._pending.remove(f"{verb} {name}")
        self._say(f"{verb} {name}: done {answer.id}")
        return answer

    def _ask(self, ask: Ask) -> Answer:
        if self._abandoned:
            raise Abandoned
        return self._port.ask(ask)

    @contextmanager
    def _saving(self) -> Iterator[None]:
        """A change of the state, saved as soon as it is made."""
        with self._lock:
            yield
            if self._abandoned:
                raise Abandoned
            self._file.save(self._resources, self._pending)

    def _walk(self, work: Mapping[str, Callable[[], None]], after: Mapping[str, Collection[str]]) -> None:
        """Each once all is done that it comes after; a failure lets nothing new begin."""
        left, done = dict(work), set[str]()
        running: dict[Future[None], str] = {}
        with ThreadPoolExecutor(self._parallel) as threads:
            while True:
                ready = [name for name in left if done.issuperset(set(after.get(name, ())) & work.keys())]
                for name in [] if self._failed else ready:
                    running[threads.submit(left.pop(name))] = name
                if not running:
                    return
                for finished in wait(running, return_when=FIRST_COMPLETED).done:
                    name = running.pop(finished)
                    if self._succeeded(name, finished):
                        done.add(name)

    def _succeeded(self, name: str, finished: Future[None]) -> bool:
        try:
            finished.result()
        except StepFailed as error:
            self._failed = True
            self._say(f"error: {name}: {error}")
            return False
        except Abandoned:
            self._failed = True
            return False
        return True
