"""Viewers of the dashboard's overview, in their own process: each holds a stream and reads what comes."""

import asyncio
import os
import re
import sys
from collections import Counter
from urllib.parse import urlsplit

import httpx

# The viewers stand for other machines: they take the processors that the service leaves.
NICENESS = 19
FORM = re.compile(r'name="form" value="([^"]+)"')


def sign_in(url: str, token: str) -> str:
    """Sign in with a token and return the cookies of the session, as a request sends them."""
    with httpx.Client(base_url=f"{url}/dashboard", trust_env=False, timeout=10) as browser:
        found = FORM.search(browser.get("/sign-in").text)
        assert found is not None  # noqa: S101 - it is our own page
        answer = browser.post("/sign-in", data={"form": found[1], "next": "", "token": token})
        assert answer.status_code == httpx.codes.SEE_OTHER, answer.text  # noqa: S101
        return "; ".join(f"{name}={value}" for name, value in browser.cookies.items())


async def watch(url: str, cookies: str, count: int) -> None:
    """Hold `count` streams until killed. Print the number of each viewer who has had figures."""
    events: Counter[int] = Counter()

    async def view(number: int) -> None:
        target = urlsplit(url)
        reader, writer = await asyncio.open_connection(target.hostname, target.port)
        request = f"GET /dashboard/stream HTTP/1.1\r\nHost: {target.netloc}\r\nCookie: {cookies}\r\n\r\n"
        writer.write(request.encode())
        while line := await reader.readline():
            if line.startswith(b"event: figures"):
                events[number] += 1
                if events[number] == 1:
                    print(number, flush=True)

    async with asyncio.TaskGroup() as viewers:
        for number in range(count):
            viewers.create_task(view(number))


if __name__ == "__main__":
    os.nice(NICENESS)
    asyncio.run(watch(sys.argv[1], sign_in(sys.argv[1], sys.argv[2]), int(sys.argv[3])))
