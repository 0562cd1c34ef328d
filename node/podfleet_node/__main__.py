"""`python -m podfleet_node`: how the supervisor starts its worker."""

import sys

from podfleet_node.cli import main

sys.exit(main())
