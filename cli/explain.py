"""`payments explain`: why a payment is what it is. It reads the database, and sees what an admin sees."""

import asyncio
from uuid import UUID

import orjson
from rich.console import Console

from cli.errors import refusal_names_the_setting, require_database_file
from cli.terminal import standard_output
from shared.config.settings import Settings, load_settings
from shared.database.engine import open_database
from shared.database.migrations import require_current
from shared.explain.explanation import Explanation, Section
from shared.explain.facts import Reader
from shared.explain.of_payment import explain
from shared.ids import parse_id
from shared.payments.find import Visible

EXIT_UNKNOWN = 1
# Columns of a terminal in which sentences are still easy to read.
WIDTH_MAX = 110
# In the requests to paste, the payer is named: who pastes them is no user.
_READER = Reader(user_id="", is_admin=True)


def run_explain(payment_id: str, *, as_json: bool, messages: Console) -> int:
    """Print the explanation of the payment, and return the exit code: 1 if there is no such payment.

    Raises ConfigurationError, SchemaOutdated or DatabaseUnavailable.
    """
    settings, wanted = load_settings(), parse_id(payment_id)
    require_database_file(settings.sqlalchemy_url)
    explanation = asyncio.run(_read(settings, wanted)) if wanted else None
    if explanation is None:
        messages.print("There is no such payment in this database. `GET /payments` lists the ids.", style="red")
        return EXIT_UNKNOWN
    if as_json:
        print(orjson.dumps(explanation.to_json(), option=orjson.OPT_INDENT_2).decode())
    else:
        _print(explanation.sections())
    return 0


def _print(sections: list[Section]) -> None:
    view = standard_output(width_max=WIDTH_MAX)
    for number, section in enumerate(sections):
        if number:
            view.print()
        view.print(section.heading, style="bold", markup=False)
        for sentence in section.sentences:
            view.print(f"  {sentence}", markup=False)
        for command in section.commands:
            # In one line, because it is to be copied.
            view.print(command, markup=False, soft_wrap=True, style="cyan")


async def _read(settings: Settings, payment_id: UUID) -> Explanation | None:
    database = open_database(settings)
    try:
        with refusal_names_the_setting(settings):
            await require_current(database)
            return await explain(database, settings, payment_id, Visible(), _READER)
    finally:
        await database.dispose()
