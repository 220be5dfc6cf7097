"""The truth: tables, the verbs that change them and what they rest on. Knows neither the API nor the worker."""
