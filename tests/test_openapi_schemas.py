"""The schemas of the OpenAPI document are such that generated clients have types for everything."""

from collections.abc import Iterator
from typing import Any

pytest_plugins = ["tests.support.openapi_fixtures"]

# The keywords of JSON Schema and of OpenAPI that the document has.
KEYWORDS = {
    "$ref",
    "additionalProperties",
    "anyOf",
    "const",
    "default",
    "description",
    "discriminator",
    "enum",
    "examples",
    "format",
    "items",
    "maxItems",
    "maxLength",
    "maxProperties",
    "maximum",
    "minItems",
    "minLength",
    "minimum",
    "oneOf",
    "pattern",
    "properties",
    "propertyNames",
    "required",
    "title",
    "type",
}
# The ids that locate a breach, of every kind of breach.
UNTYPED = ["AgainBody", "Breaches.shown"]
# Whole numbers that may outgrow 32 bits.
LARGE = {
    "Amounts.max",
    "Amounts.min",
    "Bounds.max",
    "Bounds.min",
    "Breaches.total",
    "CaptureRequest.amount",
    "ExplainedLedgerEntry.amount",
    "ExplainedOperation.amount",
    "ExplainedRefund.amount",
    "ExplainedTime.total_ms",
    "Fee.amount",
    "Figures.queue_depth",
    "Figures.refund_backlog",
    "Figures.webhook_backlog",
    "HistoryMetadata.amount",
    "Invariant.breaches",
    "MatchRequest.amount",
    "MatchRequest.order_id",
    "OrderId",
    "Payment.amount",
    "Payment.amount_authorized",
    "Payment.amount_captured",
    "Payment.amount_refundable",
    "Payment.amount_refunded",
    "PaymentRequest.amount",
    "ProblemDocument.refundable_amount",
    "Refund.amount",
    "RefundRequest.amount",
    "RuleMatch.amount",
    "RuleTestRequest.amount",
    "TimePart.ms",
    "UserId",
    "VerifyReport.breaches_total",
    "VerifyReport.idempotency_keys_checked",
    "VerifyReport.payments_checked",
    "VerifyRun.checked",
    "VerifyRun.total",
    "Worker.settled",
}


def schemas(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema of the document with the name of its member, model or parameter, inner ones included."""
    for name, schema in document["components"]["schemas"].items():
        yield from inside(name, schema)
    for parameter in parameters(document):
        yield from inside(parameter["name"], parameter["schema"])
    for operations in document["paths"].values():
        for operation in operations.values():
            for content in contents(operation):
                yield from inside(operation["operationId"], content["schema"])


def inside(name: str, schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    yield name, schema
    for member, inner in schema.get("properties", {}).items():
        yield from inside(f"{name}.{member}", inner)
    for keyword in ("items", "additionalProperties", "propertyNames"):
        if isinstance(schema.get(keyword), dict):
            yield from inside(name, schema[keyword])
    for keyword in ("anyOf", "oneOf"):
        for inner in schema.get(keyword, ()):
            yield from inside(name, inner)


def parameters(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        parameter
        for operations in document["paths"].values()
        for operation in operations.values()
        for parameter in operation.get("parameters", ())
    ]


def contents(operation: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for described in (operation.get("requestBody", {}), *operation["responses"].values()):
        yield from described.get("content", {}).values()


def test_generators_of_clients_can_read_the_document(document: dict[str, Any]) -> None:
    """What openapi-generator stumbles over: constants, defaults beside references, names that clash."""
    schemas = document["components"]["schemas"]
    for schema in schemas.values():
        for member in schema.get("properties", {}).values():
            assert isinstance(member.get("const", ""), str) or member["const"] is True, member
            assert not {"$ref", "default"} <= set(member), member
    assert schemas["Payment"]["properties"]["livemode"]["type"] == "boolean"
    assert not {f"New{name}" for name in schemas} & set(schemas)


def test_no_schema_has_a_keyword_that_json_schema_does_not_know(document: dict[str, Any]) -> None:
    for name, schema in schemas(document):
        assert set(schema) <= KEYWORDS, name


def test_everything_has_a_type(document: dict[str, Any]) -> None:
    """Without one, clients get `Any` or `unknown`."""
    found = list(schemas(document))
    typeless = [name for name, schema in found if not {"type", "$ref", "anyOf", "oneOf", "enum"} & set(schema)]
    assert typeless == []
    untyped = [name for name, schema in found if schema.get("additionalProperties") is True]
    assert untyped == UNTYPED


def test_whole_numbers_that_may_outgrow_32_bits_say_so(document: dict[str, Any]) -> None:
    """Clients in Java and Go read the others into 32 bits."""
    assert {name for name, schema in schemas(document) if schema.get("format") == "int64"} == LARGE
    for name, schema in schemas(document):
        assert schema.get("maximum", 0) < 2**31 or schema["format"] == "int64", name


def test_a_parameter_can_be_left_out_but_not_be_null(document: dict[str, Any]) -> None:
    for parameter in parameters(document):
        assert {"type": "null"} not in parameter["schema"].get("anyOf", []), parameter
        # openapi-generator does not follow a reference that has neighbours.
        assert "$ref" not in parameter["schema"] or len(parameter["schema"]) == 1, parameter
    described = [(parameter["name"], parameter["schema"]) for parameter in parameters(document)]
    assert ("status", {"$ref": "#/components/schemas/PaymentStatus"}) in described
    for schema in (schema for name, schema in described if name == "limit"):
        assert (schema["minimum"], schema["maximum"]) == (1, 100)
