"""A small shop that pays with redirects: a cart, the page of the bank or of PayPal, and the result on the way back.

TOKEN=$(payments token --user shop --role service) python examples/shop/shop.py
"""

import html
import json
import os
import secrets
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.error import HTTPError
from urllib.parse import parse_qs, urlsplit
from urllib.request import Request, urlopen

API = os.environ.get("API", "http://127.0.0.1:8009/api/v1")
TOKEN = os.environ["TOKEN"]
PORT = int(os.environ.get("SHOP_PORT", "8080"))
SHOP = f"http://127.0.0.1:{PORT}"
METHODS = {
    "pm_test_paypal": "PayPal",
    "pm_test_3ds_required": "a card that wants 3-D Secure",
    "pm_test_visa": "a card",
}
# The order of each payment. A real shop keeps this in its database.
ORDERS: dict[str, str] = {}


def ask(method: str, path: str, body: dict[str, Any] | None = None, **headers: str) -> dict[str, Any]:
    """Return the answer of the payment service, which holds it until the payment has ended or needs the customer."""
    sent = {"Authorization": f"Bearer {TOKEN}", "Prefer": "wait=10", "Content-Type": "application/json", **headers}
    request = Request(f"{API}{path}", json.dumps(body).encode() if body else None, sent, method=method)
    with urlopen(request, timeout=30) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


def pay(method_id: str) -> str:
    """Create the payment of a new order, and return where to send the customer's browser."""
    order_id = secrets.token_hex(6)
    body = {
        "order_id": order_id,
        "payment_method_id": method_id,
        "amount": 1585,
        "currency": "USD",
        "description": "Two mugs",
        "return_url": f"{SHOP}/paid",
    }
    payment = ask("POST", "/payments", body, **{"Idempotency-Key": order_id})
    ORDERS[payment["id"]] = order_id
    action = payment["next_action"]
    return action["url"] if action else f"/paid?payment_id={payment['id']}"


def result(payment_id: str) -> str:
    """Return what the customer sees on return. The service is asked: anybody can write a query."""
    order_id = ORDERS[payment_id]
    payment = ask("GET", f"/payments/{payment_id}")
    match payment["status"]:
        case "COMPLETED":
            return f"<h1>Thank you</h1><p>Order {order_id} is paid.</p>"
        case "FAILED" | "CANCELLED":
            reason = html.escape(payment["failure_reason"] or "The payment was cancelled.")
            return f"<h1>Not paid</h1><p>{reason}</p><p><a href='/'>Choose another way to pay</a></p>"
        case _:
            return "<h1>Please wait</h1><p>Your payment is in progress. Load this page again.</p>"


class Pages(BaseHTTPRequestHandler):
    """The pages of the shop."""

    def do_GET(self) -> None:
        """Show the cart, or the result to a customer who returns."""
        parts = urlsplit(self.path)
        [payment_id] = parse_qs(parts.query).get("payment_id", [""])[:1]
        if parts.path == "/":
            buttons = "".join(
                f"<p><button name=method value={id_}>Pay with {name}</button>" for id_, name in METHODS.items()
            )
            self.show(
                200, f"<h1>Your cart</h1><p>Two mugs: 15.85 USD</p><form method=post action=/pay>{buttons}</form>"
            )
        elif parts.path == "/paid" and payment_id in ORDERS:
            self.show(200, result(payment_id))
        else:
            self.show(404, "<h1>There is no such page</h1>")

    def do_POST(self) -> None:
        """Create the payment, and send the customer on."""
        body = self.rfile.read(min(int(self.headers.get("Content-Length", 0)), 1000)).decode()
        [method_id] = parse_qs(body).get("method", [""])[:1]
        if self.path != "/pay" or method_id not in METHODS:
            self.show(404, "<h1>There is no such page</h1>")
            return
        try:
            target = pay(method_id)
        except HTTPError as error:
            self.show(502, f"<h1>Not paid</h1><p>The payment service answered {error.code}.</p>")
            return
        self.send_response(303)
        self.send_header("Location", target)
        self.end_headers()

    def show(self, status: int, content: str) -> None:
        """Send a page."""
        page = f"<!doctype html><html lang=en><meta charset=utf-8><title>Shop</title><main>{content}</main>".encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)


if __name__ == "__main__":
    print(f"The shop is open at {SHOP}", flush=True)
    ThreadingHTTPServer(("127.0.0.1", PORT), Pages).serve_forever()
