"""How to load and try what a run made, as the code to copy."""

from __future__ import annotations

from ftagent.core.run_folder import RunFolder
from ftagent.core.state import State
from ftagent.report.markup import block, code

_ADAPTER = """\
from peft import AutoPeftModelForCausalLM
from transformers import AutoTokenizer

model = AutoPeftModelForCausalLM.from_pretrained({path!r})
tokenizer = AutoTokenizer.from_pretrained({path!r})
"""
_WEIGHTS = """\
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained({path!r})
tokenizer = AutoTokenizer.from_pretrained({path!r})
"""
_SENTENCES = """\
from sentence_transformers import SentenceTransformer

model = SentenceTransformer({path!r})
print(model.similarity(*model.encode(["A first sentence", "A second one"])))
"""
_CHAT = """\
messages = [{"role": "user", "content": "Your question"}]
prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
inputs = tokenizer(prompt, return_tensors="pt", add_special_tokens=False)
output = model.generate(**inputs, max_new_tokens=200)
print(tokenizer.decode(output[0, inputs["input_ids"].shape[1]:], skip_special_tokens=True))
"""


def how_to_use(folder: RunFolder, state: State, base_model: str = "") -> list[str]:
    """Markdown for the selected experiment, by what lies in best/; `path` in the code is that folder."""
    best = folder.best
    if not best.is_dir():
        return ["The weights were not kept: train them again with `--keep best`.", ""]
    names = sorted(path.name for path in best.iterdir() if path.is_file())
    path = str(best)
    if "adapter_config.json" in names:
        lines = [f"{code('best/')} holds an adapter of the base model. Load both:", ""]
        lines += block((_ADAPTER.format(path=path) + _CHAT).splitlines(), "python")
    elif "modules.json" in names:
        lines = [f"{code('best/')} holds a whole model of sentence-transformers:", ""]
        lines += block(_SENTENCES.format(path=path).splitlines(), "python")
    elif "config.json" in names:
        lines = [f"{code('best/')} holds whole weights:", ""]
        lines += block((_WEIGHTS.format(path=path) + _CHAT).splitlines(), "python")
    else:
        listed = ", ".join(code(name) for name in names) or "no weights"
        lines = [f"{code('best/')} holds {listed} and the experiment's files in {code('best/files/')}.", ""]
    if (best / "reproduce.sh").is_file():
        lines += ["Train it again from the record:", "", *block([f"sh {path}/reproduce.sh OUT"], "sh")]
    return lines
