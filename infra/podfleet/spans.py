"""Lengths of time, in words for people. Pure."""

from __future__ import annotations


def span(seconds: float) -> str:
    """`45 s`, `1 min 12 s`, `2 h 5 min`, `3 d 4 h`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest_s = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest_s} s"
    hours, rest_min = divmod(minutes, 60)
    return f"{hours} h {rest_min} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"
