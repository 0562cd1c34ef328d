"""A running pod that the state has lost is imported by its id, as docs/operating.md says."""

from __future__ import annotations

import pytest
from tests.e2e.fleet import Fleet

pytestmark = pytest.mark.engine


def test_an_imported_pod_is_in_its_place_and_not_replaced(fleet: Fleet) -> None:
    fleet.config(pods=2, bootstrap="none")
    shown = fleet.up()
    assert "warning" not in shown, "no word of a second launcher"
    before = {pod["id"] for pod in fleet.pods()}
    pod_id, parent = fleet.pod("slot-01")["id"], fleet.urn("slot-01")
    lost = fleet.stage.pulumi("state", "delete", "--yes", fleet.urn("slot-01-pod"), "--target-dependents")
    assert lost.returncode == 0, lost.stdout
    words = ("--yes", "--skip-preview", "--generate-code=false", "--protect=false", "--parent", f"slot={parent}")
    done = fleet.stage.pulumi("import", *words, "pulumi-python:dynamic/runpod:Pod", "slot-01-pod", pod_id)
    assert done.returncode == 0, done.stdout
    fleet.up()
    assert {pod["id"] for pod in fleet.pods()} == before
    fleet.up("--expect-no-changes")
