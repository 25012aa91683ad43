"""Continual-learning methods as Avalanche plugins, one file a method."""

from cl_ext.plugins.rwalk import RWalkPlugin
from cl_ext.plugins.scp import SCPPlugin

__all__ = ["RWalkPlugin", "SCPPlugin"]
