"""The worked sessions of the handbook: played by the real tools, never typed by hand.

In: a TOML file a session (its files, the request, what the agent thinks and calls). Out: the
Markdown parts of the handbook, with the results that running the calls gives. The model's prompt
holds the Markdown only; this package runs when somebody asks for it.
"""
