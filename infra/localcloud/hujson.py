"""HuJSON (JSON with comments and trailing commas) to plain JSON. Used by `tailscale_api` for policies.

PURE.
"""

import re

_TOKEN = re.compile(
    r"""(?P<string>"(?:[^"\\]|\\.)*")      # kept as it is
      | (?P<comment>//[^\n]*|/\*.*?\*/)    # dropped
      | (?P<comma>,(?=(?:\s|//[^\n]*|/\*.*?\*/)*[}\]]))  # trailing: dropped""",
    re.VERBOSE | re.DOTALL,
)


def standardized(text: str) -> str:
    """The same values as plain JSON; what is no HuJSON stays no JSON."""
    return _TOKEN.sub(lambda match: match.group("string") or " ", text)
