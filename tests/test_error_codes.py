"""The codes of errors: a closed set, each with its status, and every error of ours has one."""

import inspect
import re

from api.problem_handlers import CODES, as_problem
from api.problems import KINDS, Code, Problem
from shared import errors

CODES_OF_THE_CONTRACT = {
    400: {"malformed_request"},
    401: {"invalid_token", "invalid_signature"},
    403: {"forbidden", "simulation_disabled"},
    404: {"not_found"},
    405: {"method_not_allowed"},
    408: {"request_timeout"},
    409: {
        "payment_in_progress", "order_already_paid", "payment_not_cancellable", "payment_not_capturable",
        "no_action_required", "payment_not_refundable", "refund_exceeds_balance", "refund_not_cancellable",
        "delivery_in_progress",
    },
    413: {"body_too_large"},
    415: {"unsupported_media_type"},
    422: {
        "validation_error", "payment_method_unusable", "payment_method_limit", "simulation_rule_limit",
        "idempotency_key_reused", "callback_url_refused",
    },
    429: {"rate_limited"},
    431: {"headers_too_large"},
    500: {"internal_error"},
    503: {"unavailable", "overloaded", "outcome_unknown"},
}  # fmt: skip
INTERNAL = {errors.ConfigurationError, errors.SchemaOutdated}  # they stop a start and reach no client


def test_the_codes_are_the_contracts_and_no_others() -> None:
    assert set(Code) == set().union(*CODES_OF_THE_CONTRACT.values())
    assert {code: kind.status for code, kind in KINDS.items()} == {
        code: status for status, codes in CODES_OF_THE_CONTRACT.items() for code in codes
    }
    for kind in KINDS.values():
        assert kind.title
        assert not kind.title.endswith(".")


def test_every_error_of_ours_has_a_code_or_reaches_no_client() -> None:
    def leaves(error: type[errors.PaymentsError]) -> set[type[errors.PaymentsError]]:
        below = set().union(*(leaves(child) for child in error.__subclasses__()))
        return below or {error}

    raised = {each for each in leaves(errors.PaymentsError) if each.__module__ == "shared.errors"}
    assert raised - INTERNAL <= set(CODES)
    assert set(CODES) - raised == {errors.DatabaseUnavailable}  # raised itself, and the root of WriteConflict
    assert not INTERNAL & set(CODES)


def test_the_tree_of_errors_is_drawn_as_it_is() -> None:
    drawn = set(re.findall(r"[─ ]([A-Z]\w+)", inspect.getdoc(errors) or ""))
    defined = {
        name for name, value in vars(errors).items() if isinstance(value, type) and value.__module__ == "shared.errors"
    }
    assert defined <= drawn | {"PaymentsError"}


def test_only_a_refusal_is_described_in_its_own_words() -> None:
    words = "This user already has 5 payment methods. Delete one before adding another."
    problem = as_problem(errors.PaymentMethodLimit(words))
    assert (problem.code, problem.detail) == (Code.PAYMENT_METHOD_LIMIT, words)
    for error in (errors.DatabaseUnavailable("08006 at 10.0.0.1"), errors.CommitUnknown("x"), errors.Overloaded("7")):
        assert as_problem(error).detail is None
    assert as_problem(errors.SchemaOutdated("at 1")).code == Code.INTERNAL_ERROR
    assert isinstance(as_problem(errors.WriteConflict("40P01")), Problem)
