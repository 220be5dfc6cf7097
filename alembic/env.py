"""Runs migrations on the connection that `shared.schema` opened: its transaction is theirs."""

from alembic import context

from shared.models import metadata
from shared.schema import VERSION_TABLE

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    transactional_ddl=False,  # the transaction, and its end, belong to the caller
)
context.run_migrations()
