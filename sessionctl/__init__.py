"""Declare, plan and apply isolated sessions of AI coding agents on a git repository."""

__version__ = "0.1.0"
