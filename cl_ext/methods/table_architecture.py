"""The rows of this package's methods that change the network (masks, gates, growth); needs neither torch nor Avalanche.

Where a row needs the task label, it needs it at test time: its task-agnostic accuracy is undefined.
"""

from cl_ext.methods.method import Method

_BUILD = "cl_ext.methods.architecture"

ARCHITECTURE_ROWS: tuple[Method, ...] = ()
