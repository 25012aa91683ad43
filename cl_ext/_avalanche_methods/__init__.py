"""What we mend in Avalanche 0.6's methods, from outside: subclasses of its plugins that override as little as they can.

Each class says which fault it mends; `tests/methods/test_mends.py` shows the fault with the stock plugin and its
absence with ours. What can't be mended from outside stays and stands in the row's `faults`.
"""
