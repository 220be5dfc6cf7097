"""A role that has the rights that docs/operations.md names, and no other."""

import re
from pathlib import Path

from tests.support.servers import PostgresServer

PAGE = Path(__file__).resolve().parents[2] / "docs" / "operations.md"
ROLE, PASSWORD = "payments_app", "first-password"


def documented_grants() -> str:
    """The statements of the page, for the role and the schema that it names."""
    found = re.search(r"```sql\n(CREATE ROLE payments_app .*?)```", PAGE.read_text(), flags=re.DOTALL)
    assert found is not None
    return found[1]


def give_role(postgres: PostgresServer, database: str) -> str:
    """Make the role on this server if it is not there, grant it its rights in a migrated database; return its URL."""
    exists = postgres.execute(f"SELECT 1 FROM pg_roles WHERE rolname = '{ROLE}'")  # noqa: S608 - our own name
    lines = [line for line in documented_grants().splitlines() if not (exists and line.startswith("CREATE ROLE"))]
    statements = "\n".join(lines).replace("'...'", f"'{PASSWORD}'").replace("DATABASE shop", f'DATABASE "{database}"')
    postgres.execute(f"{statements}; ALTER ROLE {ROLE} RESET ALL", database=database)
    return f"postgresql://{ROLE}:{PASSWORD}@127.0.0.1:{postgres.port}/{database}"


def ask_for_password(postgres: PostgresServer) -> None:
    """Let the server ask the role for its password; everybody else is trusted."""
    rule = f"host all {ROLE} 127.0.0.1/32 scram-sha-256"
    file = postgres.execute("SHOW hba_file").strip()
    postgres.execute(f"COPY (VALUES ('{rule}'), ('host all all 127.0.0.1/32 trust')) TO '{file}'")
    postgres.execute("SELECT pg_reload_conf()")
