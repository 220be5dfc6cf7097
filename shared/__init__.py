"""What the API and the worker share: the tables, the operations that change them, and the parts that these need.

It imports neither the API nor the worker.
"""
