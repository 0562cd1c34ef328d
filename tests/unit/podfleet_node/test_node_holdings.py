"""What a node may hold, and the order of claim and heartbeat."""

from pathlib import Path

import anyio
import anyio.lowlevel
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from node_fakes import TinyQueue, make_desk

from podfleet_node.holdings import Held, Holdings, Stage
from podfleet_node.prefetch import Prefetch


def _holding(*jobs: tuple[Stage, float | None]) -> Holdings:
    holdings = Holdings()
    for number, (stage, audio_s) in enumerate(jobs):
        holdings.add(Held(number, stage=stage, audio_s=audio_s))
    return holdings


@pytest.mark.parametrize(
    ("jobs", "room"),
    [
        ([], True),
        ([(Stage.SENDING, 900)], True),
        ([(Stage.SENDING, 1)] * 5, False),  # the server takes no transcripts
        ([(Stage.FETCHING, None)], False),  # unknown length
        ([(Stage.RUNNING, 50)], True),
        ([(Stage.RUNNING, 100)], False),
        ([(Stage.RUNNING, 50), (Stage.WAITING, 49)], True),
        ([(Stage.RUNNING, 50), (Stage.WAITING, 50)], False),
        ([(Stage.RUNNING, 1), (Stage.WAITING, 1), (Stage.WAITING, 1), (Stage.WAITING, 1)], False),
    ],
)
def test_room_is_bounded_by_jobs_and_by_audio(jobs: list[tuple[Stage, float | None]], room: bool) -> None:
    assert _holding(*jobs).has_room(jobs=3, audio_s=100.0) is room


def test_progress_of_the_running_job_makes_room() -> None:
    holdings = _holding((Stage.RUNNING, 150))
    assert not holdings.has_room(jobs=3, audio_s=100.0)
    holdings.at(Stage.RUNNING)[0].done_s = 60
    assert holdings.has_room(jobs=3, audio_s=100.0)


@given(st.lists(st.tuples(st.sampled_from(list(Stage)), st.none() | st.floats(0, 1e5)), max_size=8))
def test_every_held_job_is_in_the_heartbeat(jobs: list[tuple[Stage, float | None]]) -> None:
    assert _holding(*jobs).ids() == tuple(range(len(jobs)))


@pytest.mark.anyio
async def test_no_heartbeat_is_built_while_a_claim_is_on_its_way(tmp_path: Path) -> None:
    order: list[str] = []

    async def slow_claim(request: httpx.Request) -> httpx.Response:
        order.append("claim asked")
        await anyio.lowlevel.checkpoint()
        await anyio.lowlevel.checkpoint()
        order.append("claim answered")
        return httpx.Response(200, json={"has_job": True, "job_id": 7})

    desk = make_desk(tmp_path, slow_claim)  # type: ignore[arg-type]
    prefetch = Prefetch(desk, lambda _job: None)

    async def beat() -> None:
        await anyio.lowlevel.checkpoint()
        async with desk.holdings.lock:
            order.append(f"beat with {desk.holdings.ids()}")

    async with anyio.create_task_group() as tg:
        tg.start_soon(prefetch.claim)
        tg.start_soon(beat)
    assert order == ["claim asked", "claim answered", "beat with (7,)"]


@pytest.mark.anyio
async def test_a_claim_without_an_answer_asks_for_a_heartbeat_and_a_pause(tmp_path: Path) -> None:
    queue = TinyQueue(script={"POST /api/nodes/*/claim": [httpx.ReadTimeout("slow")]}, jobs=[4])
    desk = make_desk(tmp_path, queue)
    prefetch = Prefetch(desk, lambda _job: None)
    assert await prefetch.claim() is None
    assert desk.beat_bell.is_rung()
    assert desk.activity.asked_at_s == desk.now_s()
    assert not desk.activity.more_likely


@pytest.mark.anyio
async def test_a_job_that_comes_twice_is_worked_on_once(tmp_path: Path) -> None:
    desk = make_desk(tmp_path, TinyQueue(jobs=[4, 4]))
    prefetch = Prefetch(desk, lambda _job: None)
    first = await prefetch.claim()
    assert first is not None
    assert await prefetch.claim() is None
    assert desk.holdings.at(Stage.FETCHING) == [first]


@pytest.mark.anyio
async def test_the_measured_speed_decides_how_much_is_prefetched(tmp_path: Path) -> None:
    desk = make_desk(tmp_path, TinyQueue(), prefetch_audio_s=60)
    desk.holdings.add(Held(1, stage=Stage.RUNNING, audio_s=100))
    prefetch = Prefetch(desk, lambda _job: None)
    assert prefetch.has_room(speed=2.0)
    assert not prefetch.has_room(speed=1.5)


@pytest.mark.anyio
async def test_the_rest_of_an_earlier_claim_is_not_taken_for_a_later_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job is lost while it is fetched, and claimed again before the first fetch has ended."""
    desk = make_desk(tmp_path, TinyQueue())
    ready: list[Held] = []
    prefetch = Prefetch(desk, ready.append)
    first, second = Held(4), Held(4)
    desk.holdings.add(first)

    async def fetched_too_late(_job: Held) -> None:
        desk.lost(4, at="test")
        desk.holdings.add(second)

    monkeypatch.setattr(prefetch, "_fetch", fetched_too_late)
    await prefetch.fetch(first)
    assert ready == []
    assert desk.holdings.has(second)
    assert not desk.holdings.has(first)
