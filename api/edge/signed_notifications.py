"""The notifications of gateways: whose signature each has, before it is counted, refused or read.

The answer to all that are not signed rightly is the same: whoever has no secret learns nothing. No database is asked.
"""

from collections.abc import Callable, Iterable
from time import time

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.edge.access_log import REFUSED
from api.edge.admission import Admission
from api.paths import NOTIFICATIONS, PREFIX, shown_path
from api.problems import Code, Problem, render
from shared import metrics
from shared.keyring import Keyring
from shared.simulation.gateways import GatewayName
from shared.webhooks.signatures import (
    WEBHOOK_ID,
    WEBHOOK_SIGNATURE,
    WEBHOOK_TIMESTAMP,
    SignatureHeaders,
    verify,
)

PATH = PREFIX + NOTIFICATIONS
# Signed notifications of one API process that may be in progress: beyond it the answer is 503, and the service asks the
# gateway later by itself.
IN_PROGRESS_MAX = 2000
# As many as one worker sends at once start as they arrive. Of more, one starts in each iteration of the event loop, so
# that the intents of payers do not wait behind all of them.
UNTHROTTLED_MAX, STARTS_PER_TICK = 20, 1
# The member of the ASGI scope with the gateway that signed the request.
_SIGNER = "payments.signer"


def signer_of(scope: Scope) -> GatewayName | None:
    """Return the gateway whose signature a request has; None if it is no notification, or not signed rightly."""
    signer: GatewayName | None = scope.get(_SIGNER)
    return signer


class SignedNotificationMiddleware:
    """Finds out which gateway signed a notification: the one in the path or, if the path names none, any.

    It lets signed ones through a few at a time, and refuses them with 503 if too many are in progress.
    `clock` is real time in Unix seconds.
    """

    def __init__(self, app: ASGIApp, *, keyring: Keyring, clock: Callable[[], float] = time) -> None:
        self._app = app
        self._secrets = {gateway: keyring.notification_secret(gateway) for gateway in GatewayName}
        self._clock = clock
        self._admission = Admission(
            IN_PROGRESS_MAX,
            frozenset({PATH, *(f"{PATH}/{gateway}" for gateway in GatewayName)}),
            unthrottled_max=UNTHROTTLED_MAX,
            starts_per_tick=STARTS_PER_TICK,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request (ASGI)."""
        if scope["type"] != "http" or not scope["path"].startswith(PATH) or scope.get(REFUSED):
            await self._app(scope, receive, send)
            return
        headers = _signature_headers(Headers(scope=scope))
        try:
            # The protocol has bounded the body, and all of it has arrived.
            body = await Request(scope, receive).body()
        except ClientDisconnect:
            # Nobody reads the answer any more.
            body = b""
        scope[_SIGNER] = self._signer(scope["path"], headers, body)
        is_read = False

        async def receive_again() -> Message:
            nonlocal is_read
            if is_read:
                return await receive()
            is_read = True
            return {"type": "http.request", "body": body, "more_body": False}

        if scope[_SIGNER] is None:
            await self._app(scope, receive_again, send)
            return
        if not self._admission.enter(scope):
            metrics.shed.inc()
            answer = render(Problem(Code.OVERLOADED), path=shown_path(scope), correlation_id=scope["correlation_id"])
            await answer(scope, receive, send)
            return
        try:
            await self._admission.wait_for_start(scope)
            await self._app(scope, receive_again, send)
        finally:
            self._admission.leave(scope)

    def _signer(self, path: str, headers: SignatureHeaders, body: bytes) -> GatewayName | None:
        now_s = self._clock()
        for gateway in _gateways(path):
            if verify(self._secrets[gateway], headers, body, now_s=now_s):
                return gateway
        return None


def _gateways(path: str) -> Iterable[GatewayName]:
    """Return the gateways that may have signed what comes to a path."""
    if path == PATH:
        return GatewayName
    named = path.removeprefix(f"{PATH}/")
    return [gateway for gateway in GatewayName if gateway == named]


def _signature_headers(headers: Headers) -> SignatureHeaders:
    def single(name: str) -> str:
        # Two lines are two messages in one: a proxy might have verified the other one.
        found = headers.getlist(name)
        return found[0] if len(found) == 1 else ""

    return SignatureHeaders(single(WEBHOOK_ID), single(WEBHOOK_TIMESTAMP), single(WEBHOOK_SIGNATURE))
