"""The outermost layer of HTTP: rate limits, admission control, correlation ids, access log."""
