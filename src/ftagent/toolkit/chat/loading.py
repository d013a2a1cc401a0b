"""Models and adapters for conversations: the tuned model, and the untuned one in the same memory."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from ftagent.toolkit.chat.engine import Engine, Sampling
from ftagent.toolkit.chat.session import Session
from ftagent.toolkit.chat.template import ChatTemplate
from ftagent.toolkit.config import Device, Dtype
from ftagent.toolkit.errors import ToolkitError
from ftagent.toolkit.folders import CHECKPOINTS
from ftagent.toolkit.mapping import mapping_of
from ftagent.toolkit.models import ADAPTER_WEIGHTS, load_model


class Models:
    """A model in memory, perhaps with an adapter, from which sessions are made."""

    def __init__(
        self, model: str, adapter: Path | None, dtype: Dtype = "auto", device: Device = "auto",
        thinking: bool | None = None,
    ) -> None:  # fmt: skip
        """Raises ToolkitError: a model or an adapter that does not load or does not fit, no chat template."""
        self._model, tokenizer = load_model(model, dtype, device)
        self._tuned: Any = None
        if adapter is not None:
            # A training saves the tokenizer that it used, with its chat template.
            tokenizer = _tokenizer_of(adapter) or tokenizer
        self.template = ChatTemplate(tokenizer, thinking, mapping_of(adapter or Path(model)))
        if adapter is not None:
            self._tuned = _with_adapter(self._model, adapter)
            self._model = self._tuned.get_base_model()
        self._stops = self.template.stops(self._model)

    def session(self, sampling: Sampling, system: str = "", untuned: bool = False) -> Session:
        """A new conversation. Raises ToolkitError where `untuned` is asked for and the weights are tuned themselves."""
        if untuned and self._tuned is None:
            raise ToolkitError("there is no adapter to turn off, so the untuned model cannot answer beside")
        engine = Engine(self._model, self._stops, self._off) if untuned else Engine(self._model, self._stops)
        return Session(engine, self.template, sampling, system)

    def _off(self) -> AbstractContextManager[Any]:
        off: AbstractContextManager[Any] = self._tuned.disable_adapter()
        return off


def _tokenizer_of(folder: Path) -> Any:
    from transformers import AutoTokenizer

    places = [folder, folder.parent.parent] if folder.parent.name == CHECKPOINTS else [folder]
    place = next((place for place in places if (place / "tokenizer_config.json").is_file()), None)
    try:
        return None if place is None else AutoTokenizer.from_pretrained(place, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise ToolkitError(f"tokenizer of {place} cannot be loaded: {' '.join(str(error).split())[:300]}") from error


def _with_adapter(model: Any, folder: Path) -> Any:
    from peft import PeftModel
    from safetensors import SafetensorError

    if not (folder / ADAPTER_WEIGHTS).is_file():
        raise ToolkitError(f"adapter {str(folder)!r}: has no {ADAPTER_WEIGHTS}; other formats are not loaded")
    try:
        return PeftModel.from_pretrained(model, str(folder)).eval()
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError) as error:
        raise ToolkitError(f"adapter {str(folder)!r} does not fit: {' '.join(str(error).split())[:300]}") from error
