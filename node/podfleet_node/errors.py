"""Every error of the node, one tree; used by all modules.

NodeError
├ TemporaryError(retry_in_s)   another try, here or on another node, may succeed
│ ├ ServerUnavailable          no answer from the queue server, or 5xx/429
│ ├ DownloadFailed             the audio could not be fetched in any of several tries
│ ├ DecoderFailed              the decoder could not start, crashed or took too long
│ ├ EngineFailed               the engine raised, crashed or hung
│ └ TranscriptRefused          a 4xx for a transcript that says nothing about its text
├ PermanentError               another try gives the same answer
│ ├ AudioGone                  the server says 404 or 410
│ ├ AudioBroken                no decoder can read it
│ ├ EmptyTranscript            the engine heard no words
│ └ ServerRefused(status)      a 4xx that no rule of the protocol explains
├ JobLost                      the job is not ours (any more): drop it, say nothing
├ NotRegistered                the server does not know this node: register again
├ SettingsError                wrong settings, all of them in one message
├ SmokeTestFailed              this pod cannot transcribe
└ NoNodeRunning                a control command found no node
"""

from __future__ import annotations


class NodeError(Exception):
    """Base of all errors that the node raises on purpose."""

    def reason(self) -> str:
        """Type and message on one line: what the server stores as a job's error."""
        return f"{type(self).__name__}: {self}"


class TemporaryError(NodeError):
    """A later try may succeed."""

    def __init__(self, message: str, *, retry_in_s: float = 0.0) -> None:
        super().__init__(message)
        self.retry_in_s = retry_in_s


class ServerUnavailable(TemporaryError):
    """The queue server did not answer, or answered 5xx or 429."""


class DownloadFailed(TemporaryError):
    """The audio could not be fetched; the job goes back to the queue with a back-off."""


class DecoderFailed(TemporaryError):
    """The decoder could not start, crashed, or took too long and was killed: not (surely) the file's fault."""


class EngineFailed(TemporaryError):
    """The engine raised, crashed or hung on a job."""


class PermanentError(NodeError):
    """The same try gives the same answer."""


class AudioGone(PermanentError):
    """The server no longer has the audio."""


class AudioBroken(PermanentError):
    """The file is no audio that a decoder can read."""


class EmptyTranscript(PermanentError):
    """The engine heard no words; an empty text would count as a success at the server."""


class TranscriptRefused(TemporaryError):
    """The server took no transcript of this job from us; not for what stands in it."""


class ServerRefused(PermanentError):
    """The server refused a call for a reason that the protocol does not name."""

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


class JobLost(NodeError):
    """The job is not assigned to this node; it is dropped silently and never failed."""


class NotRegistered(NodeError):
    """The server knows neither our id nor our key."""


class SettingsError(NodeError):
    """The settings do not fit; the message names every wrong one and holds no value."""


class SmokeTestFailed(NodeError):
    """The engine or the decoder of this pod does not work."""


class NoNodeRunning(NodeError):
    """No node answers at the control endpoint."""
