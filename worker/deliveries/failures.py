"""Why an exchange with a receiver failed, in words for the delivery log.

No text names an address, a port or a host: payers read the errors of endpoints whose URL they may not see.
"""

import errno
import os
import ssl

from aiohttp import (
    ClientConnectorCertificateError,
    ClientConnectorDNSError,
    ClientConnectorError,
    ClientError,
    ClientResponseError,
    ClientSSLError,
)

from shared.upstream.connections import HEAD_BYTES_MAX, HEAD_LINES_MAX, Exchange, HeaderTooLong, NotHttp
from worker.deliveries.ssrf_guard import AddressRefused

# Errors of OpenSSL whose texts name the host or the address that the certificate does not fit.
_OTHER_HOST = frozenset({62, 63, 64})  # X509_V_ERR_HOSTNAME_MISMATCH, _EMAIL_MISMATCH, _IP_ADDRESS_MISMATCH
_CLOSED = frozenset({errno.ECONNRESET, errno.EPIPE})
_PARSER_WORDS_CHARS_MAX = 100


def describe_timeout(exchange: Exchange) -> str:
    """Return why an exchange that took too long failed, with the status that was seen."""
    if exchange.status is not None:
        return f"no answer in time: the receiver answered {exchange.status}, and its header did not end"
    if exchange.has_answer:
        return "no answer in time: the receiver sent a part of one"
    return "no answer in time"


def describe_connection_error(error: ClientConnectorError) -> str:
    """Return why a connection could not be opened."""
    if isinstance(error.os_error, AddressRefused):
        return str(error.os_error)
    if isinstance(error, ClientConnectorDNSError):
        return "the host's name does not resolve"
    if isinstance(error, ClientSSLError):
        return f"TLS failed: {_describe_tls(error)}"
    return f"could not connect: {_describe_os_error(error.os_error)}"


def describe_broken(error: OSError | ClientError, exchange: Exchange) -> str:
    """Return why a connection that was open broke before the answer's header was whole."""
    how = f"the connection broke ({_how_it_broke(error)})"
    if exchange.status is not None:
        return f"{how}: the receiver answered {exchange.status}, and its header did not end"
    return f"{how}: the receiver sent a part of an answer" if exchange.has_answer else how


def describe_invalid(error: ClientError | ValueError, exchange: Exchange) -> str:
    """Return what is wrong with an answer that is not valid, in the parser's words, with the status that was seen."""
    seen = "" if exchange.status is None else f"the receiver answered {exchange.status}, "
    if isinstance(error, HeaderTooLong):
        return f"{seen}header too long (more than {HEAD_BYTES_MAX:,} bytes or {HEAD_LINES_MAX:,} lines)"
    if isinstance(error, NotHttp):
        words = "it does not begin with HTTP/"
    else:
        words = _parser_words(error.message) if isinstance(error, ClientResponseError) else type(error).__name__
    return f"{seen and seen + 'but '}the answer is not valid HTTP: {words}"


def _parser_words(message: str) -> str:
    """Return what the parser says without the bytes that it quotes, which are the receiver's.

    Its messages are lines such as `Bad status line:`, `Invalid header token:`, the quoted bytes and a pointer.
    """
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    words = [line.removesuffix(":") for line in lines if line.endswith(":")] or lines[:1]
    text = ": ".join(_uncapitalized(word) for word in words).split(": b'")[0].split(': b"')[0]
    return text[:_PARSER_WORDS_CHARS_MAX] or "it cannot be read"


def _uncapitalized(words: str) -> str:
    """Return the words as they stand within a sentence. Names of headers keep their capitals."""
    return words if "-" in words.split(" ", 1)[0] else words[:1].lower() + words[1:]


def _describe_tls(error: ClientSSLError) -> str:
    cause = error.certificate_error if isinstance(error, ClientConnectorCertificateError) else error.os_error
    if isinstance(cause, ssl.SSLCertVerificationError):
        if cause.verify_code in _OTHER_HOST:
            return "the certificate is of another host"
        return str(cause.verify_message or "the certificate cannot be verified")
    reason = getattr(cause, "reason", None)
    if isinstance(reason, str):
        return reason.lower().replace("_", " ")
    return _describe_os_error(cause) if isinstance(cause, OSError) else "the handshake failed"


def _describe_os_error(error: OSError) -> str:
    """Return the system's words for the number of an error. Its own text may name the address."""
    return os.strerror(error.errno).lower() if error.errno else "no connection was opened"


def _how_it_broke(error: OSError | ClientError) -> str:
    number = error.errno if isinstance(error, OSError) else None
    if number in _CLOSED:
        return "reset by the receiver"
    return os.strerror(number).lower() if number else "closed by the receiver"
