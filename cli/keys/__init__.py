"""`payments keys`: create, list and revoke API keys in the database itself, such as the first one."""
