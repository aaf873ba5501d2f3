"""What holds for every test: property tests have no deadline, since machines are shared, and what a
test starts can be interrupted. A shell that starts the suite in the background has it ignore
SIGINT, and what is ignored stays so in every process behind it."""

import signal

from hypothesis import settings

settings.register_profile("ds4-agent", deadline=None)
settings.load_profile("ds4-agent")

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
