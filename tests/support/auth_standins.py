"""The platform's auth service as it really behaves, bugs included, and a server of keys.

Built from what was observed of it, and never from what our own code expects.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import jwt
from aiohttp import web

from shared.ids import new_id
from tests.support.standins import Standin, bearer_of


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
