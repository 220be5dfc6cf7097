"""Payment methods: add, find, change and delete them.

The table gets the brand, the last four digits, the expiry and a keyed hash of a card, and never its number.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self
from uuid import UUID

from sqlalchemy import ColumnElement, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.database.clock import rfc3339
from shared.database.tables import payment_methods
from shared.errors import PaymentMethodLimit
from shared.lifecycle import FailureCode, MethodType


@dataclass(frozen=True, slots=True, kw_only=True)
class NewMethod:
    """The part of a card or an account that may be stored."""

    user_id: str
    type: MethodType
    display_name: str
    is_default: bool
    fingerprint: str
    details: dict[str, Any]
    scenario: FailureCode | None
    expires_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """A row of `payment_methods`, every column under its own name."""

    id: UUID
    user_id: str
    type: MethodType
    display_name: str
    is_default: bool
    is_active: bool
    fingerprint: str
    details: dict[str, Any]
    scenario: str | None
    expires_at: datetime | None
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, row: Mapping[Any, Any]) -> Self:
        """Return the method of a row of the table."""
        return cls(**{**row, "type": MethodType(row["type"])})

    def to_json(self) -> dict[str, Any]:
        """Return the method as its user sees it."""
        return {
            "id": str(self.id),
            "user_id": self.user_id,
            "type": self.type.value,
            "display_name": self.display_name,
            "masked_details": self.details,
            "is_default": self.is_default,
            "is_active": self.is_active,
            "expires_at": rfc3339(self.expires_at) if self.expires_at else None,
            "created_at": rfc3339(self.created_at),
        }


async def add_method(
    connection: AsyncConnection, new: NewMethod, *, method_id: UUID, methods_max: int, now: datetime
) -> tuple[Method, bool]:
    """Add a method, or update the expiry if the user already has it. Return the method, and True if it is new.

    The first method of a user is the default. Raises PaymentMethodLimit if the user already has `methods_max` methods.
    """
    await _lock_methods_of(connection, new.user_id)
    active = await methods_of(connection, new.user_id)
    known = next((method for method in active if method.fingerprint == new.fingerprint), None)
    if known is not None:
        return await _renew(connection, known, new, now=now), False
    if len(active) >= methods_max:
        raise PaymentMethodLimit(
            f"This user already has {methods_max} payment methods. Delete one before adding another."
        )
    is_default = new.is_default or not active
    if is_default:
        await _clear_default(connection, new.user_id, now=now)
    row = {
        "id": method_id,
        "user_id": new.user_id,
        "type": new.type,
        "display_name": new.display_name,
        "is_default": is_default,
        "is_active": True,
        "fingerprint": new.fingerprint,
        "details": new.details,
        "scenario": new.scenario,
        "expires_at": new.expires_at,
        "created_at": now,
        "updated_at": now,
    }
    await connection.execute(insert(payment_methods), row)
    return Method.of(row), True


async def methods_of(connection: AsyncConnection, user_id: str) -> list[Method]:
    """Return the active methods of the user, the newest first."""
    found = await connection.execute(
        select(payment_methods)
        .where(payment_methods.c.user_id == user_id, payment_methods.c.is_active)
        .order_by(payment_methods.c.id.desc())
    )
    return [Method.of(row) for row in found.mappings()]


async def find_method(connection: AsyncConnection, method_id: UUID, *, user_id: str | None) -> Method | None:
    """Return the active method if it is the user's, or of any user if `user_id` is None. None if there is none."""
    conditions: list[ColumnElement[bool]] = [payment_methods.c.id == method_id, payment_methods.c.is_active]
    if user_id is not None:
        conditions.append(payment_methods.c.user_id == user_id)
    row = (await connection.execute(select(payment_methods).where(*conditions))).mappings().one_or_none()
    return Method.of(row) if row else None


async def change_method(
    connection: AsyncConnection, method: Method, *, display_name: str | None, make_default: bool, now: datetime
) -> Method | None:
    """Rename the method, make it the default, or both. Return it, or None if it was deleted.

    If it has the name and is the default already, `updated_at` stays.
    """
    await _lock_methods_of(connection, method.user_id)
    current = await find_method(connection, method.id, user_id=method.user_id)
    if current is None:
        return None
    values: dict[str, Any] = {}
    if display_name is not None and display_name != current.display_name:
        values["display_name"] = display_name
    if make_default and not current.is_default:
        await _clear_default(connection, method.user_id, now=now)
        values["is_default"] = True
    return await _update(connection, method.id, {**values, "updated_at": now}) if values else current


async def delete_method(connection: AsyncConnection, method: Method, *, now: datetime) -> bool:
    """Deactivate the method. If it was the default, the newest method that is left becomes the default.

    Return False if the method was already deleted.
    """
    await _lock_methods_of(connection, method.user_id)
    current = await find_method(connection, method.id, user_id=method.user_id)
    if current is None:
        return False
    await _update(connection, method.id, {"is_active": False, "is_default": False, "updated_at": now})
    remaining = await methods_of(connection, method.user_id)
    if current.is_default and remaining:
        await _update(connection, remaining[0].id, {"is_default": True, "updated_at": now})
    return True


async def _lock_methods_of(connection: AsyncConnection, user_id: str) -> None:
    """Let one transaction at a time change the methods of a user: the limit and the default concern all of them.

    SQLite needs no lock for that, as it has one writer.
    """
    if connection.dialect.name == "postgresql":
        await connection.execute(
            text("SELECT pg_advisory_xact_lock(hashtextextended(:user, 0))"), {"user": f"payment methods of {user_id}"}
        )


async def _renew(connection: AsyncConnection, known: Method, new: NewMethod, *, now: datetime) -> Method:
    values: dict[str, Any] = {}
    if known.details != new.details:
        values |= {"details": new.details, "expires_at": new.expires_at, "updated_at": now}
    if new.is_default and not known.is_default:
        await _clear_default(connection, known.user_id, now=now)
        values |= {"is_default": True, "updated_at": now}
    return (await _update(connection, known.id, values) if values else None) or known


async def _clear_default(connection: AsyncConnection, user_id: str, *, now: datetime) -> None:
    await connection.execute(
        update(payment_methods)
        .where(payment_methods.c.user_id == user_id, payment_methods.c.is_active, payment_methods.c.is_default)
        .values(is_default=False, updated_at=now)
    )


async def _update(connection: AsyncConnection, method_id: UUID, values: Mapping[str, Any]) -> Method | None:
    changed = await connection.execute(
        update(payment_methods)
        .where(payment_methods.c.id == method_id, payment_methods.c.is_active)
        .values(values)
        .returning(*payment_methods.c)
    )
    row = changed.mappings().one_or_none()
    return Method.of(row) if row and row["is_active"] else None
