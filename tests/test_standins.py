"""The stand-ins do what was observed of the real services, bugs included: they must not get nicer."""

from collections.abc import AsyncIterator
from datetime import timedelta

import httpx
import jwt
import pytest

from tests.support.auth_standins import AuthService
from tests.support.order_standins import OrderService
from tests.support.standins import running

SECRET = "secret-of-the-tests-with-more-than-32-bytes"
ADMIN = {"user_id": 0, "email": "payments@example.com", "role": "order_admin", "type": "access", "exp": 9_999_999_999}


@pytest.fixture
async def auth() -> AsyncIterator[AuthService]:
    async with running(AuthService(secret=SECRET)) as service:
        yield service


@pytest.fixture
async def orders() -> AsyncIterator[OrderService]:
    async with running(OrderService(secret=SECRET)) as service:
        yield service


def signed(**claims: object) -> dict[str, str]:
    kept = {name: value for name, value in {**ADMIN, **claims}.items() if value is not None}
    return {"Authorization": f"Bearer {jwt.encode(kept, SECRET, 'HS256')}"}


def client(service: AuthService | OrderService) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=service.url, trust_env=False)


async def test_its_tokens_have_an_integer_user_and_no_subject_role_issuer_or_audience(auth: AuthService) -> None:
    async with client(auth) as http:
        given = {"email": "shopper@example.com", "password": "correct horse"}
        said = (await http.post("/auth/login", json=given)).json()
        wrong = await http.post("/auth/login", json={**given, "password": "x"})
    assert (said["token_type"], said["expires_in"], wrong.status_code) == ("bearer", 900, 401)
    for name, kind in (("access_token", "access"), ("refresh_token", "refresh")):
        claims = jwt.decode(said[name], SECRET, algorithms=["HS256"])  # both with the same key
        assert claims.keys() == {"user_id", "type", "exp", "iat", "jti"}
        assert (claims["user_id"], claims["type"]) == (1, kind)


async def test_it_verifies_access_tokens_of_its_users_only(auth: AuthService) -> None:
    async with client(auth) as http:

        async def verify(token: str) -> httpx.Response:
            return await http.get("/auth/verify", headers={"Authorization": f"Bearer {token}"})

        good = await verify(auth.token(1))
        assert good.json() == {"valid": True, "user_id": 1, "email": "shopper@example.com"}
        expired = auth.token(1, lives=timedelta(seconds=-1))
        for token in (auth.token(1, "refresh"), expired, auth.token(99), "garbage"):
            answer = await verify(token)
            assert (answer.status_code, answer.json()) == (401, {"detail": "Invalid or expired token"})


async def test_logging_out_leaves_the_access_token_as_it_is(auth: AuthService) -> None:
    refresh, access = auth.token(1, "refresh"), auth.token(1)
    async with client(auth) as http:
        await http.post("/auth/logout", json={"refresh_token": refresh})
        answer = await http.get("/auth/verify", headers={"Authorization": f"Bearer {access}"})
    assert answer.status_code == 200
    assert len(auth.revoked) == 1


async def test_every_error_of_the_order_service_is_a_500_without_a_word(orders: OrderService) -> None:
    mine, confirmed = orders.place(), orders.place(status="CONFIRMED")
    admin = signed()
    async with client(orders) as http:
        errors = [
            await http.get("/orders/999", headers=admin),
            await http.get("/orders/abc", headers=admin),
            await http.get(f"/orders/{mine.id}"),
            await http.get(f"/orders/{mine.id}", headers=signed(role=None, user_id=2)),
            await http.get(f"/orders/{mine.id}", headers=signed(email=None)),  # then it does not see the role
            await http.get(f"/orders/{mine.id}", headers=signed(type="refresh")),
            await http.put(f"/orders/{confirmed.id}/status", json={"status": "CONFIRMED"}, headers=admin),
            await http.put(f"/orders/{mine.id}/status", json={"status": "PAID"}, headers=admin),
            await http.put(f"/orders/{mine.id}/status", json={"status": "SHIPPED"}, headers=admin),
            await http.put(f"/orders/{mine.id}/status", json={"status": "CONFIRMED"}, headers=signed(role="service")),
            await http.put(
                f"/orders/{mine.id}/status", json={"status": "CONFIRMED", "notes": "x" * 501}, headers=admin
            ),
            await http.put(f"/orders/{mine.id}/payment-status", json={"status": "CONFIRMED"}, headers=admin),
        ]
    assert {(answer.status_code, answer.text) for answer in errors} == {(500, "Internal Server Error")}
    assert (mine.moves, confirmed.moves) == ([], [])


async def test_an_order_is_shown_to_its_owner_in_major_units_as_a_number(orders: OrderService) -> None:
    order = orders.place(total="15.85")
    async with client(orders) as http:
        headers = {**signed(role=None, email=None, user_id=1), "x-correlation-id": "shop-1"}
        answer = await http.get(f"/orders/{order.id}", headers=headers)
    assert '"total": 15.85,' in answer.text
    assert answer.headers["x-correlation-id"] == "shop-1"
    said = answer.json()
    assert (said["id"], said["user_id"], said["status"], said["currency"]) == (order.id, 1, "PENDING", "USD")


async def test_an_order_moves_along_its_statuses_and_never_back(orders: OrderService) -> None:
    order = orders.place()
    async with client(orders) as http:
        for status in ("CONFIRMED", "PROCESSING", "SHIPPED", "DELIVERED", "CANCELLED", "PENDING"):
            await http.put(f"/orders/{order.id}/status", json={"status": status, "notes": ""}, headers=signed())
    assert order.moves == ["CONFIRMED", "PROCESSING", "SHIPPED", "DELIVERED"]


async def test_a_lost_answer_is_of_an_update_that_was_made(orders: OrderService) -> None:
    order = orders.place()
    orders.updates_to_lose = 1
    async with client(orders) as http:
        with pytest.raises(httpx.TransportError):
            await http.put(f"/orders/{order.id}/status", json={"status": "CONFIRMED"}, headers=signed())
        again = await http.put(f"/orders/{order.id}/status", json={"status": "CONFIRMED"}, headers=signed())
    assert again.status_code == 500
    assert order.moves == ["CONFIRMED"]


async def test_their_health_and_their_troubles(orders: OrderService) -> None:
    async with client(orders) as http:
        assert (await http.get("/health")).json()["status"] == "healthy"
        orders.is_sick = True
        assert (await http.get("/health")).status_code == 503
        orders.failing = 502
        assert (await http.get("/orders/1")).status_code == 502
    await orders.down()
    async with client(orders) as http:
        with pytest.raises(httpx.ConnectError):
            await http.get("/health")
