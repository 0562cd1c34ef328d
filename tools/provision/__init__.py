"""The steps of `tools/bootstrap.py`, one per module: standard library only, as nothing is installed yet."""
