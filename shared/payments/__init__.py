"""The operations that change a payment: the only writers of `payments.status` and of its history.

Each takes an open transaction and its moment, and is guarded by status and lease version. A row that does not match
has been moved by another process first, which is no error.
"""
