"""uv and the package index: the right wheel, only with the pinned hash, from the index that the user has configured."""

from __future__ import annotations

import io
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from provision import uv
from provision.errors import SetupError, Unreachable, WrongContent
from provision.index import default_url, settings
from provision.places import Places
from provision.venv import ensure_venv
from setup_fakes import PROJECT, FakeIndex, program

PINNED = uv.read_lock(PROJECT / "requirements" / "bootstrap.lock")
NAMES = list(PINNED.wheels)


@pytest.mark.parametrize(
    ("system", "machine", "musl", "tag"),
    [
        ("Linux", "x86_64", False, "manylinux_2_17_x86_64"),
        ("Linux", "x86_64", True, "musllinux_1_1_x86_64"),
        ("Linux", "aarch64", False, "manylinux_2_17_aarch64"),
        ("Linux", "aarch64", True, "musllinux_1_1_aarch64"),
        ("Darwin", "x86_64", False, "macosx_10_12_x86_64"),
        ("Darwin", "arm64", False, "macosx_11_0_arm64"),
    ],
)
def test_each_platform_gets_its_own_wheel(system: str, machine: str, musl: bool, tag: str) -> None:
    assert tag in uv.choose_wheel(NAMES, system, machine, musl)


@pytest.mark.parametrize(("system", "machine"), [("Linux", "s390x"), ("Windows", "AMD64"), ("Linux", "i686")])
def test_a_platform_without_a_wheel_is_told_so(system: str, machine: str) -> None:
    with pytest.raises(SetupError, match="no uv is pinned for"):
        uv.choose_wheel(NAMES, system, machine, musl=False)


def offer_uv(places: Places, index: FakeIndex, locked_hash: str | None = None) -> Places:
    """A uv wheel for this machine on the index, its hash in the lock file."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as wheel:
        wheel.writestr("uv-9.9.9.data/scripts/uv", "#!/bin/sh\necho uv 9.9.9\n")
    rows = []
    for name in (name.replace(PINNED.version, "9.9.9") for name in NAMES):
        found = index.add(name, packed.getvalue())
        rows.append(f"{name} sha256:{locked_hash or found}")
    (places.root / "requirements" / "bootstrap.lock").write_text("\n".join(["uv==9.9.9", *rows]))
    return replace(places, env={**places.env, "PIP_INDEX_URL": index.url})


@pytest.mark.parametrize("html", [False, True])
def test_uv_is_fetched_once_and_runs(places: Places, index: FakeIndex, html: bool) -> None:
    index.html = html
    places = offer_uv(places, index)
    found = uv.find_uv(places)
    asked = len(index.requests)
    assert found == places.cache / "uv" / "9.9.9" / "uv"
    assert found.stat().st_mode & 0o111
    assert uv.find_uv(places) == found
    assert len(index.requests) == asked


def test_a_wheel_with_another_hash_is_refused_and_not_kept(places: Places, index: FakeIndex) -> None:
    places = offer_uv(places, index, locked_hash="0" * 64)
    with pytest.raises(WrongContent, match="the lock file says 0000"):
        uv.find_uv(places)
    assert not (places.cache / "uv" / "9.9.9").exists()


def test_an_index_that_refuses_names_the_variable_to_look_at(places: Places, index: FakeIndex) -> None:
    places = offer_uv(places, index)
    index.status = 503
    with pytest.raises(Unreachable, match=r"answers 503 .*PIP_INDEX_URL, HTTPS_PROXY"):
        uv.find_uv(places)


def test_an_index_that_is_not_there_names_the_variable_to_look_at(places: Places, index: FakeIndex) -> None:
    places = offer_uv(places, index)
    places = replace(places, env={**places.env, "PIP_INDEX_URL": "http://127.0.0.1:9/simple"})
    with pytest.raises(Unreachable, match=r"cannot be reached .*refused.*PIP_INDEX_URL"):
        uv.find_uv(places)


def test_a_login_in_the_address_becomes_a_header(places: Places, index: FakeIndex) -> None:
    places = offer_uv(places, index)
    address = index.url.replace("//", "//me:p%40ss@")
    uv.find_uv(replace(places, env={**places.env, "PIP_INDEX_URL": address}))
    assert {header for _, header in index.requests} == {"Basic bWU6cEBzcw=="}


@pytest.mark.parametrize(("version", "used"), [("0.13.9", True), ("0.14.0", True), ("0.12.9", False), ("1.0.0", False)])
def test_a_uv_on_path_is_used_from_the_pinned_minor_on(places: Places, version: str, used: bool) -> None:
    own = program(places, "uv", f"echo 'uv {version} (somewhere)'")
    (places.root / "requirements" / "bootstrap.lock").write_text("uv==0.13.9\n")
    cached = places.cache / "uv" / "0.13.9" / "uv"
    cached.parent.mkdir(parents=True)
    cached.touch()
    assert uv.find_uv(places) == (own if used else cached)


PIP_CONF = """\
[global]
index-url = https://from.file/simple
cert = /some/ca.pem
[install]
extra-index-url =
  https://a
  https://b
"""


def test_the_index_is_the_one_that_uv_and_pip_would_ask(tmp_path: Path) -> None:
    file = tmp_path / "pip.conf"
    file.write_text(PIP_CONF)
    pip = {"PIP_CONFIG_FILE": str(file), "HOME": str(tmp_path)}
    assert settings(pip).url == "https://from.file/simple"
    assert settings(pip).for_uv() == {
        "UV_DEFAULT_INDEX": "https://from.file/simple",
        "UV_EXTRA_INDEX_URL": "https://a https://b",
        "SSL_CERT_FILE": "/some/ca.pem",
    }
    assert settings({**pip, "PIP_INDEX_URL": "https://from.env"}).url == "https://from.env"
    assert settings({**pip, "PIP_INDEX_URL": "https://a", "UV_DEFAULT_INDEX": "https://b"}).url == "https://b"
    assert settings({**pip, "https_proxy": "http://proxy:3128"}).for_uv()["HTTPS_PROXY"] == "http://proxy:3128"


def test_without_settings_the_public_index_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("provision.index._pip_sources", lambda: iter(()))
    without_pip = default_url()
    monkeypatch.undo()
    assert default_url() == without_pip
    assert without_pip.endswith(".org/simple")


NO_NETWORK = """\
error: Failed to fetch: 'https://mirror.example/simple/anyio/'
  Caused by: error sending request for url (https://mirror.example/simple/anyio/)
  Caused by: dns error"""
UV_WITHOUT_NETWORK = f"""case "$1" in
--version) echo "uv 0.13.9";;
pip) echo "{NO_NETWORK}"; exit 2;;
esac"""


def test_a_uv_without_network_is_told_in_one_line(places: Places) -> None:
    (places.root / "requirements" / "bootstrap.lock").write_text("uv==0.13.9\n")
    program(places, "uv", UV_WITHOUT_NETWORK)
    with pytest.raises(Unreachable, match=r"cannot be reached: look at PIP_INDEX_URL.*dns error") as caught:
        ensure_venv(places)
    assert "\n" not in str(caught.value)
