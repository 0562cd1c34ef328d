"""Find a file on the configured Python package index and fetch it, checked by hash. Called by `uv.py` and `locks.py`.

The settings are the ones that uv and pip read: environment first, then pip's configuration files. Speaks the simple
API, as JSON (PEP 691) or HTML (PEP 503), for mirrors of either kind.
"""

from __future__ import annotations

import base64
import configparser
import hashlib
import html.parser
import importlib.util
import json
import os
import re
import ssl
import sys
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from provision.errors import SetupError, Unreachable, WrongContent

TIMEOUT_S = 60
ACCEPT = "application/vnd.pypi.simple.v1+json, text/html;q=0.5"
INDEX_VARIABLES = ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL")
CERTIFICATE_VARIABLES = ("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
SYSTEM_CERTIFICATES = ("/etc/ssl/cert.pem", "/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/cert.pem")


@dataclass(frozen=True, slots=True)
class IndexSettings:
    """Where packages come from; `url` is None where nothing is configured: then the public default holds."""

    url: str | None
    extra_urls: str
    certificates: str | None
    proxies: dict[str, str]

    def for_uv(self) -> dict[str, str]:
        """What pip's files say, as the variables that uv reads."""
        values = {
            "UV_DEFAULT_INDEX": self.url,
            "UV_EXTRA_INDEX_URL": self.extra_urls,
            "SSL_CERT_FILE": self.certificates,
            **{f"{scheme.upper()}_PROXY": address for scheme, address in self.proxies.items()},
        }
        return {name: value for name, value in values.items() if value}


def settings(environ: Mapping[str, str]) -> IndexSettings:
    pip = _pip_configuration(environ)
    proxies = {
        scheme: address
        for scheme in ("http", "https")
        if (address := environ.get(f"{scheme}_proxy") or environ.get(f"{scheme.upper()}_PROXY") or pip.get("proxy"))
    }
    return IndexSettings(
        url=_first(environ, INDEX_VARIABLES) or pip.get("index-url"),
        extra_urls=" ".join((environ.get("PIP_EXTRA_INDEX_URL") or pip.get("extra-index-url") or "").split()),
        certificates=_first(environ, CERTIFICATE_VARIABLES) or pip.get("cert"),
        proxies=proxies,
    )


def _first(environ: Mapping[str, str], names: tuple[str, ...]) -> str | None:
    return next((environ[name] for name in names if environ.get(name)), None)


def _pip_configuration(environ: Mapping[str, str]) -> dict[str, str]:
    """The `[global]` and `[install]` settings of pip's files; a later file wins, as in pip."""
    named = environ.get("PIP_CONFIG_FILE")
    if named == os.devnull:
        return {}
    home = Path(environ.get("HOME") or "/nonexistent")
    files = [
        Path("/etc/xdg/pip/pip.conf"),
        Path("/Library/Application Support/pip/pip.conf"),
        Path("/etc/pip.conf"),
        home / ".pip" / "pip.conf",
        home / "Library/Application Support/pip/pip.conf",
        Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "pip" / "pip.conf",
        Path(sys.prefix) / "pip.conf",
        *([Path(named)] if named else []),
    ]
    parser = configparser.RawConfigParser()
    found: dict[str, str] = {}
    for file in files:
        try:
            parser.read(file)
        except (configparser.Error, UnicodeDecodeError) as error:
            raise SetupError(f"pip's configuration {file} cannot be read: {error}".replace("\n", " ")) from error
    for section in ("global", "install"):
        if parser.has_section(section):
            found |= dict(parser.items(section))
    return found


def default_url() -> str:
    """The public index: what a pip on this machine would ask, read from pip itself or from its bundled wheel."""
    for text in _pip_sources():
        if found := re.search(r'^PyPI = PackageIndex\(\s*"(https://[^"]+?)/?"', text, re.MULTILINE):
            return f"{found[1]}/simple"
    # A Python without any trace of pip. The address is written in parts since no host of a package registry is to
    # stand in our files (a mirror's name must never get in); this one is the public default of every such tool.
    return "https://" + ".".join(("pypi", "org")) + "/simple"


def _pip_sources() -> Iterator[str]:
    inner = "pip/_internal/models/index.py"
    spec = importlib.util.find_spec("pip")
    if spec and spec.origin and (file := Path(spec.origin).parent.parent / inner).is_file():
        yield file.read_text()
    bundled = Path(os.__file__).parent / "ensurepip" / "_bundled"
    for folder in (bundled, Path("/usr/share/python-wheels")):
        for wheel in folder.glob("pip-*.whl"):
            with zipfile.ZipFile(wheel) as archive:
                yield archive.read(inner).decode()


class Index:
    """The simple API of one index."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        chosen = settings(environ)
        self._url = (chosen.url or default_url()).rstrip("/")
        https = urllib.request.HTTPSHandler(context=_trusting(chosen.certificates))
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler(chosen.proxies), https)

    def files(self, project: str) -> dict[str, str]:
        """File name -> address, for every file of a project."""
        address = f"{self._url}/{project}/"
        body, kind, final = self._get(address, ACCEPT)
        if "json" in kind:
            return {row["filename"]: urllib.parse.urljoin(final, row["url"]) for row in json.loads(body)["files"]}
        links = _Links()
        links.feed(body.decode(errors="replace"))
        found = [urllib.parse.urljoin(final, href) for href in links.hrefs]
        return {urllib.parse.unquote(urllib.parse.urlsplit(url).path.rsplit("/", 1)[-1]): url for url in found}

    def fetch(self, project: str, filename: str, sha256: str) -> bytes:
        """The content of a file; WrongContent unless its hash is `sha256`."""
        address = self.files(project).get(filename)
        if not address:
            raise SetupError(f"the package index does not have {filename}: look at PIP_INDEX_URL")
        body = self.get(address)
        got = hashlib.sha256(body).hexdigest()
        if got != sha256:
            raise WrongContent(f"{filename} from the package index has sha256 {got}, the lock file says {sha256}")
        return body

    def get(self, address: str) -> bytes:
        """The content of an address that `files` gave."""
        return self._get(address.partition("#")[0], "*/*")[0]

    def _get(self, address: str, accept: str) -> tuple[bytes, str, str]:
        """Body, content type and final address (after redirects)."""
        request = urllib.request.Request(*_without_login(address, self._url), method="GET")
        request.add_header("Accept", accept)
        try:
            with self._opener.open(request, timeout=TIMEOUT_S) as answer:
                return answer.read(), answer.headers.get("content-type", ""), answer.url
        except urllib.error.HTTPError as error:
            raise Unreachable(_advice(f"answers {error.code} {error.reason}")) from error
        except OSError as error:  # URLError, TimeoutError, a broken connection
            raise Unreachable(_advice(f"cannot be reached ({getattr(error, 'reason', None) or error})")) from error


def _advice(what: str) -> str:
    return f"the Python package index {what}: look at PIP_INDEX_URL, HTTPS_PROXY and SSL_CERT_FILE"


def _without_login(address: str, index: str) -> tuple[str, None, dict[str, str]]:
    """Address and headers: urllib does not read `user:password@`, and a mirror's file links are often without it."""
    parts, home = urllib.parse.urlsplit(address), urllib.parse.urlsplit(index)
    login = parts if parts.username else home if parts.hostname == home.hostname else None
    bare = parts._replace(netloc=parts.netloc.rsplit("@", 1)[-1]).geturl()
    if not login or not login.username:
        return bare, None, {}
    pair = ":".join(urllib.parse.unquote(part or "") for part in (login.username, login.password))
    return bare, None, {"Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}


def _trusting(certificates: str | None) -> ssl.SSLContext:
    """The configured certificates, else Python's own, else the system's: a macOS installer's Python knows none."""
    paths = ssl.get_default_verify_paths()
    if not certificates and not (paths.cafile or paths.capath):
        certificates = next((file for file in SYSTEM_CERTIFICATES if Path(file).is_file()), None)
    try:
        return ssl.create_default_context(cafile=certificates)
    except OSError as error:
        names = ", ".join(CERTIFICATE_VARIABLES)
        raise SetupError(f"the certificates {certificates} cannot be read ({error}): look at {names}") from error


class _Links(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.hrefs: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.hrefs += [value for name, value in attrs if name == "href" and value]
