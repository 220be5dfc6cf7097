"""The platform's auth and order service as they really behave, bugs included: real HTTP servers on loopback.

Built from what was observed of them, and never from what our own code expects. Each can be taken down, slowed, made
sick or made to lose an answer, and remembers every request.
"""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import jwt
from aiohttp import web

from shared.ids import new_id
from tests.support.servers import free_port

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


@dataclass(frozen=True, slots=True)
class Received:
    """One request as it came in."""

    method: str
    path: str  # as it was sent, still encoded
    headers: dict[str, str]  # names in lower case
    body: bytes

    @property
    def token(self) -> str:
        return self.headers.get("authorization", "").removeprefix("Bearer ")

    @property
    def claims(self) -> dict[str, Any]:
        """What the token says, unverified."""
        claims: dict[str, Any] = jwt.decode(self.token, options={"verify_signature": False})
        return claims


@dataclass(slots=True)
class Standin:
    """A server on one port of loopback, up from the beginning of its block to the end, with troubles on demand."""

    port: int = field(default_factory=free_port)
    requests: list[Received] = field(default_factory=list)
    failing: int | None = None  # the status that a proxy before it answers everything with
    is_sick: bool = False  # /health says so
    held: asyncio.Event | None = None  # no answer leaves before it is set
    delay_s: float = 0  # before every answer
    _runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def asked(self, method: str, path: str = "") -> list[Received]:
        """The requests with this method and the beginning of this path."""
        return [each for each in self.requests if each.method == method and each.path.startswith(path)]

    async def up(self) -> None:
        """Listen."""
        app = web.Application(middlewares=[self._observed])
        app.add_routes(self.routes())
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True).start()

    async def down(self) -> None:
        """Refuse connections, and drop those that are open."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def routes(self) -> list[web.RouteDef]:
        """What it answers."""
        return [web.get("/health", self.health)]

    async def health(self, _request: web.Request) -> web.Response:
        status = "unhealthy" if self.is_sick else "healthy"
        said = {"status": status, "timestamp": datetime.now(UTC).isoformat(), "database": "connected"}
        return web.json_response(said, status=503 if self.is_sick else 200)

    @web.middleware
    async def _observed(self, request: web.Request, handler: Any) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.requests.append(Received(request.method, request.raw_path, headers, await request.read()))
        if self.held is not None:
            await self.held.wait()
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        if self.failing is not None:
            return web.Response(status=self.failing, text="<html>bad gateway</html>", content_type="text/html")
        answer: web.StreamResponse = await handler(request)
        if "x-correlation-id" in headers:
            answer.headers["x-correlation-id"] = headers["x-correlation-id"]
        return answer


@asynccontextmanager
async def running[S: Standin](standin: S) -> AsyncIterator[S]:
    """The stand-in, up until the block ends."""
    await standin.up()
    try:
        yield standin
    finally:
        if standin.held is not None:
            standin.held.set()
        await standin.down()


def bearer_of(request: web.Request) -> str:
    return request.headers.get("authorization", "").removeprefix("Bearer ")


# -- the auth service


@dataclass(slots=True)
class AuthService(Standin):
    """Signs its tokens with the platform's secret and puts no role, subject, issuer or audience into them."""

    secret: str = ""
    users: dict[str, tuple[int, str]] = field(default_factory=lambda: {"shopper@example.com": (1, "correct horse")})
    revoked: set[str] = field(default_factory=set)  # ids of refresh tokens: access tokens cannot be revoked
    answers: str | None = None  # instead of what it would say of a token

    ACCESS: ClassVar = timedelta(minutes=15)
    REFRESH: ClassVar = timedelta(days=7)

    def routes(self) -> list[web.RouteDef]:
        return [
            *Standin.routes(self),
            web.post("/auth/login", self.login),
            web.post("/auth/logout", self.logout),
            web.get("/auth/verify", self.verify),
        ]

    def token(self, user_id: int, kind: str = "access", *, lives: timedelta | None = None, **more: Any) -> str:
        """A token as it makes them."""
        now = datetime.now(UTC)
        lives = lives or (self.ACCESS if kind == "access" else self.REFRESH)
        claims = {"user_id": user_id, "type": kind, "exp": now + lives, "iat": now, "jti": str(new_id()), **more}
        return jwt.encode(claims, self.secret, "HS256")

    async def login(self, request: web.Request) -> web.Response:
        given = await request.json()
        user_id, password = self.users.get(given.get("email"), (0, None))
        if password is None or given.get("password") != password:
            return web.json_response({"detail": "Invalid credentials"}, status=401)
        said = {"access_token": self.token(user_id), "refresh_token": self.token(user_id, "refresh")}
        return web.json_response({**said, "token_type": "bearer", "expires_in": 900})

    async def logout(self, request: web.Request) -> web.Response:
        """Revokes the refresh token only."""
        claims = self._claims((await request.json())["refresh_token"], "refresh")
        if claims is not None:
            self.revoked.add(claims["jti"])
        return web.json_response({"message": "Logged out"})

    async def verify(self, request: web.Request) -> web.Response:
        if self.answers is not None:
            return web.Response(text=self.answers, content_type="application/json")
        claims = self._claims(bearer_of(request), "access")
        known = {user_id: email for email, (user_id, _) in self.users.items()}
        if claims is None or claims["user_id"] not in known:
            return web.json_response({"detail": "Invalid or expired token"}, status=401)
        user_id = claims["user_id"]
        return web.json_response({"valid": True, "user_id": user_id, "email": known[user_id]})

    def _claims(self, token: str, kind: str) -> dict[str, Any] | None:
        try:
            claims: dict[str, Any] = jwt.decode(token, self.secret, algorithms=["HS256"])
        except jwt.PyJWTError:
            return None
        return claims if claims.get("type") == kind and "user_id" in claims else None


@dataclass(slots=True)
class KeyServer(Standin):
    """A JWK Set at /keys: what a newer auth service may have."""

    keys: list[dict[str, Any]] = field(default_factory=list)

    def routes(self) -> list[web.RouteDef]:
        return [*Standin.routes(self), web.get("/keys", self.key_set)]

    async def key_set(self, _request: web.Request) -> web.Response:
        return web.json_response({"keys": self.keys})


# -- the order service


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
