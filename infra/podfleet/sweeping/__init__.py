"""`podfleet sweep`: `orphans` judges (pure), `looks` looks, `sweeper` looks twice and ends, `table` shows."""
