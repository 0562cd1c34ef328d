"""Crash points: faults of the cloud and SIGKILLs, each followed by one more `up` or `destroy`, judged by the ledger."""
