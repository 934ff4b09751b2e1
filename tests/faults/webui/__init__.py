"""The same faults in a real web UI, and those that only a web UI can meet."""
