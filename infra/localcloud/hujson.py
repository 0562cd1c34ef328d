"""HuJSON (JSON with comments and trailing commas) to plain JSON. Used by `tailscale_api` for policies.

PURE.
"""

import re

_STRING = r'(?P<string>"(?:[^"\\]|\\.)*")'
_COMMENT = re.compile(_STRING + r"|//[^\n]*|/\*.*?\*/", re.DOTALL)
_TRAILING_COMMA = re.compile(_STRING + r"|,(?=\s*[}\]])", re.DOTALL)


def standardized(text: str) -> str:
    """The same values as plain JSON; what is no HuJSON stays no JSON."""
    without_comments = _COMMENT.sub(_keep_strings, text)
    return _TRAILING_COMMA.sub(_keep_strings, without_comments)


def _keep_strings(match: re.Match[str]) -> str:
    return match.group("string") or " "
