"""Every backend keeps the same contract: `sessionctl.testing.BackendContract`."""

from __future__ import annotations

from sessionctl.backends import Backend, Context, bubblewrap
from sessionctl.testing import BackendContract, MemoryBackend


class TestBubblewrap(BackendContract):
    def make_backend(self, context: Context) -> Backend:
        return bubblewrap.Backend(context)


class TestMemory(BackendContract):
    inside = "."

    def make_backend(self, context: Context) -> Backend:
        return MemoryBackend(context)
