"""Pages and stack files that are made from, or checked against, the typed config."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from podfleet import config, configdocs

ROOT = Path(__file__).parents[3]
IDENTITY = {"sshPublicKey": "ssh-ed25519 AAAA x", "sshPrivateKey": "[secret]"}


def test_the_config_page_is_current() -> None:
    assert (ROOT / "docs" / "config.md").read_text() == configdocs.page(), "run `make docs`"


@pytest.mark.parametrize("stack", ["local", "staging", "prod"])
def test_the_stack_files_are_valid(stack: str) -> None:
    values = yaml.safe_load((ROOT / "stacks" / f"Pulumi.{stack}.yaml").read_text())["config"]
    made = {f"podfleet:{key}": value for key, value in {**IDENTITY, "uid": f"{stack}-00000000"}.items()}
    assert config.parse({**made, **values}, stack=stack).uid.startswith(stack)
