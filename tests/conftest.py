"""For all tests."""

import signal
import sys

import hypothesis  # noqa: F401  imported early: its plugin would import it late, from a deep stack
import schemathesis.reporting.html.writer
import schemathesis.reporting.junitxml  # noqa: F401  as above

sys.modules.setdefault("schemathesis.reporting.allure", None)  # type: ignore[arg-type]  lacks a package, found out late

# A run in the background of a shell ignores SIGINT, and so would every program that a test starts and interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)
