"""How long an image takes to come: each host pulls it once. Used by `cloud`.

PURE.
"""

from localcloud.facts import Facts
from localcloud.model import Pod


class Pulls:
    """Per host and image, when it is there."""

    def __init__(self) -> None:
        self._there_at_s: dict[tuple[str, str], float] = {}

    def pull_s(self, pod: Pod, facts: Facts, now_s: float) -> float:
        """How long this pod must wait: until another pod's pull on its host is over, or for a whole one."""
        key = (pod.host, pod.request.image)
        whole_s = facts.image_gb(pod.request.image) / facts.pull_gb_per_s
        return max(0.0, self._there_at_s.setdefault(key, now_s + whole_s) - now_s)

    def to_json(self) -> list[list[str | float]]:
        """What is where since when."""
        return [[host, image, at_s] for (host, image), at_s in self._there_at_s.items()]

    def from_json(self, kept: list[list[str | float]]) -> None:
        """Take over what `to_json` gave."""
        self._there_at_s = {(str(host), str(image)): float(at_s) for host, image, at_s in kept}
