"""What a refused command must leave alone: pods, resources in the state, the stack file, jobs. For the e2e tests."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import yaml
from tests.e2e.fleet import Fleet

COMPARED = ("urn", "id", "inputs", "outputs")
PROVIDER = "pulumi:providers:"  # its inputs are the config of the moment


@contextmanager
def untouched(fleet: Fleet) -> Iterator[None]:
    """Fails where the block has changed something."""
    before, since = _look(fleet), fleet.last_event()
    text = fleet.stage.stack_file.read_text()
    yield
    assert _look(fleet) == before
    assert not [event for event in fleet.events(since) if event["kind"].startswith(("pod.", "secret."))]
    assert fleet.stage.stack_file.read_text() == text


@contextmanager
def written(fleet: Fleet, **changes: object) -> Iterator[None]:
    """The stack file with other values, as an editor writes them; None takes a key out. Put back afterwards."""
    file = fleet.stage.stack_file
    text = file.read_text()
    content = yaml.safe_load(text)
    for key, value in changes.items():
        content["config"].pop(f"podfleet:{key}", None)
        if value is not None:
            content["config"][f"podfleet:{key}"] = value
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    try:
        yield
    finally:
        file.write_text(text)


def resources(fleet: Fleet) -> list[dict[str, Any]]:
    """What the state holds, read from the backend's file; secrets stay encrypted."""
    (file,) = (fleet.stage.project / ".podfleet" / "state").rglob("stacks/podfleet/local.json")
    found = json.loads(file.read_text())["checkpoint"]["latest"].get("resources") or []
    return [dict(resource) for resource in found]


def _look(fleet: Fleet) -> dict[str, Any]:
    """Everything that costs money or is remembered."""
    return {
        "pods": sorted((pod["id"], pod["name"]) for pod in fleet.stage.pods()),
        "keys": len(fleet.stage.tailnet_keys()),
        "state": sorted(
            json.dumps({key: _plain(resource.get(key)) for key in COMPARED}, sort_keys=True)
            for resource in resources(fleet)
            if not resource["type"].startswith(PROVIDER)
        ),
        "jobs": sorted((job["id"], job["status"]) for job in fleet.jobs()),
    }


def _plain(value: Any) -> Any:
    """A value without what is encrypted anew at each save."""
    if isinstance(value, dict):
        return "[secret]" if "ciphertext" in value else {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list) else value
