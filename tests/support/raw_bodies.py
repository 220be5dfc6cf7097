"""Bodies as a client wrote them, and the largest number that one may name."""

import httpx

INT64_MAX = 2**63 - 1


async def raw(client: httpx.AsyncClient, path: str, body: str) -> httpx.Response:
    return await client.post(path, content=body, headers={"Content-Type": "application/json"})
