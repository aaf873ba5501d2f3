"""What holds for every test: property tests have no deadline, since machines are shared."""

from hypothesis import settings

settings.register_profile("ds4-agent", deadline=None)
settings.load_profile("ds4-agent")
