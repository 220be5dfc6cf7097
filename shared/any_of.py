"""`column is one of these ids` as one statement, however many they are.

SQLAlchemy's `IN` writes a parameter for every value: each number of ids is another statement, which PostgreSQL parses
and plans anew. Here the ids are one parameter.
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
    """Ids as one value: an array for PostgreSQL, JSON of what the column holds for SQLite."""

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """See TypeDecorator."""
        return dialect.type_descriptor(Text() if dialect.name == "sqlite" else ARRAY(Uuid()))

    def process_bind_param(self, value: Collection[UUID] | None, dialect: Dialect) -> Any:
        """In the order of the ids, so that rows are found in that order too."""
        ids = sorted(value or ())
        return orjson.dumps([one.hex for one in ids]).decode() if dialect.name == "sqlite" else ids


class _AnyOf(GenericFunction[bool]):
    """The condition, with the column and the ids as its arguments."""

    type = Boolean()
    inherit_cache = True
    name = "payments_any_of"


def any_of(column: ColumnElement[UUID], ids: Collection[UUID] | str) -> ColumnElement[bool]:
    """The value of `column` is one of `ids`, or of those given as the parameter of that name."""
    if isinstance(ids, str):
        return _AnyOf(column, bindparam(ids, type_=_Ids))
    return _AnyOf(column, bindparam(None, ids, type_=_Ids, unique=True))


@compiles(_AnyOf)
def _as_array(element: _AnyOf, compiler: SQLCompiler, **kw: Any) -> str:
    column, ids = (compiler.process(clause, **kw) for clause in element.clauses)
    return f"{column} = ANY ({ids})"


@compiles(_AnyOf, "sqlite")
def _as_json(element: _AnyOf, compiler: SQLCompiler, **kw: Any) -> str:
    column, ids = (compiler.process(clause, **kw) for clause in element.clauses)
    return f"{column} IN (SELECT value FROM json_each({ids}))"  # noqa: S608 - both are SQLAlchemy's own text
