"""The platform's order service as it really behaves, bugs included.

Built from what was observed of it, and never from what our own code expects.
"""

import itertools
import json
from dataclasses import dataclass, field
from typing import Any

import jwt
from aiohttp import web

from tests.support.standins import Standin, bearer_of

ADMIN_ROLES = {"admin", "order_admin", "super_admin"}
NEXT = {
    "PENDING": {"CONFIRMED", "CANCELLED"},
    "CONFIRMED": {"PROCESSING", "CANCELLED"},
    "PROCESSING": {"SHIPPED", "CANCELLED"},
    "SHIPPED": {"DELIVERED"},
    "DELIVERED": set(),
    "CANCELLED": set(),
}
NOTES_MAX = 500


@dataclass(slots=True)
class Order:
    """An order; `total` is written into the answer as it stands here."""

    id: int
    user_id: int
    total: str
    currency: str
    status: str = "PENDING"
    moves: list[str] = field(default_factory=list)  # the statuses it was moved to, one per transition
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> str:
        said = {
            "id": self.id,
            "order_number": f"ORD-{self.id}",
            "user_id": self.user_id,
            "status": self.status,
            "subtotal": 10.0,
            "tax_rate": 0.085,
            "tax_amount": 0.85,
            "shipping_cost": 5.0,
            "total": "TOTAL",
            "currency": self.currency,
            "items": [{"product_id": 1, "quantity": 1, "unit_price": 10.0}],
            "shipping_address": {"city": "Bonn"},
        }
        return json.dumps(said).replace('"TOTAL"', self.total)


class Crash(Exception):
    """Its error helper crashes: whatever went wrong is answered with 500 and no word about it."""


@dataclass(slots=True)
class OrderService(Standin):
    """Numbers its orders and knows nothing of payments."""

    secret: str = ""
    orders: dict[int, Order] = field(default_factory=dict)
    updates_to_lose: int = 0  # of the next ones: done, and then the connection is cut instead of an answer
    updates_to_drop: int = 0  # of the next ones: the connection is cut before they are done
    cancels_before_update: bool = False  # the shop cancels the order in the moment before an update
    ships_before_update: bool = False  # it ships the order in that moment
    _numbers: Any = field(default_factory=lambda: itertools.count(1))

    def routes(self) -> list[web.RouteDef]:
        return [
            *Standin.routes(self),
            web.get("/orders/{id}", self.show),
            web.put("/orders/{id}/status", self.update),
            web.route("*", "/{path:.*}", self.crash),
        ]

    def place(self, *, user_id: int = 1, total: str = "15.85", currency: str = "USD", status: str = "PENDING") -> Order:
        """A new order."""
        number = next(self._numbers)
        self.orders[number] = Order(number, user_id, total, currency, status)
        return self.orders[number]

    async def show(self, request: web.Request) -> web.Response:
        try:
            order = self._visible(request)
        except Crash:
            return self._crashed()
        return web.Response(text=order.to_json(), content_type="application/json")

    async def update(self, request: web.Request) -> web.Response:
        if self.updates_to_drop:
            self.updates_to_drop -= 1
            return _cut(request)
        try:
            order = await self._updated(request)
        except Crash:
            return self._crashed()
        if self.updates_to_lose:
            self.updates_to_lose -= 1
            return _cut(request)
        return web.Response(text=order.to_json(), content_type="application/json")

    async def crash(self, _request: web.Request) -> web.Response:
        return self._crashed()

    def _visible(self, request: web.Request) -> Order:
        order, claims = self._order(request), self._claims(request)
        if order.user_id != claims.get("user_id") and not self._is_admin(claims):
            raise Crash  # forbidden
        return order

    async def _updated(self, request: web.Request) -> Order:
        order, claims, wanted = self._order(request), self._claims(request), await request.json()
        if self.cancels_before_update and "CANCELLED" in NEXT[order.status]:
            order.status = "CANCELLED"
        if self.ships_before_update and order.status != "CANCELLED":
            order.status = "SHIPPED"
        if not self._is_admin(claims) or len(wanted.get("notes", "")) > NOTES_MAX:
            raise Crash
        if wanted.get("status") not in NEXT[order.status]:
            raise Crash  # CONFIRMED -> CONFIRMED, and PAID, which it does not know
        order.status = wanted["status"]
        order.moves.append(order.status)
        order.notes.append(wanted.get("notes", ""))
        return order

    def _order(self, request: web.Request) -> Order:
        number = request.match_info["id"]
        if not number.isdigit() or int(number) not in self.orders:
            raise Crash  # not found
        return self.orders[int(number)]

    def _claims(self, request: web.Request) -> dict[str, Any]:
        try:
            claims: dict[str, Any] = jwt.decode(bearer_of(request), self.secret, algorithms=["HS256"])
        except jwt.PyJWTError as error:
            raise Crash from error
        if claims.get("type") != "access":
            raise Crash
        return claims

    def _is_admin(self, claims: dict[str, Any]) -> bool:
        """It reads a role locally only beside a user and an e-mail address."""
        return claims.get("role") in ADMIN_ROLES and "user_id" in claims and bool(claims.get("email"))

    def _crashed(self) -> web.Response:
        return web.Response(status=500, text="Internal Server Error")


def _cut(request: web.Request) -> web.Response:
    """End the connection without a word."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()
