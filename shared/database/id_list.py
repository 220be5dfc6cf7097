"""The condition that a column is one of some ids, as one statement however many ids there are.

SQLAlchemy's `IN` writes a parameter for every value. Each number of ids is then another statement, which PostgreSQL
parses and plans anew. Here the ids are one parameter.
"""

from collections.abc import Collection
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import ColumnElement, Dialect, Text, Uuid, bindparam
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import GenericFunction
from sqlalchemy.types import Boolean, TypeDecorator, TypeEngine


class _Ids(TypeDecorator[Collection[UUID]]):
    """Ids as one value: an array for PostgreSQL; for SQLite a JSON array of texts as the column stores them."""

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """See TypeDecorator."""
        return dialect.type_descriptor(Text() if dialect.name == "sqlite" else ARRAY(Uuid()))

    def process_bind_param(self, value: Collection[UUID] | None, dialect: Dialect) -> Any:
        """Return the ids in ascending order, so that rows are found in that order too."""
        ids = sorted(value or ())
        return orjson.dumps([one.hex for one in ids]).decode() if dialect.name == "sqlite" else ids


class _IdIn(GenericFunction[bool]):
    """The condition; its arguments are the column and the ids."""

    type = Boolean()
    inherit_cache = True
    name = "payments_id_in"


def id_in(column: ColumnElement[UUID], ids: Collection[UUID] | str) -> ColumnElement[bool]:
    """Return the condition that `column` is one of `ids`. A text is the name of the parameter that gives the ids."""
    if isinstance(ids, str):
        return _IdIn(column, bindparam(ids, type_=_Ids))
    return _IdIn(column, bindparam(None, ids, type_=_Ids, unique=True))


@compiles(_IdIn)
def _as_array(element: _IdIn, compiler: SQLCompiler, **kw: Any) -> str:
    column, ids = (compiler.process(clause, **kw) for clause in element.clauses)
    return f"{column} = ANY ({ids})"


@compiles(_IdIn, "sqlite")
def _as_json(element: _IdIn, compiler: SQLCompiler, **kw: Any) -> str:
    column, ids = (compiler.process(clause, **kw) for clause in element.clauses)
    return f"{column} IN (SELECT value FROM json_each({ids}))"  # noqa: S608 - both are SQLAlchemy's own text
