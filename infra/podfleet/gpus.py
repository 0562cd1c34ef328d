"""What is known of GPU types beside the catalogue: speed, memory need of a model, list price. Tables; pure.

Used by `placement` for the first guess; a measured speed (`podfleet:gpuSpeeds`) always goes first.

Sources. Speeds are seconds of audio per second with Parakeet TDT 0.6B in batches. PLANNED are planning figures for L4,
A5000, A40 and 4090 (estimates that no bill has confirmed yet). BY_RATIO are those figures times the ratio of memory
bandwidth (NVIDIA's data sheets) to the nearest of these four by generation: Ampere to A5000, A6000 to A40, Ada and
Blackwell RTX to 4090. A100 is 0.4 of its public leaderboard figure (3,386x in batches of 128 short clips), as the
planned ones are of their estimates; H100 and B200 by bandwidth to A100, H200 like H100, whose chip it has. Prices are
RunPod's list prices of 2026-08-27, used only while the catalogue does not answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Basis(StrEnum):
    """Where a speed comes from."""

    MEASURED = "measured"
    PLANNED = "planning figure"
    BY_RATIO = "estimated by ratio"
    ASSUMED = "assumed: no such GPU in the table"
    CPU = "the engine does not use the GPU"


@dataclass(frozen=True, slots=True)
class GpuType:
    """One row of the table."""

    speed: float
    basis: Basis
    vram_gb: int
    secure_usd_per_hr: float | None
    community_usd_per_hr: float | None

    def list_price_usd_per_hr(self, cloud: str) -> float:
        """0 where it is not known."""
        return (self.secure_usd_per_hr if cloud == "SECURE" else self.community_usd_per_hr) or 0.0


@dataclass(frozen=True, slots=True)
class Speed:
    """Seconds of audio per second, and where the figure comes from."""

    audio_s_per_s: float
    basis: Basis


_PLANNED, _RATIO = Basis.PLANNED, Basis.BY_RATIO
GPUS: Mapping[str, GpuType] = {
    "NVIDIA RTX A4000": GpuType(290, _RATIO, 16, 0.25, 0.17),
    "NVIDIA RTX A4500": GpuType(415, _RATIO, 20, 0.25, 0.19),
    "NVIDIA RTX A5000": GpuType(500, _PLANNED, 24, 0.27, 0.16),
    "NVIDIA GeForce RTX 3090": GpuType(610, _RATIO, 24, None, None),
    "NVIDIA A40": GpuType(600, _PLANNED, 48, 0.44, None),
    "NVIDIA RTX A6000": GpuType(660, _RATIO, 48, 0.53, 0.33),
    "NVIDIA RTX 2000 Ada Generation": GpuType(220, _RATIO, 16, None, None),
    "NVIDIA RTX 4000 Ada Generation": GpuType(355, _RATIO, 20, 0.28, 0.20),
    "NVIDIA L4": GpuType(300, _PLANNED, 24, 0.49, None),
    "NVIDIA GeForce RTX 4080": GpuType(710, _RATIO, 16, None, None),
    "NVIDIA GeForce RTX 4090": GpuType(1000, _PLANNED, 24, 0.74, 0.34),
    "NVIDIA L40": GpuType(855, _RATIO, 48, 0.82, 0.69),
    "NVIDIA L40S": GpuType(855, _RATIO, 48, 0.99, 0.79),
    "NVIDIA RTX 6000 Ada Generation": GpuType(950, _RATIO, 48, 0.84, 0.74),
    "NVIDIA GeForce RTX 5090": GpuType(1780, _RATIO, 32, 0.99, 0.69),
    "NVIDIA RTX PRO 4500 Blackwell": GpuType(890, _RATIO, 32, 0.72, None),
    "NVIDIA RTX PRO 6000 Blackwell Server Edition MIG 1g.24gb": GpuType(395, _RATIO, 24, 0.59, None),
    "NVIDIA A100 80GB PCIe": GpuType(1350, _RATIO, 80, 1.39, 1.19),
    "NVIDIA A100-SXM4-80GB": GpuType(1420, _RATIO, 80, 1.59, 1.39),
    "NVIDIA H100 80GB HBM3": GpuType(2330, _RATIO, 80, 3.29, 2.69),
    "NVIDIA H200": GpuType(2330, _RATIO, 141, 4.59, 3.59),
    "NVIDIA B200": GpuType(5560, _RATIO, 180, 6.79, 5.98),
}
SLOWEST = min(gpu.speed for gpu in GPUS.values())  # for a GPU that nobody knows: it comes last

# Engines without a GPU: one speed for all, so that the price alone decides (pocketsphinx on one core).
CPU_ENGINES: Mapping[str, float] = {"pocketsphinx": 3.0, "scripted": 3.0}
# Whisper large does 40 to 70x where Parakeet does 500x (estimate); the other sizes by the ratios of OpenAI's README.
WHISPER_LARGE = 55 / 500
WHISPER_RATIO: Mapping[str, float] = {"tiny": 10, "base": 7, "small": 4, "medium": 2, "turbo": 8, "large": 1}
# GB of GPU memory: OpenAI's README for Whisper's sizes; Parakeet's weights and a batch of 64 chunks (computed).
WHISPER_VRAM_GB: Mapping[str, float] = {"tiny": 1, "base": 1, "small": 2, "medium": 5, "turbo": 6, "large": 10}
PARAKEET_VRAM_GB = 12.0
WHISPERS = frozenset({"whisper", "faster-whisper"})


def speed_of(gpu_id: str, *, engine: str = "", model: str = "", measured: Mapping[str, float] | None = None) -> Speed:
    """The measured speed of exactly this id, else the table's; an engine that is not known counts as Parakeet."""
    if measured and gpu_id in measured:
        return Speed(measured[gpu_id], Basis.MEASURED)
    if engine in CPU_ENGINES:
        return Speed(CPU_ENGINES[engine], Basis.CPU)
    known = GPUS.get(gpu_id)
    factor = WHISPER_LARGE * WHISPER_RATIO[_whisper_size(model)] if engine in WHISPERS else 1.0
    if known is None:
        return Speed(SLOWEST * factor, Basis.ASSUMED)
    return Speed(known.speed * factor, known.basis)


def vram_need_gb(engine: str, model: str) -> float:
    """What the model needs on the GPU; 0 for engines that use none, and for those that are not in the tables."""
    if engine in WHISPERS:
        return WHISPER_VRAM_GB[_whisper_size(model)]
    return PARAKEET_VRAM_GB if engine == "parakeet" else 0.0


def _whisper_size(model: str) -> str:
    """`Systran/faster-whisper-large-v3` → `large`; whatever is not known counts as the largest."""
    words = model.lower().rsplit("/", 1)[-1].replace(".", "-").split("-")
    return next((size for size in WHISPER_RATIO if size in words), "large")
