"""List the verbs of the Makefile: what `make` alone prints. A verb is a target with `## what it does` behind it."""

import re
from pathlib import Path

VERB = re.compile(r"^([a-z]+):[^#\n]*## (.+)$", re.MULTILINE)


def verbs(makefile: str) -> list[tuple[str, str]]:
    return VERB.findall(makefile)


if __name__ == "__main__":
    for name, does in verbs((Path(__file__).resolve().parent.parent / "Makefile").read_text()):
        print(f"make {name:<8} {does}")
