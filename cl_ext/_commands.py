"""A group of commands that says a sentence at Ctrl-C, where Typer's own ends without a word."""

from typing import Any

from cl_ext._interrupt import interruptible

from typer.core import TyperGroup


class Commands(TyperGroup):
    """The commands of `cl-ext`, from the parsing of their options on."""

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        """See `TyperGroup`."""
        with interruptible("cl-ext"):
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: Any) -> Any:
        """See `TyperGroup`."""
        with interruptible("cl-ext"):
            return super().invoke(ctx)
