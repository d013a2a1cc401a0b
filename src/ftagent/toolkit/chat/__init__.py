"""Conversations with a model: answers that stream, turns that reuse what was computed, scripts that are played.

Nothing here knows a terminal.
"""

from ftagent.toolkit.chat.script import Played, play
from ftagent.toolkit.chat.session import Reply, Sampling, Session
from ftagent.toolkit.chat.streaming import Piece

__all__ = ["Piece", "Played", "Reply", "Sampling", "Session", "play"]
