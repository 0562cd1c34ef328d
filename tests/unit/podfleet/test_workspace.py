"""Which environment a stack gets: values of its file, a person's own variables, and nothing of another stack."""

from __future__ import annotations

from pathlib import Path

import pytest

from podfleet.errors import ConfigError
from podfleet.workspace import Workspace, complete, environment, find, prepare, without_made

LOCAL = """config:
  podfleet:backendUrl: file://.podfleet/state
  podfleet:pulumiHome: .podfleet/home
  podfleet:credentialsFile: keys.env
  podfleet:runpodUrl: http://127.0.0.1:8790
"""
PROD = "config:\n  podfleet:pods: 0\n"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "stacks").mkdir()
    (tmp_path / "Pulumi.yaml").write_text("name: podfleet\n")
    (tmp_path / "stacks" / "Pulumi.local.yaml").write_text(LOCAL)
    (tmp_path / "stacks" / "Pulumi.prod.yaml").write_text(PROD)
    (tmp_path / "keys.env").write_text("# made\nRUNPOD_API_KEY=local-key\n")
    return tmp_path


def test_a_local_stack_gets_its_own_home_state_url_and_key(project: Path) -> None:
    env = environment(Workspace(project, "local"), {"PATH": "/bin"})
    assert env["PULUMI_HOME"] == str(project / ".podfleet" / "home")
    assert env["PULUMI_BACKEND_URL"] == f"file://{project}/.podfleet/state?metadata=skip"
    assert env["RUNPOD_API_BASE_URL"] == "http://127.0.0.1:8790"
    assert env["RUNPOD_API_KEY"] == "local-key"
    assert env["PODFLEET_STATE_DIR"] == str(project / ".podfleet")
    secret = Path(env["PULUMI_CONFIG_PASSPHRASE_FILE"])
    assert secret.stat().st_mode & 0o077 == 0


def test_a_persons_own_variables_win(project: Path) -> None:
    env = complete(Workspace(project, "local"), {"PATH": "/bin", "RUNPOD_API_KEY": "mine"})
    assert env["RUNPOD_API_KEY"] == "mine"


def test_nothing_of_one_stack_reaches_another_in_the_same_shell(project: Path) -> None:
    shell = complete(Workspace(project, "local"), {"PATH": "/bin"})
    env = complete(Workspace(project, "prod"), shell)
    assert env["RUNPOD_API_BASE_URL"] == "https://api.runpod.io"
    assert not {"PULUMI_HOME", "PULUMI_BACKEND_URL", "RUNPOD_API_KEY", "PULUMI_CONFIG_PASSPHRASE_FILE"} & env.keys()
    assert env["PODFLEET_STACK"] == "prod"


def test_made_variables_are_forgotten_and_a_persons_are_kept() -> None:
    outer = {"PODFLEET_ENV_MADE": "A,B", "A": "1", "B": "2", "MINE": "3"}
    assert without_made(outer) == {"MINE": "3"}


def test_what_a_stack_covers_of_a_persons_own_comes_back_with_the_next_one(project: Path) -> None:
    person = {"PATH": "/bin", "PULUMI_BACKEND_URL": "s3://mine", "PULUMI_CONFIG_PASSPHRASE_FILE": "/mine"}
    shell = complete(Workspace(project, "local"), person)
    assert shell["PULUMI_BACKEND_URL"].startswith("file://")
    assert shell["PULUMI_CONFIG_PASSPHRASE_FILE"] == "/mine"
    again = complete(Workspace(project, "local"), shell)
    assert again == shell
    prod = complete(Workspace(project, "prod"), again)
    assert prod["PULUMI_BACKEND_URL"] == "s3://mine"
    assert "PODFLEET_ENV_KEPT" not in prod


def test_unknown_stacks_are_one_line_naming_those_that_exist(project: Path) -> None:
    with pytest.raises(ConfigError, match="no stack 'dev': stacks/ has local, prod"):
        find("dev", project)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("config:\n  podfleet:pods: [1\n", r"stacks/Pulumi\.prod\.yaml, line 3: not YAML: "),
        ("config: 3\n", "has to be a mapping"),
        ("- a\n", "has to be a mapping"),
    ],
)
def test_a_stack_file_that_cannot_be_read_is_one_line(project: Path, text: str, said: str) -> None:
    (project / "stacks" / "Pulumi.prod.yaml").write_text(text)
    with pytest.raises(ConfigError, match=said) as caught:
        Workspace(project, "prod").config()
    assert "\n" not in str(caught.value)


def test_a_copied_uid_is_refused_before_the_engine_is_asked(project: Path) -> None:
    (project / "stacks" / "Pulumi.prod.yaml").write_text("config:\n  podfleet:uid: local-0a1b2c3d\n")
    with pytest.raises(ConfigError, match=r"podfleet:uid: 'local-0a1b2c3d' is not of stack 'prod'.*podfleet env prod"):
        prepare(Workspace(project, "prod"), {"PATH": "/nowhere"})


def test_outside_a_checkout_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no Pulumi\.yaml"):
        find("local", tmp_path)
