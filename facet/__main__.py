"""`python -m facet`: the same as the program `facet`."""

import signal
import sys

from facet.environment import command_environment, enter

if __name__ == "__main__":
    # Until a command has begun there is nothing to end in order, nor to say.
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:  # as shells do in the background
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    enter(command_environment(), ["-m", "facet", *sys.argv[1:]])
    from facet.cli import main

    main()
