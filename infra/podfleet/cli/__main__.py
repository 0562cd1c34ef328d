"""`python -m podfleet.cli`."""

from podfleet.cli import main

main()
