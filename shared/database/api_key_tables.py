"""The table of API keys."""

from sqlalchemy import Column, String, Table, UniqueConstraint, Uuid

from shared.database.columns import UtcDateTime
from shared.database.tables import metadata, required

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Uuid, primary_key=True),
    # With the role, the principal. Several keys may name the same one.
    required("name", String(64)),
    required("role", String(16)),
    required("key_hash", String(64)),  # keyed
    # The first characters, by which its owner recognises a key.
    required("key_start", String(16)),
    required("created_by", String(80)),
    required("created_at", UtcDateTime),
    Column("expires_at", UtcDateTime),
    Column("last_used_at", UtcDateTime),
    # Rows of revoked keys stay, so that a use afterwards is recognised.
    Column("revoked_at", UtcDateTime),
    Column("revoked_by", String(80)),
    UniqueConstraint("key_hash"),
)
