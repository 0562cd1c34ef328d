"""`setsid` for a shell line, on machines that have Python and coreutils and nothing else."""

import shlex
import sys

SETSID = f"{shlex.quote(sys.executable)} -S -c 'import os,sys; os.setsid(); os.execvp(sys.argv[1], sys.argv[1:])'"
