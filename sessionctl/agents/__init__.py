"""The coding agents that a session can name. Entry points of the group `sessionctl.agents` add to them.

Data only: nothing here may start an agent or look for one.
"""

NAMES: tuple[str, ...] = ("claude", "codex", "copilot", "gemini", "opencode", "pi", "qwen")
"""The built-in agents, sorted."""
