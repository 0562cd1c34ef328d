"""What every pod cost, to the cent, from the same instants that the event log shows. The cloud writes, nobody erases.

It also says how long each pod was charged while nobody owned it: a pod is unowned from its creation until somebody
declares it owned (`POST /_emu/ledger/owned`), and again from the first declaration on that leaves it out.

PURE. A bill is price x time: `price_usd_per_hr * (end - start) / 3600`, summed over the spans in which the pod was
charged. A pod that was never stopped has exactly one span, from `created_at` to `ended_at`.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import TypedDict


class Line(TypedDict):
    """One pod in `GET /_emu/ledger`."""

    id: str
    name: str
    gpu: str
    price_usd_per_hr: float
    created_at: float
    ended_at: float | None
    usd: float
    spans: list[list[float | None]]
    owner_lost_at: float | None
    unowned_s: float


Span = tuple[float, float | None]


@dataclass(slots=True)
class Bill:
    """The charged time of one pod."""

    pod_id: str
    name: str
    gpu: str
    price_usd_per_hr: float
    created_at_s: float
    ended_at_s: float | None = None
    spans: list[Span] = field(default_factory=list)
    unowned: list[Span] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.spans = self.spans or [(self.created_at_s, None)]
        self.unowned = self.unowned or [(self.created_at_s, None)]

    def pause(self, at_s: float) -> None:
        """Stop charging (a stopped pod); no effect when nothing is charged."""
        start, end = self.spans[-1]
        if end is None:
            self.spans[-1] = (start, at_s)

    def resume(self, at_s: float) -> None:
        """Charge again; no effect while the pod is charged anyway."""
        if self.spans[-1][1] is not None:
            self.spans.append((at_s, None))

    def end(self, at_s: float) -> None:
        """Close the bill for good."""
        self.pause(at_s)
        self.ended_at_s = at_s

    def own(self, owned: bool, at_s: float) -> None:
        """Somebody knows this pod from now on, or nobody does; no effect on an ended one."""
        start, end = self.unowned[-1]
        if self.ended_at_s is not None or owned == (end is not None):
            return
        if owned:
            self.unowned[-1] = (start, at_s)
        else:
            self.unowned.append((at_s, None))

    def owner_lost_at_s(self) -> float | None:
        """Since when nobody owns it, or did until its end; None while somebody does."""
        start, end = self.unowned[-1]
        return start if end is None else None

    def unowned_s(self, now_s: float) -> float:
        """How long it was charged without an owner."""
        return sum(_common_s(one, other, now_s) for one in self.unowned for other in self.spans)

    def running(self) -> bool:
        """Whether money runs now."""
        return self.spans[-1][1] is None

    def usd(self, now_s: float) -> float:
        """What it cost so far."""
        return sum(
            self.price_usd_per_hr * ((now_s if end is None else end) - start) / 3600 for start, end in self.spans
        )

    def line(self, now_s: float) -> Line:
        """The bill as the control API shows it."""
        return {
            "id": self.pod_id,
            "name": self.name,
            "gpu": self.gpu,
            "price_usd_per_hr": self.price_usd_per_hr,
            "created_at": self.created_at_s,
            "ended_at": self.ended_at_s,
            "usd": self.usd(now_s),
            "spans": [list(span) for span in self.spans],
            "owner_lost_at": self.owner_lost_at_s(),
            "unowned_s": self.unowned_s(now_s),
        }


def _common_s(one: Span, other: Span, now_s: float) -> float:
    end_s = min(now_s if end is None else end for _, end in (one, other))
    return max(0.0, end_s - max(one[0], other[0]))


class Ledger:
    """All bills, and the account's balance."""

    def __init__(self, balance_usd: float, storage_usd: Callable[[float], float] = lambda _: 0.0) -> None:
        self.bills: dict[str, Bill] = {}
        self.credit_usd = balance_usd
        self._storage_usd = storage_usd

    def open(self, bill: Bill) -> None:
        """Begin to charge a pod."""
        self.bills[bill.pod_id] = bill

    def declare_owned(self, ids: Collection[str], prefix: str, now_s: float) -> None:
        """Of the pods whose names begin with `prefix`, these are owned at this moment and no others."""
        for bill in self.bills.values():
            if bill.name.startswith(prefix):
                bill.own(bill.pod_id in ids, now_s)

    def total_usd(self, now_s: float) -> float:
        """Spent since the start, over all pods."""
        return sum(bill.usd(now_s) for bill in self.bills.values())

    def usd_per_hr(self) -> float:
        """What an hour costs now."""
        return sum(bill.price_usd_per_hr for bill in self.bills.values() if bill.running())

    def balance_usd(self, now_s: float) -> float:
        """Money left, after pods and network volumes."""
        return self.credit_usd - self.total_usd(now_s) - self._storage_usd(now_s)

    def set_balance(self, balance_usd: float, now_s: float) -> None:
        """Pay in (or out): the balance is this from now on."""
        self.credit_usd = balance_usd + self.total_usd(now_s) + self._storage_usd(now_s)

    def lines(self, now_s: float) -> list[Line]:
        """Every bill, oldest pod first."""
        return [bill.line(now_s) for bill in self.bills.values()]
