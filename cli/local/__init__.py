"""Local parts of an installation, run as child processes: PostgreSQL, Valkey, the service and a webhook receiver."""
