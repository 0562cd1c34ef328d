"""`python -m podfleet_queue`, the form that tests and `podfleet_queue.testing` start."""

from podfleet_queue.cli import main

if __name__ == "__main__":
    main()
