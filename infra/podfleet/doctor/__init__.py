"""`podfleet doctor`: is everything there that a stack needs, and what can only a real account tell?

`findings` is what a check says; `machine` and `stack` look and change nothing; `traps` reads the config; `live` asks
the real API what no documentation answers; `probe` rents one pod for a minute. Called by the command line.
"""
