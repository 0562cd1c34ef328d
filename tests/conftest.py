"""For all tests."""

import hypothesis  # noqa: F401  imported early: its plugin would import it late, from a deep stack
