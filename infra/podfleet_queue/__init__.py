"""podfleet's embedded queue server: a folder, SQLite and cast2md's node protocol.

For people without a transcription server, for the demo and for tests. Started by `podfleet-queue serve`; imports
nothing else of podfleet. Map: `jobs` decides (pure), `tables` is the SQL, `store` makes each verb one transaction,
`node_routes` and `queue_routes` are the wire, `server` runs it, `cli` is the command, `testing` starts it for tests.
"""
