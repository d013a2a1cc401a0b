"""What an agent is told about language models for its data script."""

from __future__ import annotations


def broker_help() -> str:
    """A paragraph for prompts, of stages with `Stage.llm`."""
    return """prepare_data.py may ask language models, for example to write or judge solutions; the network is cut off.
- `from ftagent.toolkit.llm import ask, ask_many, ModelError`: `ask(prompt, model="strong", **parameters) -> str`, and
  `ask_many(prompts, model="strong", workers=8, **parameters) -> list[str]`, replies in the order of the prompts.
  `model` is "strong" or "weak" (cheaper); a prompt is a text or a list of {"role", "content"}; parameters are those
  of OpenAI's chat completions (temperature, max_tokens, seed, stop, ...). OpenAI's own client works too, unchanged.
- Every call costs money and time from the run's budget. Call only for rows that are written, so that `--limit N` makes
  about N calls; prefer "weak" where it is good enough, and bound max_tokens.
- The same request asked again, in a later stage or loop too, gets the reply that is on record, free of charge; asked
  twice in one execution it gets a second reply. Keep prompts the same where nothing about them should change.
- A reply may be empty, wrong or in another form than asked for: check each, and leave its row out if it does not fit.
- Failures raise ModelError. Do not retry them: that was done. Catch it only where one row can be left out (its `code`
  is "no_usable_reply"); let the others end the script.
"""
