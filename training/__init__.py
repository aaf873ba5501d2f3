"""Training of the bundled nano model (not installed): run as `python -m training.NAME`.

Importing it, before torch, makes waiting OpenMP threads sleep: a thread that spins for the other
one steals the core it waits for when anything else runs on the machine.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("GOMP_SPINCOUNT", "2000")
