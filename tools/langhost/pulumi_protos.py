"""The gRPC messages of the installed `pulumi` package, without importing the SDK around them.

`import pulumi` takes 0.3 s, and the engine starts the language host and every plugin anew for each command; the
generated messages alone take 0.1 s. So the two packages on the way to them are set up empty. Imported by
`language_host.py` and, copied beside them, by the stand-in plugins.
"""

import importlib.util
import sys
import types
from pathlib import Path

_spec = importlib.util.find_spec("pulumi")
if _spec is None or _spec.origin is None:
    raise ImportError("the pulumi package is not installed beside this Python: run `make setup`")
_folder = Path(_spec.origin).parent
for _name, _path in (("pulumi", _folder), ("pulumi.runtime", _folder / "runtime")):
    _module = types.ModuleType(_name)
    _module.__path__ = [str(_path)]
    sys.modules[_name] = _module

from pulumi.runtime.proto import (  # noqa: E402 - after the two packages above
    engine_pb2,
    engine_pb2_grpc,
    language_pb2,
    language_pb2_grpc,
    plugin_pb2,
    provider_pb2,
    provider_pb2_grpc,
)

__all__ = [
    "engine_pb2",
    "engine_pb2_grpc",
    "language_pb2",
    "language_pb2_grpc",
    "plugin_pb2",
    "provider_pb2",
    "provider_pb2_grpc",
]
