"""Authentication: principals, tokens, and the services and keys that verify tokens."""
