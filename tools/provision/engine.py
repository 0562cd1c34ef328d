"""The Pulumi engine: the installed one that fits, else one built once from Go modules and kept in the cache.

`tools/engine/go.mod` pins it. Measured: 254 modules, 1.5 GB unpacked, and as much again for Go's build cache; the
largest process takes 1.8 GB. `go build` alone, no `go mod download`: that asks for modules which the build never uses,
and some proxies do not have one of them.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from provision.errors import SetupError, Unreachable
from provision.places import Places, writable
from provision.progress import Ran, run, say
from provision.stamps import digest, only_one

OLDEST, TOO_NEW = (3, 259), (4,)
PACKAGE = "github.com/pulumi/pulumi/pkg/v3/cmd/pulumi"
SDK = "github.com/pulumi/pulumi/sdk/v3"
# no C compiler is needed, and the result is the same with or without one
GO_SETTINGS = {"GOTOOLCHAIN": "local", "GOFLAGS": "-buildvcs=false -mod=readonly", "CGO_ENABLED": "0", "GOWORK": "off"}
DISK_GB, MEMORY_GB = 5.0, 2.5
ATTEMPTS, SOME_MODULES = 3, 2  # tried again only where some module came: a proxy that is not there stays away
# how Go reports a module proxy that cannot be reached
NETWORK_SIGNS = (
    "dial tcp",
    "no such host",
    "connection refused",
    "connection reset",
    "i/o timeout",
    "handshake",
    "proxyconnect",
    "x509:",
    "unexpected eof",
    "server misbehaving",
    "module lookup disabled",
    "client.timeout",
    "bad gateway",
    "service unavailable",
    "403 forbidden",
    "proxy authentication required",
)


@dataclass(frozen=True, slots=True)
class Engine:
    """A Pulumi CLI that fits. `built`: ours, so that language host and plugins are ours to provide."""

    pulumi: Path
    version: str
    built: bool


def ensure_engine(places: Places) -> Engine:
    """The engine to use; builds it where that is needed. A few ms when it is there."""
    installed, why_not = find_installed(places)
    if installed:
        return installed
    go = shutil.which("go", path=places.env.get("PATH"))
    if not go:
        wanted = f"Pulumi {_dotted(OLDEST)} or newer, or Go {needed_go(places)} or newer"
        raise SetupError(f"{why_not}, and there is no Go to build it: install {wanted}")
    return _built(places, Path(go), why_not)


def find_installed(places: Places) -> tuple[Engine | None, str]:
    """The first `pulumi` on PATH that is not ours, if it fits; else why not."""
    entries = [entry for entry in places.env.get("PATH", "").split(os.pathsep) if entry and not places.own_path(entry)]
    path = os.pathsep.join(entries)
    found = shutil.which("pulumi", path=path)
    if not found:
        return None, "no pulumi on PATH"
    try:
        asked = run([found, "version"], {**places.env, "PULUMI_SKIP_UPDATE_CHECK": "true"}, timeout_s=30)
    except OSError as error:
        return None, f"{found} does not run ({error})"
    version = next((line.strip() for line in asked.lines if re.fullmatch(r"v?\d+\.\d+\.\d+\S*", line.strip())), "")
    if not fits(version):
        return None, f"{found} is {version or 'of no known version'}, needed is {_dotted(OLDEST)} or newer, below 4"
    beside = Path(found).resolve().parent / "pulumi-language-python"
    if not beside.exists() and not shutil.which("pulumi-language-python", path=path):
        return None, f"{found} has no pulumi-language-python beside it"
    return Engine(Path(found), version, built=False), ""


def fits(version: str) -> bool:
    numbers = re.match(r"v?(\d+)\.(\d+)", version)
    return bool(numbers) and OLDEST <= (int(numbers[1]), int(numbers[2])) < TOO_NEW  # type: ignore[index]


def module(places: Places) -> Path:
    return places.root / "tools" / "engine"


def needed_go(places: Places) -> str:
    found = re.search(r"^go (\S+)$", (module(places) / "go.mod").read_text(), re.MULTILINE)
    return found[1] if found else "1.25"


def engine_version(places: Places) -> str:
    found = re.search(r"pulumi/pkg/v3 (v\S+)", (module(places) / "go.mod").read_text())
    if not found:
        raise SetupError("tools/engine/go.mod names no version of the engine")
    return found[1]


def _built(places: Places, go: Path, why: str) -> Engine:
    version, env = engine_version(places), _go_env(places)
    go_version = _go_version(places, go, env)
    flags = _build_flags(version)
    key = digest(module(places), go_version, *flags, *(f"{name}={value}" for name, value in GO_SETTINGS.items()))
    target = places.engines / key
    engine = Engine(target / "bin" / "pulumi", version, built=True)
    if engine.pulumi.exists():
        return engine
    with only_one(places.engines / f"{key}.lock", "building the Pulumi engine"):
        if not engine.pulumi.exists():
            say(f"{why}: building Pulumi {version} from Go modules; about 4 minutes on two free cores, once")
            check_room(places, env)
            _build(places, go, env, flags, target)
    return engine


def _build_flags(version: str) -> list[str]:
    return ["-trimpath", "-ldflags", f"-s -w -X {SDK}/go/common/version.Version={version}"]


def _go_env(places: Places) -> dict[str, str]:
    """Go's settings, and its module cache in ours where the usual place cannot be written."""
    env = {**places.env, **GO_SETTINGS}
    home = Path(env.get("GOMODCACHE") or Path(env.get("GOPATH") or Path(env.get("HOME") or "/nonexistent") / "go"))
    if not writable(home):
        env["GOMODCACHE"] = str(places.cache / "go" / "mod")
        env["GOFLAGS"] += " -modcacherw"  # so that `make clean` can remove it
    if env.get("GOCACHE") != "off" and not writable(Path(env.get("GOCACHE") or places.cache.parent / "go-build")):
        env["GOCACHE"] = str(places.cache / "go" / "build")
    env.setdefault("GOPATH", str(home if writable(home) else places.cache / "go"))
    return env


def _go_version(places: Places, go: Path, env: dict[str, str]) -> str:
    asked = run([go, "env", "GOVERSION"], env, cwd=module(places).parent, timeout_s=30)
    found = re.search(r"go(\d+(?:\.\d+)*)", asked.text)
    if asked.code or not found:
        raise SetupError(f"{go} does not run: {asked.last()}")
    if _numbers(found[1]) < _numbers(needed_go(places)):
        raise SetupError(
            f"Go {needed_go(places)} or newer is needed to build the Pulumi engine, {go} is {found[1]}; "
            f"an installed Pulumi {_dotted(OLDEST)} or newer does as well"
        )
    return found[0]


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(str(part) for part in version)


def check_room(places: Places, env: dict[str, str]) -> None:
    """SetupError where the build would run out of disk or memory: it would show as a puzzling error after minutes."""
    folders = [places.cache, Path(env.get("GOMODCACHE") or env["GOPATH"]), Path(env.get("GOCACHE") or places.cache)]
    for folder in folders:
        free = disk_free_gb(folder)
        if free < DISK_GB:
            raise SetupError(
                f"the engine's build needs {DISK_GB:g} GB of free disk, {folder} has {free:.1f} GB: free some, "
                "set XDG_CACHE_HOME to a larger disk, or install Pulumi"
            )
    free = memory_free_gb()
    if free < MEMORY_GB:
        raise SetupError(
            f"the engine's build needs {MEMORY_GB:g} GB of free memory, there are {free:.1f} GB: end something, "
            "or install Pulumi"
        )


def disk_free_gb(folder: Path) -> float:
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    return shutil.disk_usage(existing).free / 1e9


def memory_free_gb(proc: Path = Path("/proc/meminfo"), group: Path = Path("/sys/fs/cgroup/memory.max")) -> float:
    """What the kernel calls available, or a container's limit if lower; without limit where neither can be read."""
    free = float("inf")
    if proc.exists() and (found := re.search(r"^MemAvailable:\s+(\d+) kB", proc.read_text(), re.MULTILINE)):
        free = int(found[1]) * 1024 / 1e9
    if group.exists() and (limit := group.read_text().strip()).isdigit():
        free = min(free, int(limit) / 1e9)
    return free


def _build(places: Places, go: Path, env: dict[str, str], flags: list[str], target: Path) -> None:
    """Into a folder of its own, then renamed: an interrupted build leaves nothing that looks finished."""
    scratch = Path(tempfile.mkdtemp(prefix="building-", dir=places.engines))
    try:
        program = scratch / "bin" / "pulumi"
        program.parent.mkdir()
        _compile([go, "build", "-v", *flags, "-o", program, PACKAGE], env, module(places))
        sdk = run([go, "list", "-m", "-f", "{{.Dir}}", SDK], env, cwd=module(places))
        if sdk.code or not sdk.lines:
            raise SetupError(f"Go does not know where it put {SDK}: {sdk.last()}")
        for script in ("cmd/pulumi-language-python-exec", "dist/pulumi-resource-pulumi-python"):
            copy = program.parent / Path(script).name
            copy.write_bytes((Path(sdk.lines[-1]) / "python" / script).read_bytes())
            copy.chmod(0o755)  # the module's zip has no executable bits
        tried = run([program, "version"], {**env, "PULUMI_SKIP_UPDATE_CHECK": "true"}, timeout_s=60)
        if tried.code:
            raise SetupError(f"the engine was built but does not run: {tried.last()}")
        scratch.chmod(0o755)
        scratch.rename(target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _compile(command: list[str | Path], env: dict[str, str], folder: Path) -> None:
    """`go build`, again after a network error: what was fetched is kept, so each attempt gets further."""
    for attempt in range(1, ATTEMPTS + 1):
        ran = run(command, env, cwd=folder, alive=_alive)
        if ran.code == 0:
            return
        unreachable = _network_line(ran)
        if not unreachable or sum(map(_is_download, ran.lines)) < SOME_MODULES:
            break
        if attempt < ATTEMPTS:
            say(f"a Go module could not be fetched, trying again: {unreachable}")
    if unreachable:
        raise Unreachable(f"no Go module proxy can be reached: look at GOPROXY and HTTPS_PROXY ({unreachable})")
    if ran.code < 0:
        raise SetupError(f"the engine's build was ended by signal {-ran.code} (out of memory?)")
    errors = [line for line in ran.lines if not (_is_package(line) or _is_download(line))]
    raise SetupError(f"the engine's build failed: {' / '.join(errors[-3:])[-400:] or ran.last()}")


def _network_line(ran: Ran) -> str:
    found = (line for line in ran.lines if any(sign in line.lower() for sign in NETWORK_SIGNS))
    return next(found, "").strip()[-300:]


def _alive(lines: list[str], seconds: float) -> str:
    fetched, compiled = sum(map(_is_download, lines)), sum(map(_is_package, lines))
    return f"building the engine, {seconds:.0f} s: {fetched} modules fetched, {compiled} packages compiled"


def _is_download(line: str) -> bool:
    return line.startswith("go: downloading")


def _is_package(line: str) -> bool:
    """`go build -v` names each package that it compiles."""
    return bool(re.fullmatch(r"[\w./-]+", line))
