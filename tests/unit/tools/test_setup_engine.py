"""The engine: an installed Pulumi that fits, else a build that is whole or not there; what is missing is said."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from provision import engine
from provision.errors import SetupError, Unreachable
from provision.places import Places
from setup_fakes import program

REAL_MEMORY_FREE_GB = engine.memory_free_gb  # a fixture replaces it
MISSING_BOTH = r"no pulumi on PATH, and there is no Go to build it: install Pulumi 3\.259 or newer, or Go 1\.25\.11"


@pytest.fixture(autouse=True)
def roomy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "disk_free_gb", lambda _folder: 50.0)
    monkeypatch.setattr(engine, "memory_free_gb", lambda: 8.0)


def installed(places: Places, version: str, host: bool = True) -> Path:
    if host:
        program(places, "pulumi-language-python", "exit 1")
    return program(places, "pulumi", f"echo {version}")


def fake_go(places: Places, version: str = "1.26.0", build: str = "") -> Path:
    """A go whose build writes a small pulumi, after `build`; each build leaves a line in the file returned."""
    sdk, builds = places.root / "sdk", places.root / "builds"
    for script in ("cmd/pulumi-language-python-exec", "dist/pulumi-resource-pulumi-python"):
        (sdk / "python" / script).parent.mkdir(parents=True, exist_ok=True)
        (sdk / "python" / script).write_text("#!/bin/sh\n")
    program(
        places,
        "go",
        f"""case "$1" in
env) echo go{version};;
list) echo "{sdk}";;
build)
    echo build >>"{builds}"
    {build}
    while [ "$1" != -o ]; do shift; done
    echo '#!/bin/sh' >"$2"; echo 'echo v3.259.0' >>"$2"; /bin/chmod +x "$2";;
esac""",
    )
    return builds


@pytest.mark.parametrize(
    ("version", "good"),
    [
        ("v3.259.0", True),
        ("v3.274.1", True),
        ("v3.260.0-alpha.1", True),
        ("v3.258.9", False),
        ("v2.99.0", False),
        ("v4.0.0", False),
        ("", False),
    ],
)
def test_which_versions_fit(version: str, good: bool) -> None:
    assert engine.fits(version) == good


def test_an_installed_pulumi_is_used_and_nothing_is_built(places: Places) -> None:
    pulumi, builds = installed(places, "v3.270.0"), fake_go(places)
    assert engine.ensure_engine(places) == engine.Engine(pulumi, "v3.270.0", built=False)
    assert not builds.exists()


@pytest.mark.parametrize(
    ("version", "host", "why"),
    [
        ("v3.100.0", True, "is v3.100.0, needed is 3.259 or newer, below 4"),
        ("v4.1.0", True, "is v4.1.0, needed is"),
        ("nonsense", True, "of no known version"),
        ("v3.270.0", False, "no pulumi-language-python beside it"),
    ],
)
def test_an_installed_pulumi_that_does_not_fit_is_passed_over(
    places: Places, version: str, host: bool, why: str
) -> None:
    installed(places, version, host)
    with pytest.raises(SetupError, match=f"{why}.*, and there is no Go to build it"):
        engine.ensure_engine(places)
    fake_go(places)
    assert engine.ensure_engine(places).built


def test_an_engine_of_ours_on_path_does_not_pass_for_an_installed_one(places: Places) -> None:
    ours = places.local / "bin"
    ours.mkdir(parents=True)
    installed(replace(places, env={"PATH": str(ours)}), "v3.259.0")
    activated = replace(places, env={**places.env, "PATH": f"{ours}:{places.env['PATH']}"})
    with pytest.raises(SetupError, match=MISSING_BOTH):
        engine.ensure_engine(activated)


def test_neither_go_nor_pulumi_is_said_in_one_line(places: Places) -> None:
    with pytest.raises(SetupError, match=MISSING_BOTH):
        engine.ensure_engine(places)


@pytest.mark.parametrize("version", ["1.19.8", "1.25", "1.25.10"])
def test_an_old_go_is_named_with_the_one_that_is_needed(places: Places, version: str) -> None:
    fake_go(places, version)
    with pytest.raises(SetupError, match=rf"Go 1\.25\.11 or newer is needed .* is {version}; an installed Pulumi"):
        engine.ensure_engine(places)


def test_little_disk_is_said_before_the_build(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    builds = fake_go(places)
    monkeypatch.setattr(engine, "disk_free_gb", lambda _folder: 4.9)
    with pytest.raises(SetupError, match=r"needs 5 GB of free disk, .* has 4\.9 GB: .*XDG_CACHE_HOME"):
        engine.ensure_engine(places)
    assert not builds.exists()


def test_little_memory_is_said_before_the_build(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    builds = fake_go(places)
    monkeypatch.setattr(engine, "memory_free_gb", lambda: 2.4)
    with pytest.raises(SetupError, match=r"needs 2\.5 GB of free memory, there are 2\.4 GB"):
        engine.ensure_engine(places)
    assert not builds.exists()


def test_free_memory_is_the_lower_of_machine_and_container(tmp_path: Path) -> None:
    machine, group = tmp_path / "meminfo", tmp_path / "memory.max"
    machine.write_text("MemTotal: 9000000 kB\nMemAvailable:    4000000 kB\n")
    assert REAL_MEMORY_FREE_GB(machine, group) == pytest.approx(4.096)
    group.write_text("max\n")
    assert REAL_MEMORY_FREE_GB(machine, group) == pytest.approx(4.096)
    group.write_text("1000000000\n")
    assert REAL_MEMORY_FREE_GB(machine, group) == pytest.approx(1.0)


def test_the_engine_is_built_once_with_the_scripts_beside_it(places: Places) -> None:
    builds = fake_go(places)
    first, second = engine.ensure_engine(places), engine.ensure_engine(places)
    assert first == second
    assert builds.read_text() == "build\n"
    found = {file.name for file in first.pulumi.parent.iterdir() if file.stat().st_mode & 0o111}
    assert found == {"pulumi", "pulumi-language-python-exec", "pulumi-resource-pulumi-python"}


def test_two_set_ups_at_once_build_once(places: Places) -> None:
    builds = fake_go(places)
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(engine.ensure_engine, [places, places]))
    assert found[0] == found[1]
    assert builds.read_text() == "build\n"


def test_a_changed_module_or_go_means_another_engine(places: Places) -> None:
    fake_go(places)
    first = engine.ensure_engine(places)
    fake_go(places, "1.27.0")
    assert engine.ensure_engine(places).pulumi != first.pulumi
    (places.root / "tools" / "engine" / "go.sum").write_text("more")
    assert len({first.pulumi, engine.ensure_engine(places).pulumi}) == 2


@pytest.mark.parametrize(
    ("fetched", "attempts"), [("", 1), ("echo go: downloading a v1; echo go: downloading b v1; ", engine.ATTEMPTS)]
)
def test_no_module_proxy_names_the_variables(places: Places, fetched: str, attempts: int) -> None:
    line = "cel.dev/expr@v0.25.2: Get https://proxy.example/: dial tcp: lookup proxy.example: no such host"
    builds = fake_go(places, build=f'{fetched}echo "{line}"; exit 1')
    with pytest.raises(Unreachable, match=r"look at GOPROXY and HTTPS_PROXY .*no such host"):
        engine.ensure_engine(places)
    assert builds.read_text().count("build") == attempts


def test_a_failed_build_leaves_nothing_that_looks_finished(places: Places) -> None:
    builds = fake_go(places, build="echo some/package; echo broken.go:1: not Go; exit 1")
    with pytest.raises(SetupError, match=r"the engine's build failed: broken\.go:1: not Go"):
        engine.ensure_engine(places)
    assert builds.read_text() == "build\n"
    assert [file.suffix for file in places.engines.iterdir()] == [".lock"]
