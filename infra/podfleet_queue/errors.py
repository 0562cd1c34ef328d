"""What can go wrong in the queue server.

QueueError                 exit code 1
├ RequestError             answered to a caller: carries the HTTP status and cast2md's text
│ ├ NotFoundError          404
│ ├ BadKeyError            401
│ ├ NotOwnerError          403: the job belongs to another node, or to nobody any more
│ ├ EmptyTranscriptError   422
│ └ ConflictError          400 or 409: the job's state does not allow it
├ ServeError               exit code 2: port or folder in use, or the folder cannot be written
└ ServerError              exit code 3: the command line could not reach the server, or was refused
"""


class QueueError(Exception):
    """Base of the tree; its text is one line for a person."""

    exit_code = 1


class RequestError(QueueError):
    """A request that is answered with an HTTP error; `str(error)` is the `detail`."""

    status = 400

    def __init__(self, detail: str, status: int | None = None) -> None:
        super().__init__(detail)
        if status is not None:
            self.status = status


class NotFoundError(RequestError):
    """No such node, job, episode, audio or transcript."""

    status = 404


class BadKeyError(RequestError):
    """The key is missing, unknown, or of another node."""

    status = 401


class NotOwnerError(RequestError):
    """The caller does not hold this job; a node drops the job silently."""

    status = 403

    def __init__(self) -> None:
        super().__init__("Job not assigned to this node")


class EmptyTranscriptError(RequestError):
    """A transcript without a word would count as success and hide a lost episode."""

    status = 422

    def __init__(self) -> None:
        super().__init__("Transcript is empty")


class ConflictError(RequestError):
    """The job's or episode's state does not allow this."""

    status = 400


class ServeError(QueueError):
    """The server cannot start; nothing was changed."""

    exit_code = 2


class ServerError(QueueError):
    """A command could not get its answer from the server."""

    exit_code = 3
