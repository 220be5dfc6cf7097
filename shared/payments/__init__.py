"""The verbs that change a payment: the only writers of `payments.status` and of its history.

Each takes an open transaction and its moment, and guards itself by status and attempt: when a row does not answer,
somebody else moved first, and that is no error.
"""
