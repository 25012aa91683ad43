"""What the fork server imports first: Ctrl-C ends it without a traceback from here on, until it ignores it.

It is started deaf to Ctrl-C; one that came before this line ends it now.
"""

import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)
signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
