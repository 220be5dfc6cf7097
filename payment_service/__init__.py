"""The one name of the service among installed packages, and where the command `payments` begins.

A wheel holds `api`, `worker`, `shared`, `cli` and `migrations` inside this package, so that it takes no other name from
the project it is installed beside. A checkout holds them beside it. Neither is a library: nothing imports from here.
"""
