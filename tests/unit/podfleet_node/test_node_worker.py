"""The worker's promises to the queue, with a fake engine and a scripted server."""

from collections.abc import Callable
from pathlib import Path

import anyio
import httpx
import pytest
from node_fakes import TinyQueue, make_desk

from podfleet_node.desk import Desk
from podfleet_node.errors import AudioBroken, AudioGone, EngineFailed, NodeError
from podfleet_node.holdings import Held, Stage
from podfleet_node.spool import Spool, Spooled
from podfleet_node.transcript import Segment, Transcript
from podfleet_node.worker import Worker

pytestmark = pytest.mark.anyio
BEAT = "POST /api/nodes/*/heartbeat"
FAIL = "POST /api/nodes/jobs/*/fail"
COMPLETE = "POST /api/nodes/jobs/*/complete"
PROGRESS = "POST /api/nodes/jobs/*/progress"
RELEASE = "POST /api/nodes/jobs/*/release"


class FakeEngine:
    """Says one sentence, or raises."""

    model = "fake"
    speed = 10.0

    def __init__(self, error: Exception | None = None, text: str = "Some words.") -> None:
        self.error, self.text, self.heard = error, text, 0

    async def transcribe(
        self, _pcm: Path, audio_s: float, *, language: str, progress: Callable[[float], None]
    ) -> Transcript:
        self.heard += 1
        if self.error:
            raise self.error
        progress(audio_s)
        return Transcript((Segment(0, audio_s, self.text),))

    async def close(self) -> None:
        """Nothing to kill."""


def _worker(desk: Desk, engine: FakeEngine | None = None) -> Worker:
    return Worker(desk, engine or FakeEngine(), metrics_address="127.0.0.1:1")  # type: ignore[arg-type]


def _ready_job(desk: Desk, job_id: int = 5) -> Held:
    job = Held(job_id, stage=Stage.WAITING, audio_s=12.0, pcm=desk.paths.work_dir / "x")
    desk.holdings.add(job)
    return job


def _status(code: int) -> httpx.Response:
    return httpx.Response(code, json={"detail": "why"})


def _finished(job_id: int, *, server_url: str = "http://q") -> Spooled:
    return Spooled(job_id, "text", "m", 1.0, server_url=server_url)


def _spooled(desk: Desk) -> list[int]:
    return [entry.job_id for entry in Spool(desk.paths.spool_dir).load()]


async def test_a_transcript_is_on_the_disk_before_it_is_sent(tmp_path: Path) -> None:
    queue = TinyQueue()
    desk = make_desk(tmp_path, queue)
    worker = _worker(desk)
    entry = await worker._transcribe(_ready_job(desk))
    assert entry is not None
    assert _spooled(desk) == [5]
    assert desk.holdings.ids() == (5,), "still held: the heartbeat must list it"
    assert queue.calls(COMPLETE) == []
    await worker.uploads.send(entry)
    assert _spooled(desk) == []
    assert len(desk.holdings) == 0
    assert queue.calls(COMPLETE)[0]["whisper_model"] == "fake"


async def test_it_is_sent_until_accepted_and_never_failed_after_an_unknown_answer(tmp_path: Path) -> None:
    trouble = [httpx.ReadTimeout("late"), _status(500), httpx.ConnectError("no"), _status(502)]
    queue = TinyQueue(script={COMPLETE: list(trouble)})
    desk = make_desk(tmp_path, queue)
    worker = _worker(desk)
    entry = await worker._transcribe(_ready_job(desk))
    assert entry is not None
    await worker.uploads.send(entry)
    bodies = queue.calls(COMPLETE)
    assert len(bodies) == 5
    assert all(body == bodies[0] for body in bodies)
    assert queue.calls(FAIL) == []


async def test_a_transcript_of_a_lost_job_is_dropped_silently(tmp_path: Path) -> None:
    queue = TinyQueue(script={COMPLETE: [_status(403)]})
    desk = make_desk(tmp_path, queue)
    worker = _worker(desk)
    entry = await worker._transcribe(_ready_job(desk))
    assert entry is not None
    await worker.uploads.send(entry)
    assert (_spooled(desk), len(desk.holdings)) == ([], 0)
    assert queue.calls(FAIL) == queue.calls(RELEASE) == []
    assert desk.activity.failures_in_a_row == 0


@pytest.mark.parametrize(
    ("status", "failed"),
    [
        (422, {"error_message": "ServerRefused: 422 why", "retry": False}),
        (413, {"error_message": "TranscriptRefused: 413 why", "retry": True}),
    ],
)
async def test_a_refused_transcript_fails_its_job_and_does_not_come_again_at_once(
    tmp_path: Path, status: int, failed: dict[str, object]
) -> None:
    queue = TinyQueue(script={COMPLETE: [_status(status)]})
    desk = make_desk(tmp_path, queue)
    worker = _worker(desk)
    entry = await worker._transcribe(_ready_job(desk))
    assert entry is not None
    await worker.uploads.send(entry)
    assert (queue.calls(FAIL), queue.calls(RELEASE)) == ([failed], [])
    assert (_spooled(desk), len(desk.holdings), desk.activity.failures_in_a_row) == ([], 0, 1)


async def test_a_transcript_refused_after_an_unknown_answer_goes_back_and_is_never_failed(tmp_path: Path) -> None:
    queue = TinyQueue(script={COMPLETE: [httpx.ReadTimeout("late"), _status(422)]})
    desk = make_desk(tmp_path, queue)
    worker = _worker(desk)
    entry = await worker._transcribe(_ready_job(desk))
    assert entry is not None
    await worker.uploads.send(entry)
    assert (len(queue.calls(RELEASE)), queue.calls(FAIL)) == (1, [])
    assert (_spooled(desk), len(desk.holdings)) == ([], 0)


async def test_ownership_is_asked_for_before_the_engine_works(tmp_path: Path) -> None:
    engine = FakeEngine()
    desk = make_desk(tmp_path, TinyQueue(script={PROGRESS: [_status(403)]}))
    assert await _worker(desk, engine)._transcribe(_ready_job(desk)) is None
    assert engine.heard == 0
    assert len(desk.holdings) == 0


async def test_a_server_that_is_silent_before_the_work_may_take_the_transcript_after_it(tmp_path: Path) -> None:
    desk = make_desk(tmp_path, TinyQueue(script={PROGRESS: [httpx.ConnectError("no")]}))
    assert await _worker(desk)._transcribe(_ready_job(desk)) is not None


@pytest.mark.parametrize(
    ("error", "retry", "message"),
    [
        (EngineFailed("CUDA error 35"), True, "EngineFailed: CUDA error 35"),
        (AudioBroken("bad"), False, "AudioBroken: bad"),
    ],
)
async def test_a_failure_names_type_and_message(tmp_path: Path, error: NodeError, retry: bool, message: str) -> None:
    queue = TinyQueue()
    desk = make_desk(tmp_path, queue)
    assert await _worker(desk, FakeEngine(error))._transcribe(_ready_job(desk)) is None
    assert queue.calls(FAIL) == [{"error_message": message, "retry": retry}]
    assert desk.activity.failures_in_a_row == 1
    assert len(desk.holdings) == 0


@pytest.mark.parametrize("text", ["  ", "...", "\u266a \u266a"])
async def test_no_words_are_a_failure_and_never_an_empty_transcript(tmp_path: Path, text: str) -> None:
    queue = TinyQueue()
    desk = make_desk(tmp_path, queue)
    assert await _worker(desk, FakeEngine(text=text))._transcribe(_ready_job(desk)) is None
    assert queue.calls(FAIL)[0]["retry"] is False
    assert queue.calls(COMPLETE) == []


async def test_audio_that_the_server_lost_says_nothing_about_this_node(tmp_path: Path) -> None:
    queue = TinyQueue()
    desk = make_desk(tmp_path, queue)
    await desk.fail(_ready_job(desk).job_id, AudioGone("404"))
    assert queue.calls(FAIL)[0]["retry"] is False
    assert desk.activity.failures_in_a_row == 0


@pytest.mark.parametrize("status", [401, 404])
async def test_a_forgotten_node_registers_again_within_one_beat(tmp_path: Path, status: int) -> None:
    queue = TinyQueue(script={BEAT: [_status(status)]})
    desk = make_desk(tmp_path, queue)
    _ready_job(desk)
    assert await _worker(desk).beat()
    assert (queue.registered, desk.identity.node_id) == (1, "node-1")
    assert queue.calls(BEAT)[-1]["claimed_job_ids"] == [5]


async def test_a_node_registers_once_and_its_next_worker_is_the_same_node(tmp_path: Path) -> None:
    queue = TinyQueue()
    desk = make_desk(tmp_path, queue)
    desk.unknown_to_server = True
    assert await _worker(desk).beat()
    again = make_desk(tmp_path, queue)
    assert again.identity.remember()
    assert again.identity.node_id == "node-1"
    assert not make_desk(tmp_path, queue, node_name="other").identity.remember()


async def test_spooled_transcripts_of_an_earlier_worker_are_held_before_the_first_beat(tmp_path: Path) -> None:
    desk = make_desk(tmp_path, TinyQueue())
    Spool(desk.paths.spool_dir).put(_finished(8))
    (desk.paths.spool_dir / "9.json").write_text('{"job_id": 9, "te')
    worker = _worker(desk)
    assert [entry.job_id for entry in worker.uploads.resume()] == [8]
    assert worker._heartbeat().claimed_job_ids == (8,)


async def test_another_servers_transcript_is_not_sent_to_this_one(tmp_path: Path) -> None:
    desk = make_desk(tmp_path, TinyQueue())
    Spool(desk.paths.spool_dir).put(_finished(8, server_url="http://old"))
    assert _worker(desk).uploads.resume() == []
    assert (_spooled(desk), desk.holdings.ids()) == ([], ())


async def test_a_worker_that_never_came_so_far_sends_what_an_earlier_one_finished(tmp_path: Path) -> None:
    """The smoke test failed, say: the GPU broke after the last transcript."""
    queue = TinyQueue()
    desk = make_desk(tmp_path, queue)
    Spool(desk.paths.spool_dir).put(_finished(8))
    assert await _worker(desk).release_all()
    assert [call for call, _ in queue.seen] == [COMPLETE, BEAT, "DELETE /api/nodes/*"]
    assert _spooled(desk) == []


async def test_a_drain_gives_back_what_waits_and_lets_the_rest_finish(tmp_path: Path) -> None:
    queue = TinyQueue()
    desk = make_desk(tmp_path, queue)
    worker = _worker(desk)
    _ready_job(desk, 1)
    sending = Held(2, stage=Stage.SENDING, audio_s=1.0)
    desk.holdings.add(sending)
    async with anyio.create_task_group() as tg:
        tg.start_soon(worker.uploads.send, _finished(2))
        answer = await worker.drain(60)
    assert answer == {"drained": True, "released": 1, "finished": 1}
    assert len(queue.calls(RELEASE)) == 1
    assert desk.activity.drained_at_s is not None


async def test_after_the_deadline_of_a_drain_the_rest_goes_back_too(tmp_path: Path) -> None:
    queue = TinyQueue()
    desk = make_desk(tmp_path, queue)
    job = _ready_job(desk, 1)
    job.stage = Stage.RUNNING
    with anyio.CancelScope() as job.scope:
        assert await _worker(desk).drain(5) == {"drained": False, "released": 1, "finished": 0}
    assert len(desk.holdings) == 0


async def test_leaving_sends_what_is_finished_gives_back_the_rest_and_deregisters(tmp_path: Path) -> None:
    queue = TinyQueue()
    desk = make_desk(tmp_path, queue)
    worker = _worker(desk)
    _ready_job(desk, 1)
    Spool(desk.paths.spool_dir).put(_finished(2))
    worker.uploads.resume()
    assert await worker.release_all()
    kinds = [call for call, _ in queue.seen]
    assert sorted(kinds[:2]) == sorted([COMPLETE, RELEASE])
    assert kinds[2:] == [BEAT, "DELETE /api/nodes/*"]
    assert queue.calls(BEAT) == [{"name": "n", "claimed_job_ids": []}]


async def test_leaving_is_not_done_while_the_server_heard_nothing(tmp_path: Path) -> None:
    desk = make_desk(tmp_path, TinyQueue(script={RELEASE: [_status(500)] * 9}))
    _ready_job(desk, 1)
    assert not await _worker(desk).release_all()
