"""The moments that requests name: those that no clock of the service knows are refused, in words that help."""

import httpx
import pytest

from tests.support.api_client import problem

pytest_plugins = ["tests.support.api_fixtures"]
# Nothing here depends on the database.
pytestmark = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)

LEAP_SECOND = "has a leap second, which no clock here knows: write the second after it"
NO_MOMENT = "must be a moment that exists, such as 2026-11-22T12:00:00Z"
REFUSED = {
    "2016-12-31T23:59:60Z": LEAP_SECOND,  # it was one
    "2026-06-30T23:59:60Z": LEAP_SECOND,  # nobody has announced it
    "2016-12-31T23:59:60.999z": LEAP_SECOND,
    "2017-01-01T00:59:60+01:00": LEAP_SECOND,
    "2016-12-31 23:59:60Z": LEAP_SECOND,
    "2016-12-31T23:59:61Z": NO_MOMENT,
    "2016-12-31T24:00:00Z": NO_MOMENT,
    "2016-02-30T00:00:00Z": NO_MOMENT,
}


@pytest.mark.parametrize("name", ["created_after", "created_before"])
@pytest.mark.parametrize(("moment", "reason"), REFUSED.items())
async def test_a_moment_in_a_query_that_no_clock_knows_is_refused_in_words(
    user: httpx.AsyncClient, name: str, moment: str, reason: str
) -> None:
    answer = await user.get("/payments", params={name: moment})
    expected = [{"pointer": f"/query/{name}", "detail": f'"{name}" {reason}.'}]
    assert problem(answer, 422, "validation_error")["errors"] == expected


@pytest.mark.parametrize("moment", ["2016-12-31T23:59:59.999Z", "2017-01-01T00:00:00Z", "2017-01-01T01:00:00+01:00"])
async def test_the_seconds_around_a_leap_second_are_moments(user: httpx.AsyncClient, moment: str) -> None:
    for name in ("created_after", "created_before"):
        assert (await user.get("/payments", params={name: moment})).status_code == 200


@pytest.mark.parametrize(("moment", "reason"), REFUSED.items())
async def test_a_moment_in_a_body_is_refused_in_the_same_words(
    admin: httpx.AsyncClient, moment: str, reason: str
) -> None:
    answer = await admin.post("/api-keys", json={"name": "shop", "role": "service", "expires_at": moment})
    expected = [{"pointer": "/expires_at", "detail": f'"expires_at" {reason}.'}]
    assert problem(answer, 422, "validation_error")["errors"] == expected
