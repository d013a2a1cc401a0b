"""ftagent: an agent that fine-tunes models. Nothing is imported here, so that every command starts fast."""
