"""The lives that go on, by pod: one begins when the one before is over. Used by `cloud`."""

import asyncio
from collections.abc import Callable

from localcloud.life import Ground, Life
from localcloud.model import Pod
from localcloud.podlog import PodLog

Stopping = asyncio.Task[None]


class Lives:
    """Begins and ends what runs in pods."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._lives: dict[str, Life] = {}
        self._stops: dict[str, Stopping] = {}

    def begin(self, pod: Pod, log: PodLog, *, boot: bool = True, after: Stopping | None = None) -> None:
        """Let it live, once an earlier life of it is over; without `boot` its container alone starts."""
        life = Life(pod, log, self._ground)
        self._lives[pod.id] = life
        life.begin(after=self._stops.pop(pod.id, after), boot=boot)

    def stop(self, pod: Pod) -> Stopping | None:
        """Kill in the background, after a kill that is still going on; None when nothing is left to kill."""
        life, earlier = self._lives.pop(pod.id, None), self._stops.get(pod.id)
        if life is None:
            return earlier
        life.cancel()  # at once: a step of it that is due now must not change the state just set
        stopping = asyncio.ensure_future(_stop_after(earlier, life, self._ground.facts().grace_s))
        self._stops[pod.id] = stopping
        stopping.add_done_callback(lambda _: self._forget(pod.id, stopping))
        return stopping

    def end(self, pod: Pod, then: Callable[[], None]) -> None:
        """Stop it for good; `then` when nothing of it is left."""
        stopping = self.stop(pod)
        if stopping:
            stopping.add_done_callback(lambda _: then())
        else:
            then()

    def meet_trouble(self) -> None:
        """A fault about running pods was armed: some may meet it now."""
        for life in list(self._lives.values()):
            life.meet_trouble()

    async def wait(self) -> None:
        """Until all that was stopped is gone."""
        await asyncio.gather(*self._stops.values(), return_exceptions=True)

    def _forget(self, pod_id: str, stopping: Stopping) -> None:
        if self._stops.get(pod_id) is stopping:
            del self._stops[pod_id]


async def _stop_after(earlier: Stopping | None, life: Life, grace_s: float) -> None:
    if earlier:
        await asyncio.wait([earlier])
    await life.stop(grace_s)
