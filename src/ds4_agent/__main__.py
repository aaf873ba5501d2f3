"""`python -m ds4_agent` is `ds4-agent`."""

import sys

from ds4_agent.agent.cli import main

sys.exit(main())
