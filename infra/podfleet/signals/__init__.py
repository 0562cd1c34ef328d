"""Signals: each module reads one source and returns typed values with their age. None of them sizes anything."""
