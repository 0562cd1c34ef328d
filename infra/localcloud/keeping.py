"""What survives the daemon's restart: each part of the state, compared with what was kept last. Used by `daemon`.

`keep` is called before every answer. It looks at a mark per record (cheap: no record is written out to find out that
it is unchanged) and journals the records whose mark is another one than before.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Protocol

from pydantic import TypeAdapter

from localcloud.cloud import Cloud
from localcloud.facts import SettingsPatch
from localcloud.faults import Fault
from localcloud.journal import Journal
from localcloud.ledger import Bill
from localcloud.model import Pod, Secret
from localcloud.tailnet_state import Tailnet

POD, BILL, SECRET = TypeAdapter(Pod), TypeAdapter(Bill), TypeAdapter(Secret)
FAULT_FIELDS = tuple(field.name for field in fields(Fault) if field.name not in ("holding", "released"))
WHOLE = "all"  # the key of a part that is one record


@dataclass(frozen=True, slots=True)
class Part:
    """Records under keys: how to see that one changed, how to write it out, how to take all of them back."""

    name: str
    marks: Callable[[], Mapping[str, Hashable]]
    dump: Callable[[str], Any]
    restore: Callable[[Mapping[str, Any]], None]


class Keeper:
    """Keeps the parts in a journal."""

    def __init__(self, journal: Journal, parts: Sequence[Part]) -> None:
        self._journal = journal
        self._parts = parts
        self._marks: dict[str, Mapping[str, Hashable]] = {part.name: {} for part in parts}

    def restore(self) -> None:
        """Take back what the journal has, in the order of the parts."""
        kept = self._journal.read()
        for part in self._parts:
            part.restore(kept.get(part.name, {}))
            self._marks[part.name] = part.marks()

    def keep(self) -> None:
        """Journal what changed since the last time."""
        changes: dict[str, dict[str, Any]] = {}
        for part in self._parts:
            before, now = self._marks[part.name], part.marks()
            records = {key: part.dump(key) for key, mark in now.items() if before.get(key) != mark}
            records |= dict.fromkeys(before.keys() - now.keys())
            if records:
                changes[part.name] = records
                self._marks[part.name] = now
        if changes:
            self._journal.write(changes)


def parts(cloud: Cloud, tailnet: Tailnet) -> list[Part]:
    """Everything that an account and a tailnet hold. Limits already used up are not kept: their windows begin anew."""
    return [
        _settings(cloud),
        _secrets(cloud),
        _faults(cloud),
        _whole("account", lambda: cloud.account),
        _whole("stock", lambda: cloud.stock),
        _whole("pulls", lambda: cloud.pulls),
        _pods(cloud),
        _bills(cloud),
        _whole("tailnet", lambda: tailnet),
    ]


class Record(Protocol):
    """What writes itself out and takes itself back."""

    def to_json(self) -> Any:
        """All of it."""

    def from_json(self, kept: Any, /) -> None:
        """Take over what `to_json` gave."""


def _whole(name: str, record: Callable[[], Record]) -> Part:
    """A part that is one small record, its own mark; a reset makes a new one."""

    def restore(kept: Mapping[str, Any]) -> None:
        if WHOLE in kept:
            record().from_json(kept[WHOLE])

    return Part(name, lambda: {WHOLE: repr(record().to_json())}, lambda _: record().to_json(), restore)


def _settings(cloud: Cloud) -> Part:
    def read() -> dict[str, Any]:
        return {"patched": cloud.patched, "credit_usd": cloud.ledger.credit_usd}

    def restore(kept: Mapping[str, Any]) -> None:
        if WHOLE in kept:
            cloud.patch(SettingsPatch.model_validate(kept[WHOLE]["patched"]))
            cloud.ledger.credit_usd = kept[WHOLE]["credit_usd"]

    return Part("settings", lambda: {WHOLE: repr(read())}, lambda _: read(), restore)


def _secrets(cloud: Cloud) -> Part:
    def restore(kept: Mapping[str, Any]) -> None:
        cloud.secrets.update({key: SECRET.validate_python(value) for key, value in kept.items()})

    def marks() -> dict[str, Hashable]:
        return {key: (one.value, one.description, one.updated_at_s) for key, one in cloud.secrets.items()}

    return Part("secrets", marks, lambda key: asdict(cloud.secrets[key]), restore)


def _faults(cloud: Cloud) -> Part:
    def restore(kept: Mapping[str, Any]) -> None:
        cloud.faults.restore([Fault(**value) for value in kept.values()])

    def marks() -> dict[str, Hashable]:
        return {fault.id: (fault.matched, fault.hits) for fault in cloud.faults.all()}

    def dump(key: str) -> Any:
        fault = cloud.faults.get(key)
        return {name: getattr(fault, name) for name in FAULT_FIELDS}

    return Part("faults", marks, dump, restore)


def _pods(cloud: Cloud) -> Part:
    def restore(kept: Mapping[str, Any]) -> None:
        cloud.take_back([POD.validate_python(value) for value in kept.values()])

    def marks() -> dict[str, Hashable]:
        return {pod.id: _pod_mark(pod) for pod in (*cloud.ended.values(), *cloud.pods.values())}

    def dump(key: str) -> Any:
        return POD.dump_python(cloud.pods.get(key) or cloud.ended[key], mode="json")

    return Part("pods", marks, dump, restore)


def _pod_mark(pod: Pod) -> Hashable:
    """Requests are replaced, never changed; a list or dict changes with something else or with its length."""
    if pod.ended_at_s is not None:
        return pod.ended_at_s
    values = (getattr(pod, field.name) for field in fields(pod))
    return tuple(id(one) if one is pod.request else len(one) if isinstance(one, list | dict) else one for one in values)


def _bills(cloud: Cloud) -> Part:
    def restore(kept: Mapping[str, Any]) -> None:
        for value in kept.values():
            cloud.ledger.open(BILL.validate_python(value))

    def marks() -> dict[str, Hashable]:
        bills = cloud.ledger.bills.values()
        return {one.pod_id: (one.spans[-1], one.unowned[-1], one.ended_at_s) for one in bills}

    return Part("bills", marks, lambda key: BILL.dump_python(cloud.ledger.bills[key], mode="json"), restore)
