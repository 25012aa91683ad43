"""Training that has left the finite numbers: one error for plugins and for the recorder of a study."""


class DivergedError(RuntimeError):
    """The loss, the logits or a penalty are no longer finite; the message says where, and what bound was passed."""
