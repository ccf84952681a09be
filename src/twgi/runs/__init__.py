"""Many thoughts into one folder that survives whatever happens."""
