"""What is not there is 404, what does not go there is 405, and the problem names where it happened."""

import httpx

from api.schemas.problems import ProblemDocument
from shared.ids import new_id
from tests.support.api_client import VISA, RunningApi, problem

pytest_plugins = ["tests.support.api_fixtures"]


async def test_what_is_not_there_is_404_and_what_does_not_go_is_405(
    running_api: RunningApi, user: httpx.AsyncClient
) -> None:
    for path in (
        "/",
        "/x",
        "/payments/",
        "/payments/a/b/c",
        "/payments/%2e%2e/x",
        "/payment_methods",
        "/../health",
        "//",
    ):
        problem(await user.get(path), 404, "not_found")
    anybody = running_api.client(base="")
    for path in ("/payments", "/api/v1", "/api/v2/payments", "/admin", f"/{VISA}"):
        answer = await anybody.get(path)
        problem(answer, 404, "not_found")
        assert VISA not in answer.text
    for method, path, allowed in (
        ("PUT", "/payments", "GET, HEAD, POST"),
        ("DELETE", f"/payments/{new_id()}", "GET, HEAD"),
        ("GET", f"/payments/{new_id()}/cancel", "POST"),
        ("TRACE", "/payments", "GET, HEAD, POST"),
        ("OPTIONS", "/payment-methods", "GET, HEAD, POST"),
        ("POST", f"/payment-methods/{new_id()}", "GET, HEAD, PATCH, DELETE"),
    ):
        answer = await user.request(method, path)
        problem(answer, 405, "method_not_allowed")
        assert answer.headers["allow"] == allowed
    assert (await user.head(f"/payments/{new_id()}/cancel")).status_code == 405


async def test_the_problem_names_where_it_happened_as_a_uri(user: httpx.AsyncClient) -> None:
    answer = await user.get("/payments/a%00b%20%C3%BC")
    assert problem(answer, 404, "not_found")["instance"] == "/api/v1/payments/a%00b%20%C3%BC"
    answer = await user.get(f"/payment-methods/{VISA}?card={VISA}")
    assert VISA not in answer.text
    ProblemDocument.model_validate(answer.json())
