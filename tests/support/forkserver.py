"""Preloaded by the server that test processes are forked from: it ends with the run that started it, even if killed.

By itself it would wait for its children, who hold its pipe, as they wait for its end. No other module
imports this one: the import acts on the process.
"""

from tests.support.processes import die_with_parent

die_with_parent()
