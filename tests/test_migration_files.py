"""The files of migrations: each is dated, goes down too, and imports nothing of ours."""

import re

from shared.database.migrations import MIGRATIONS, head, known_revisions


def test_every_migration_is_dated_goes_down_and_never_imports_our_code() -> None:
    files = sorted((MIGRATIONS / "versions").glob("*.py"))
    previous = None
    for file in files:
        code = file.read_text()
        assert re.fullmatch(r"\d{8}_\d{4}_[a-z_]+\.py", file.name)
        found = re.search(r'^revision = "(\d{8}_\d{4})"$', code, flags=re.MULTILINE)
        assert found is not None
        assert file.name.startswith(found[1])
        assert f"down_revision = {previous!r}".replace("'", '"') in code
        assert re.search(r"^def downgrade\(\) -> None:\n    \w", code, flags=re.MULTILINE)
        assert not re.search(r"^(from|import) (shared|api|worker|cli)\b", code, flags=re.MULTILINE)
        previous = found[1]
    assert previous == head()
    assert len(known_revisions()) == len(files)
