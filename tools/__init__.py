"""What the model may do: files, search, shell, git, and tools of the user's own.

`ds4_agent.tools.registry` is the way in. Nothing here knows the engine, the sessions or the agent.
"""
