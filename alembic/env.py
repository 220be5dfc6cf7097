"""Runs the migrations on the connection that `shared.database.migrations` has opened, and in its transaction.

It never commits: that is done by the caller.
"""

from alembic import context

from shared.database.migrations import VERSION_TABLE
from shared.database.schema import metadata

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    # The caller has begun the transaction and ends it.
    transactional_ddl=False,
)
context.run_migrations()
