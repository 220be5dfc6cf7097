"""Runs the migrations on the connection that `shared.database.migrations` has opened, and in its transaction.

It never commits: that is done by the caller.
"""

from alembic import context

from shared.database.migrations import VERSION_TABLE
from shared.database.schema import metadata

connection = context.config.attributes["connection"]
# Otherwise Alembic would commit after each migration, and a refused way back would stop half way.
if not connection.in_transaction():
    connection.begin()
context.configure(
    connection=connection,
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    # The caller has begun the transaction and ends it.
    transactional_ddl=False,
)
context.run_migrations()
