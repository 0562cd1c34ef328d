"""What one create has heard from its candidates, and the one line that it says when there is none left. Pure.

Kept by `core.PodCore` while it looks for a pod to rent.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from podfleet.binding import Market, explain
from podfleet.config import NAMESPACE
from podfleet.errors import ApiUnavailable, NoCapacity, ProviderError, RequestRejected, SpendLimit
from podfleet.placement import Avoid, Candidate, Ranking, Wish, shown, summary

Key = tuple[str, str, str | None]
FAULTS = 3  # so many candidates refused with the same unknown words: it is the request that is wrong
LINE_CHARS = 240
LINES = 12  # in a pod's state


@dataclass(slots=True)
class Trail:
    """One create's memory, over all of its rounds."""

    ranking: Ranking = field(default_factory=lambda: Ranking((), ()))
    refusals: dict[Key, tuple[Candidate, ProviderError | str]] = field(default_factory=dict)
    avoid: list[Avoid] = field(default_factory=list)
    unclear: ApiUnavailable | None = None
    too_dear: SpendLimit | None = None
    unpriced: SpendLimit | None = None
    blind: str = ""  # why the catalogue could not be read
    rounds: int = 0
    round_ended_s: float = float("-inf")
    may_change: bool = False  # a later round may find something
    _dear_usd_per_hr: float = float("inf")
    _settled: set[Key] = field(default_factory=set)
    _faults: tuple[str, int] = ("", 0)

    @property
    def hopeless(self) -> bool:
        """The request itself is at fault: no further candidate would take it."""
        return self._faults[1] >= FAULTS

    def begin_round(self) -> None:
        self.rounds += 1
        self.may_change = False

    def end_round(self, now_s: float) -> None:
        """Where nobody was asked for lack of stock, or of a catalogue, a later round may have both."""
        self.round_ended_s = now_s
        if not self.refusals and not self.too_dear:
            self.may_change |= bool(self.blind) or any(each.filter == "stock" for each in self.ranking.rejected)

    def asks(self, candidate: Candidate) -> bool:
        """Whether this candidate has not been refused for good, by the cloud or by the spend guard."""
        return candidate.key not in self._settled and candidate.price_usd_per_hr < self._dear_usd_per_hr

    def refused(self, candidate: Candidate, error: ProviderError) -> None:
        """By the cloud: for now where it is about capacity, else for good."""
        self.refusals[candidate.key] = candidate, error
        if isinstance(error, NoCapacity):
            self.may_change, self._faults = True, ("", 0)
            return
        self._settled.add(candidate.key)
        if isinstance(error, RequestRejected) and error.status == 400:
            text = str(error).replace(error.request_id, "")
            before, times = self._faults
            self._faults = text, times + 1 if text == before else 1

    def refused_by_guard(self, candidate: Candidate, error: SpendLimit) -> None:
        """This candidate and all that are as dear; one without a price stands for itself."""
        self._settled.add(candidate.key)
        if not candidate.price_usd_per_hr:
            self.unpriced = error
        else:
            self.too_dear = error
            self._dear_usd_per_hr = min(self._dear_usd_per_hr, candidate.price_usd_per_hr)

    def unfit(self, candidate: Candidate, host: Avoid, reason: str) -> None:
        """It was rented and ended again: its host is not good enough."""
        self.refusals[candidate.key] = candidate, reason
        self.avoid.append(host)

    def rejected(self) -> tuple[str, ...]:
        """For the state: what was asked and refused, then what was not asked; short."""
        told = [f"{candidate.where}: {reason}" for candidate, reason in self.refusals.values()]
        lines = (*told, *summary(self.ranking.rejected, LINES))
        return tuple(line if len(line) <= LINE_CHARS else f"{line[: LINE_CHARS - 1]}…" for line in lines)[:LINES]


def final_word(name: str, trail: Trail, wish: Wish, market: Market | None) -> ProviderError:
    """Why there is no pod: the last detail, the filter that is binding, and what to change. One line."""
    if not trail.refusals:
        return trail.too_dear or trail.unpriced or _nothing_to_ask(name, trail, wish, market)
    last = _most_telling(trail)
    rounds = f" in {trail.rounds} rounds" if trail.rounds > 1 else ""
    tried = shown(tuple(candidate.where for candidate, _ in trail.refusals.values()))
    text = f"none of {len(trail.refusals)} candidates ({tried}) could be rented{rounds}: {last}"
    if isinstance(last, RequestRejected):
        return RequestRejected(f"{name}: {text}", status=last.status, request_id=last.request_id)
    if trail.too_dear:
        return SpendLimit(f"{trail.too_dear}; of what is cheaper, {text}", key=trail.too_dear.key)
    return NoCapacity(f"{name}: {text}{_advice(wish, market)}")


def _nothing_to_ask(name: str, trail: Trail, wish: Wish, market: Market | None) -> ProviderError:
    if trail.unclear:
        return NoCapacity(f"{name}: no answer from any candidate that a pod was rented")
    if trail.blind and not wish.gpu_types:
        advice = f"name types in {NAMESPACE}:gpuTypes, or run it again"
        text = f"the catalogue does not answer, so that there is nothing to choose from ({trail.blind}): {advice}"
        return ApiUnavailable(f"{name}: {text}", maybe_done=False)
    why = "; ".join(summary(trail.ranking.rejected, 3))
    return NoCapacity(f"{name}: no offer fits{f' ({why})' if why else ''}{_advice(wish, market)}")


def _most_telling(trail: Trail) -> ProviderError | str:
    """A refusal that is not about capacity says more than one that is."""
    reasons = [reason for _, reason in trail.refusals.values()]
    return next((reason for reason in reversed(reasons) if isinstance(reason, RequestRejected)), reasons[-1])


def _advice(wish: Wish, market: Market | None) -> str:
    if market is None:
        return ""
    why = explain(wish, market)
    if not why:
        return "; nothing else is in stock: run it again later"
    return f". {why}: relax it in the stack file, or run it again later"
