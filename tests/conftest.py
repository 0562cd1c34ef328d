"""For all tests."""

import signal

import hypothesis  # noqa: F401  imported early: its plugin would import it late, from a deep stack

# A run in the background of a shell ignores SIGINT, and so would every program that a test starts and interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)
