"""`podfleet-queue serve | add | status`. Data on stdout, progress and errors on stderr.

Exit codes: 0 done, 1 other errors, 2 wrong use or cannot serve (port or folder taken), 3 the server did not answer or
refused.
"""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from podfleet_queue.errors import QueueError, ServerError
from podfleet_queue.jobs import Policy

if TYPE_CHECKING:
    import httpx

DEFAULT_URL = "http://127.0.0.1:8792"
UPLOAD_TIMEOUT_S = 120.0

app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__, pretty_exceptions_enable=False)
Url = Annotated[str, typer.Option(help="Where the server listens.")]


def main() -> None:
    """The console script: a QueueError is one line and its own exit code."""
    try:
        app()
    except QueueError as error:
        print(f"podfleet-queue: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


@app.command()
def serve(
    folder: Annotated[Path, typer.Option("--dir", help="Everything the server keeps.")] = Path(".podfleet/queue"),
    host: Annotated[str, typer.Option(help="Anyone who reaches it may read and queue.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8792,
    lease_s: Annotated[float, typer.Option(min=0.1, help="A silent node keeps a job this long.")] = 300.0,
    offline_s: Annotated[float, typer.Option(min=0.1, help="A silent node counts as offline after this.")] = 60.0,
    max_attempts: Annotated[int, typer.Option(min=1, help="Then a job is failed.")] = 10,
    retry_s: Annotated[
        float, typer.Option(min=0, help="Wait after the first failure; then five times as long.")
    ] = 300.0,
) -> None:
    """Run the server in the foreground until SIGTERM or Ctrl-C."""
    from podfleet_queue import server

    policy = Policy(lease_s=lease_s, offline_after_s=offline_s, max_attempts=max_attempts, retry_base_s=retry_s)
    server.serve(server.ServeOptions(folder, host, port, policy), _say)


@app.command()
def add(
    audio: Annotated[list[Path], typer.Argument(exists=True, dir_okay=False, readable=True, help="Audio files.")],
    url: Url = DEFAULT_URL,
    title: Annotated[str | None, typer.Option(help="Only with one file; else the file's name.")] = None,
) -> None:
    """Queue audio files; prints one JSON line per file."""
    if title is not None and len(audio) > 1:
        raise typer.BadParameter("--title goes with one file only")
    with _client(url) as client:
        for path in audio:
            params = {"filename": path.name, "title": title or path.stem}
            answer = _ask(client, "POST", "/api/episodes", params=params, content=path.read_bytes())
            _say(json.dumps({"file": str(path), **answer}))


@app.command()
def status(
    url: Url = DEFAULT_URL,
    as_json: Annotated[bool, typer.Option("--json", help="The server's answers as JSON.")] = False,
) -> None:
    """What waits, what runs, who works."""
    with _client(url) as client:
        queue = _ask(client, "GET", "/api/queue/status")["transcribe_queue"]
        nodes = _ask(client, "GET", "/api/nodes")["nodes"]
    if as_json:
        _say(json.dumps({"transcribe_queue": queue, "nodes": nodes}))
        return
    _say("  ".join(f"{word} {queue[word]}" for word in ("queued", "claimable", "running", "completed", "failed")))
    for node in nodes:
        _say(f"{node['status']:8} {node['name']}  holds {node['held_jobs']}")


def _client(url: str) -> "httpx.Client":
    import httpx

    return httpx.Client(base_url=url, timeout=UPLOAD_TIMEOUT_S, trust_env=False)


def _ask(client: "httpx.Client", method: str, path: str, **options: object) -> dict[str, Any]:
    """One call; any failure is one line that names the server."""
    import httpx

    try:
        response = client.request(method, path, **options)  # type: ignore[arg-type]
        response.raise_for_status()
        answer = response.json()
    except httpx.HTTPStatusError as error:
        raise ServerError(f"{client.base_url} refused: {error.response.status_code} {error.response.text}") from error
    except (httpx.HTTPError, ValueError) as error:
        raise ServerError(f"{client.base_url} does not answer: {error}") from error
    if not isinstance(answer, dict):
        raise ServerError(f"{client.base_url} is not a podfleet-queue")
    return answer


def _say(line: str) -> None:
    print(line, flush=True)
