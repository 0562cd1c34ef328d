"""The operator side's exceptions. `cli` turns them into exit codes; the engine shows their text as one line.

PodfleetError                 1  anything that podfleet itself says
├── ConfigError               2  what was written is wrong; nothing was changed
├── SignalError               1  a queue, metric or log that cannot be read: hold, touch nothing
├── EngineError               1  the Pulumi engine failed; its own error lines
│   ├── StackLocked           1  another update of the stack is running; nothing was changed
│   └── StateUnreadable       1  the stack's state cannot be read; nothing was changed
├── EngineGone                1  the engine that asked for a change has died; the change was not made
├── Interrupted               1  told to stop (Ctrl-C) before it was begun; the change was not made
├── OtherFleetFound           1  pods that are not ours to touch, or not yet (`pods`)
├── NotReady                  1  `up --wait`: pods that did not come up (`slots`)
├── StaleGeneration           1  somebody else changed the fleet since we looked; nothing was changed
├── Held                      1  the reconciler could not see everything, and so changed nothing
└── ProviderError             1  the cloud's answer
    ├── AuthError             2  401, or no key at all
    ├── NoBalance             1  402
    ├── SpendLimit            1  one pod more would go beyond a limit of the stack (`key`)
    ├── NoCapacity            1  nothing of this kind is free now
    ├── RateLimited           1  429 for longer than we wait (`retry_in_s`)
    ├── RequestRejected       1  any other 4xx (`status`, `request_id`)
    ├── ApiUnavailable        1  5xx, no answer, or one that cannot be read (`maybe_done`)
    │   └── IncompleteList    1  a list without its last page
    ├── CreateFailed          1  a create of unknown outcome (`name`, `pod_id`)
    ├── PodFailed             1  a pod that will not come up (`pod_id`)
    ├── PodsGone              1  pods that the state has and the cloud has not (`pod_ids`)
    └── StillThere            1  pods that were ended and are not gone (`pod_ids`)

Every error says what it left behind, as an attribute and in its text.
"""

from __future__ import annotations

from collections.abc import Sequence

KEY_VARIABLE = "RUNPOD_API_KEY"
STALE = "the fleet was changed by somebody else since we looked: nothing was changed; look again"


class PodfleetError(Exception):
    """Root of the tree. `exit_code` is what a command of ours returns."""

    exit_code = 1


class ConfigError(PodfleetError):
    """Wrong config, credentials file or arguments: a line per problem, each naming its key."""

    exit_code = 2

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems = (problems,) if isinstance(problems, str) else tuple(problems)
        super().__init__("\n".join(self.problems))


class SignalError(PodfleetError):
    """A signal that cannot be read. It never changes the size."""


class EngineError(PodfleetError):
    """The engine's own words; what it had done until then is in the state. `pod_ids`: pods that it says have failed."""

    def __init__(self, message: str, *, pod_ids: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.pod_ids = tuple(pod_ids)


class StackLocked(EngineError):
    """Another update holds the stack's lock."""


class StateUnreadable(EngineError):
    """No state, or none that makes sense: what it would know of a pod is not known."""


class EngineGone(PodfleetError):
    """The engine that this provider process belongs to is gone; going on would make pods that nobody records."""


class Interrupted(PodfleetError):
    """Nothing of `what` was begun; what had been begun before was finished."""

    def __init__(self, why: str, what: str = "") -> None:
        super().__init__(f"interrupted ({why}){': not done: ' if what else ''}{what}; run it again")


class OtherFleetFound(PodfleetError):
    """Pods found where none of ours were expected; none of them was touched."""

    def __init__(self, message: str, *, pods: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.pods = tuple(pods)


class NotReady(PodfleetError):
    """Wanted pods that are not ready, and will not be without a person; what is left and costs money is in the text."""

    def __init__(self, message: str, *, slots: Sequence[str]) -> None:
        super().__init__(message)
        self.slots = tuple(slots)


class StaleGeneration(PodfleetError):
    """The state's Guard generation is not the one that the caller saw."""

    def __init__(self) -> None:
        super().__init__(STALE)


class Held(PodfleetError):
    """A reconciler that cannot see queue, pods or state keeps its hands off them."""

    def __init__(self, size: int, reason: str) -> None:
        super().__init__(f"held at {size} pods, nothing was changed: {'; '.join(reason.splitlines())}")


class ProviderError(PodfleetError):
    """Whatever the provider's API said or failed to say."""


class AuthError(ProviderError):
    """The key is missing or refused."""

    exit_code = 2

    def __init__(self, reason: str) -> None:
        super().__init__(f"RunPod refuses the key: {reason}; set {KEY_VARIABLE} to a valid key of this account")


class NoBalance(ProviderError):
    """The account cannot pay for a pod."""


class SpendLimit(ProviderError):
    """The spend guard lets no further pod be rented. `key` is the config key whose limit it is."""

    def __init__(self, message: str, *, key: str) -> None:
        super().__init__(message)
        self.key = key


class NoCapacity(ProviderError):
    """No machine with this GPU, cloud and data centre is free now."""


class RateLimited(ProviderError):
    """Still 429 after we waited as long as we may."""

    def __init__(self, message: str, *, retry_in_s: float) -> None:
        super().__init__(message)
        self.retry_in_s = retry_in_s

    def given_up(self) -> RateLimited:
        """The same, for people: it would take longer than a command may take."""
        text = f"{self}: it asks to wait {self.retry_in_s:.0f} s more, which is too long; run it again after that"
        return RateLimited(text, retry_in_s=self.retry_in_s)


class RequestRejected(ProviderError):
    """The request itself is not acceptable; the same request will not be accepted later."""

    def __init__(self, message: str, *, status: int, request_id: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.request_id = request_id


class ApiUnavailable(ProviderError):
    """No usable answer. With `maybe_done` the request may have been carried out all the same."""

    def __init__(self, message: str, *, maybe_done: bool = True, request_id: str = "") -> None:
        super().__init__(message)
        self.maybe_done = maybe_done
        self.request_id = request_id


class IncompleteList(ApiUnavailable):
    """A paged list that ends in the middle: it proves nothing about what is not on it."""


class CreateFailed(ProviderError):
    """A pod may exist that is not in the state; `pod_id` is known when the API named it."""

    def __init__(self, message: str, *, name: str, pod_id: str | None = None) -> None:
        super().__init__(message)
        self.name = name
        self.pod_id = pod_id


class PodFailed(ProviderError):
    """A pod is there (and costs money) but cannot be used."""

    def __init__(self, message: str, *, pod_id: str) -> None:
        super().__init__(message)
        self.pod_id = pod_id


class PodsGone(ProviderError):
    """Pods of the state that are proven absent, where nobody has looked for that before."""

    def __init__(self, message: str, *, pod_ids: Sequence[str]) -> None:
        super().__init__(message)
        self.pod_ids = tuple(pod_ids)


class StillThere(ProviderError):
    """Pods that the API goes on listing after they were ended."""

    def __init__(self, message: str, *, pod_ids: Sequence[str]) -> None:
        super().__init__(message)
        self.pod_ids = tuple(pod_ids)
