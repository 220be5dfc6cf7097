"""Card numbers that are accepted, and the CVC that goes with a number."""

SUCCESS_CARDS = [
    ("4242424242424242", "visa"),
    ("4000056655665556", "visa"),
    ("5555555555554444", "mastercard"),
    ("5200828282828210", "mastercard"),
    ("378282246310005", "amex"),
    ("6011111111111117", "discover"),
    ("3056930009020004", "diners"),
    ("3566002020360505", "jcb"),
    ("6200000000000005", "unionpay"),
]


def cvc_for(brand: str) -> str:
    return "1234" if brand == "amex" else "123"
