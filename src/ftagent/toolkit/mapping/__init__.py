"""Map functions: how a model family writes a conversation, and which of its tokens are learnt."""

from ftagent.toolkit.mapping.chat import Chat, RefusedMessages
from ftagent.toolkit.mapping.families import TemplateFunction
from ftagent.toolkit.mapping.functions import (
    adopt_template,
    encode_question,
    map_conversation,
    map_prompt,
    map_reply,
    mapping_of,
)
from ftagent.toolkit.mapping.mapper import Mapper
from ftagent.toolkit.mapping.registry import load_map_function, map_function_names
from ftagent.toolkit.mapping.types import THINKING, MapFunction, Mapping, Thinking

__all__ = [
    "THINKING",
    "Chat",
    "MapFunction",
    "Mapper",
    "Mapping",
    "RefusedMessages",
    "TemplateFunction",
    "Thinking",
    "adopt_template",
    "encode_question",
    "load_map_function",
    "map_conversation",
    "map_function_names",
    "map_prompt",
    "map_reply",
    "mapping_of",
]
