"""Training data and questions: what they are, and how they are read from files."""

from ftagent.toolkit.data.jsonl import read_questions
from ftagent.toolkit.data.reading import read_conversations, read_preferences, read_problems
from ftagent.toolkit.data.types import ROLES, Conversation, Message, Preference, Problem, Question

__all__ = [
    "ROLES",
    "Conversation",
    "Message",
    "Preference",
    "Problem",
    "Question",
    "read_conversations",
    "read_preferences",
    "read_problems",
    "read_questions",
]
