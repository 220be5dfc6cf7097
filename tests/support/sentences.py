"""The voice of texts that clients get: whole sentences, and no word of a library or of Python."""

import re

MOMENT = r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z"
# A sentence begins with a capital letter or with a quoted field.
SENTENCES = re.compile(r'(?:[A-Z]|".+?" ).*[^.]\.', re.DOTALL)
# Words of pydantic and of Python, and the reason for what nobody expected.
FOREIGN = re.compile(
    r"(?i:input should|input tag|value error|field required|extra inputs|unable to parse|pydantic|discriminator)|"
    r"\b(?:str|int|float|bool|dict|tuple|NoneType|None|True|False|datetime|Decimal|Literal|UUID)\b|"
    r'^"[^"]+" is not valid\.$'
)


def check_sentences(text: str) -> None:
    """Check that `text` is one or more whole sentences in our own words."""
    assert SENTENCES.fullmatch(text), text
    assert not FOREIGN.search(text), text
