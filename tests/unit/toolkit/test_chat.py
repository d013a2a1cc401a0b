import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ftagent.toolkit.chat import Sampling, Session, play
from ftagent.toolkit.chat.conversations import as_document, read_scripts, save_conversation
from ftagent.toolkit.chat.loading import Models
from ftagent.toolkit.config import PredictConfig, TrainConfig, validate_config
from ftagent.toolkit.data import Question
from ftagent.toolkit.errors import ToolkitError
from ftagent.toolkit.generate import Draft, generate
from ftagent.toolkit.mapping import encode_question
from ftagent.toolkit.train import train

from .rows import conversations, write
from .test_chat_streaming import real_template

pytestmark = [
    pytest.mark.model,
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning"),
]

QUESTIONS = ("Name three colours.", "What is 7 + 5?", "Tell me a joke about a cat 🐈.")


@pytest.fixture(scope="module")
def models(tiny: Path) -> Models:
    return Models(str(tiny), None)


@pytest.fixture(scope="module")
def adapter(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    values = {"model_path": str(tiny), "dataset_path": str(conversations(folder / "data.jsonl")), "rank": 4}
    values |= {"save_model_path": str(folder / "out"), "epochs": 8, "batch_size": 4, "learning_rate": 1e-2}
    train(make(values), lambda line: None)
    return folder / "out"


def make(values: dict[str, Any]) -> TrainConfig:
    return validate_config(values, TrainConfig, "train.yaml")


def said(session: Session, text: str) -> str:
    pieces = list(session.ask(text))
    assert session.reply is not None
    assert "".join(piece.text for piece in pieces) == session.reply.thinking + session.reply.content
    return session.reply.content


def said_by(session: Session, text: str) -> tuple[str, str]:
    """(thinking, content)."""
    list(session.ask(text))
    assert session.reply is not None
    return session.reply.thinking, session.reply.content


def batch_tokens(models: Models, prompts: list[list[int]], most: int) -> list[list[int]]:
    """What batched generation gives."""
    drafts = [Draft(str(number), 0, prompt) for number, prompt in enumerate(prompts)]
    config = validate_config(
        {"model": "m", "questions": "q", "output": "o", "max_new_tokens": most}, PredictConfig, "p"
    )
    generate(models._model, drafts, models._stops, config, lambda ended: None)
    return [draft.new for draft in drafts]


def streamed_tokens(session: Session, prompt: list[int], sampling: Sampling) -> list[int]:
    engine = session._engine
    return list(engine.tokens(prompt, sampling.max_new_tokens, sampling, None, lambda: False))


def test_streamed_tokens_are_those_of_batched_generation(smollm2: Path) -> None:
    models = Models(str(smollm2), None)
    sampling = Sampling(max_new_tokens=24)
    session = models.session(sampling)
    tokenizer = models.template.tokenizer
    asked = [Question(str(n), ({"role": "user", "content": text},), n) for n, text in enumerate(QUESTIONS)]
    prompts = [encode_question(tokenizer, question, "q") for question in asked]
    expected = batch_tokens(models, prompts, 24)
    # One engine for all: what it kept of the prompt before must not show.
    assert [streamed_tokens(session, prompt, sampling) for prompt in prompts] == expected
    assert said(session, QUESTIONS[0]) == tokenizer.decode(expected[0], skip_special_tokens=True)
    # The second turn, on keys and values of the first, against the same prompt computed at once.
    answer = said(session, "Why?")
    prompt, _ = models.template.prompt(session.messages[:-1], "q")
    assert session.reply is not None
    assert session.reply.reused_tokens > len(prompts[0])
    assert answer == tokenizer.decode(batch_tokens(models, [prompt], 24)[0], skip_special_tokens=True)


def test_a_later_turn_computes_only_what_is_new(models: Models) -> None:
    counted: list[int] = []
    handle = models._model.get_input_embeddings().register_forward_hook(
        lambda module, inputs, output: counted.append(inputs[0].shape[1])
    )
    try:
        session = models.session(Sampling(max_new_tokens=6))
        said(session, "one " * 200)
        assert session.reply is not None
        first = session.reply
        assert (sum(counted), first.reused_tokens) == (first.prompt_tokens + first.new_tokens, 0)
        counted.clear()
        said(session, "two")
        second = session.reply
        assert second.reused_tokens >= first.prompt_tokens
        assert sum(counted) == second.prompt_tokens - second.reused_tokens + second.new_tokens
        assert sum(counted) < 40 < first.prompt_tokens
    finally:
        handle.remove()


def test_turns_are_the_same_with_and_without_what_was_kept(models: Models) -> None:
    sampling = Sampling(max_new_tokens=12, temperature=0.9, top_p=0.9, seed=3)
    kept = models.session(sampling, "Be brief.")
    answers = [said(kept, text) for text in QUESTIONS]
    fresh = models.session(sampling, "Be brief.")
    for text in QUESTIONS:
        fresh._engine.held = []
        said(fresh, text)
        assert fresh.reply is not None
        assert fresh.reply.reused_tokens == 0
    assert [message["content"] for message in fresh.messages[1::2]] == answers
    other = models.session(Sampling(max_new_tokens=12, temperature=0.9, top_p=0.9, seed=4), "Be brief.")
    assert [said(other, text) for text in QUESTIONS] != answers


def test_retry_draws_anew_and_greedy_repeats_itself(models: Models) -> None:
    session = models.session(Sampling(max_new_tokens=12, temperature=1.0))
    first = said(session, "Hello")
    list(session.retry())
    assert session.reply is not None
    assert session.reply.content != first
    assert len(session.messages) == 2
    greedy = models.session(Sampling(max_new_tokens=12))
    first = said(greedy, "Hello")
    list(greedy.retry())
    assert greedy.reply is not None
    assert greedy.reply.content == first
    with pytest.raises(ToolkitError, match="nothing was asked"):
        list(models.session(Sampling()).retry())


def test_a_stopped_answer_is_kept_as_far_as_it_came(models: Models) -> None:
    session = models.session(Sampling(max_new_tokens=50))
    seen: list[str] = []

    def ask(after: int) -> Iterator[str]:
        for piece in session.ask("Hello", lambda: len(seen) >= after):
            seen.append(piece.text)
            yield piece.text

    text = "".join(ask(5))
    assert session.reply is not None
    assert session.reply.ended == "interrupted"
    assert session.messages[-1] == {"role": "assistant", "content": text}
    assert 5 <= session.reply.new_tokens < 10
    list(session.retry(lambda: True))
    assert session.messages[-1]["content"] == text, "stopped before a new answer, the old one stays"
    list(session.ask("again", lambda: True))
    assert session.reply is None
    assert len(session.messages) == 2
    half = session.ask("left alone")
    next(half)
    half.close()
    assert len(session.messages) == 2
    assert said(session, "Go on")


def limited(tiny: Path, folder: Path, most: int) -> Path:
    """The tiny model with a context of `most` tokens."""
    shutil.copytree(tiny, folder)
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**values, "max_position_embeddings": most}))
    return folder


def test_a_full_context_drops_the_oldest_turns_and_says_so(tiny: Path, tmp_path: Path) -> None:
    models = Models(str(limited(tiny, tmp_path / "m", 150)), None)
    session = models.session(Sampling(max_new_tokens=20), "SYSTEM")
    dropped = []
    for number in range(8):
        said(session, f"turn {number}: " + "word " * 8)
        assert session.reply is not None
        dropped.append(session.reply.dropped)
        assert session.reply.prompt_tokens + session.reply.new_tokens <= 150
    assert dropped[0] == 0
    assert sum(dropped) >= 4
    assert all(count % 2 == 0 for count in dropped)
    prompt = models.template.tokenizer.decode(session._engine.held)
    assert "SYSTEM" in prompt
    assert "turn 0" not in prompt
    assert "turn 7" in prompt
    assert len(session.messages) == 16, "what is saved is all that was said"
    before = list(session.messages)
    with pytest.raises(ToolkitError, match=r"\d+ tokens in this message and the system prompt exceed the model's 150"):
        list(session.ask("word " * 400))
    assert session.messages == before
    session.reset()
    assert said(session, "word " * 125)
    assert session.reply.ended == "context"
    assert session.reply.prompt_tokens + session.reply.new_tokens == 150


def test_the_untuned_model_is_the_same_memory_with_the_adapter_off(tiny: Path, adapter: Path) -> None:
    models = Models(str(tiny), adapter)
    sampling = Sampling(max_new_tokens=10)
    tuned, untuned = models.session(sampling), models.session(sampling, untuned=True)
    bare = Models(str(tiny), None).session(sampling)
    for text in ("What is 12 + 3?", "What is 120 + 9?"):
        one, two = tuned.ask(text), untuned.ask(text)
        for _ in range(30):  # in turns, as they are shown side by side
            next(one, None)
            next(two, None)
        assert untuned.reply is not None
        assert untuned.reply.content == said(bare, text)
        assert tuned.reply is not None
        assert tuned.reply.content != untuned.reply.content
    assert tuned._engine.model is untuned._engine.model
    with pytest.raises(ToolkitError, match="no adapter to turn off"):
        Models(str(tiny), None).session(sampling, untuned=True)


def test_an_adapter_answers_as_the_library_has_it(tiny: Path, adapter: Path) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    models = Models(str(tiny), adapter)
    session = models.session(Sampling(max_new_tokens=8))
    found = said(session, "What is 12 + 3?")
    expected = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny), str(adapter)).eval()
    prompt, _ = models.template.prompt(session.messages[:1], "q")
    with torch.inference_mode():
        ids = expected.generate(input_ids=torch.tensor([prompt]), max_new_tokens=8, do_sample=False, use_cache=False)
    assert found == models.template.tokenizer.decode(ids[0, len(prompt) :], skip_special_tokens=True)


def test_a_model_that_thinks_is_heard_and_its_thoughts_stay_out_of_later_turns(
    tiny: Path, tokenizer: Any, tmp_path: Path
) -> None:
    """Learnt by heart under a real template: one turn with a thought."""
    folder = shutil.copytree(tiny, tmp_path / "thinker")
    (folder / "chat_template.jinja").write_text(real_template("qwen3"), encoding="utf-8")
    asked = {"role": "user", "content": "2+2?"}
    said = {"role": "assistant", "content": "<think>\nEasy: two twos.\n</think>\n\nFour 🐈."}
    data = write(tmp_path / "data.jsonl", [{"messages": [asked, said]}])
    values = {"model_path": str(folder), "dataset_path": str(data), "save_model_path": str(tmp_path / "out")}
    values |= {"method": "full", "batch_size": 1, "epochs": 60, "learning_rate": 1e-2, "schedule": "constant"}
    train(make(values), lambda line: None)
    models = Models(str(tmp_path / "out"), None)
    session = models.session(Sampling(max_new_tokens=60))
    assert said_by(session, "2+2?") == ("Easy: two twos.", "Four 🐈.")
    assert session.reply is not None
    assert session.reply.ended == "stop"
    assert session.messages[1] == {"role": "assistant", "content": "Four 🐈.", "thinking": "Easy: two twos."}
    said_by(session, "And 3+3?")
    prompt = tokenizer.decode(session._engine.held[: session.reply.prompt_tokens])
    assert "Four 🐈." in prompt
    assert "Easy" not in prompt
    # What the template rewrote is computed again, what came before it is not.
    assert session.reply.reused_tokens == len(models.template.prompt(session.messages[:1], "q")[0])
    quick = Models(str(tmp_path / "out"), None, thinking=False).session(Sampling(max_new_tokens=4))
    assert said_by(quick, "2+2?")[0] == ""


def test_adapters_that_do_not_load_are_one_line(tiny: Path, adapter: Path, tmp_path: Path) -> None:
    import torch

    other = tmp_path / "other"
    shutil.copytree(adapter, other)
    (other / "adapter_model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(ToolkitError, match="does not fit"):
        Models(str(tiny), other)
    (other / "adapter_model.safetensors").unlink()
    torch.save({}, other / "adapter_model.bin")
    with pytest.raises(ToolkitError, match=r"has no adapter_model\.safetensors"):
        Models(str(tiny), other)


def test_a_script_is_played_and_saved_in_the_format_that_trains(tiny: Path, adapter: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.json"
    ours = {
        "conversation_id": "one", "system_prompt": "Be brief.",
        "conversation_pair": [
            {"role": "user", "content": "What is 1 + 2?"}, {"role": "assistant", "content": "3"},
            {"role": "user", "content": "And 3 + 4?"},
        ],
    }  # fmt: skip
    openai = {"messages": [{"role": "user", "content": "Hello"}]}
    script.write_text(json.dumps([ours, openai]))
    out = tmp_path / "out.json"
    sampling = Sampling(max_new_tokens=6)
    played = play(str(tiny), adapter, script, out, sampling=sampling, system="Other.", compare_base=True)
    first, second = played
    assert [turn.turn.expected for turn in first.turns] == ["3", ""]
    session = Models(str(tiny), adapter).session(sampling, "Be brief.")
    assert [turn.reply.content for turn in first.turns] == [
        said(session, "What is 1 + 2?"),
        said(session, "And 3 + 4?"),
    ]
    assert (first.system, second.system) == ("Be brief.", "Other.")
    assert all(turn.untuned is not None and turn.untuned.content != turn.reply.content for turn in first.turns)
    saved = json.loads(out.read_text())
    assert [item["conversation_id"] for item in saved] == ["one", "script-2"]
    assert [item["role"] for item in saved[0]["conversation_pair"]] == ["user", "assistant", "user", "assistant"]
    assert read_scripts(out)[0].turns[1].expected == first.turns[1].reply.content


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "not JSON"),
        ("3", "must be an object, not int"),
        ("[]", "has no conversation"),
        ('{"messages": []}', 'must have a list "conversation_pair" or "messages"'),
        ('{"messages": [{"role": "assistant", "content": "a"}]}', "no message has role user"),
        ('[{"messages": [{"role": "user", "content": 3}]}]', 'conversation 1: message 1: "content" must be a string'),
        (
            '{"messages": [{"role": "tool", "content": "a"}]}',
            "message 1 has role 'tool'; valid: system, user, assistant",
        ),
        ('{"messages": [{"role": "user", "content": "a"}, {"role": "system", "content": "b"}]}', "message 2: a second"),
        ('{"messages": [{"role": "user", "content": "a"}]}\n{"messages"', "script.json:2: not JSON"),
        ('{"messages": [{"role": "user", "content": "\\ud800"}]}', "script.json: half of a surrogate pair"),
    ],
)
def test_scripts_that_cannot_be_played_are_one_line(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "script.json"
    path.write_text(text)
    with pytest.raises(ToolkitError) as error:
        read_scripts(path)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_scripts_are_read_in_each_form(tmp_path: Path) -> None:
    path = tmp_path / "script"
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": "a"}]
    for text in (
        json.dumps(messages), json.dumps({"messages": messages}), json.dumps([{"messages": messages}]),
        json.dumps({"messages": messages}) + "\n" + json.dumps({"messages": messages}) + "\n",
        json.dumps({"system_prompt": "s", "conversation_pair": messages[1:]}),
    ):  # fmt: skip
        for mark in ("", "\ufeff"):
            path.write_text(mark + text)
            scripts = read_scripts(path)
            assert {(script.system, script.turns[0].user) for script in scripts} == {("s", "a")}


def test_lines_of_a_script_end_at_line_feeds_alone(tmp_path: Path) -> None:
    said = "a\u2028b\u0085c"
    line = json.dumps({"messages": [{"role": "user", "content": said}]}, ensure_ascii=False)
    (tmp_path / "script.jsonl").write_text(f"{line}\n{line}\n", encoding="utf-8")
    assert [script.turns[0].user for script in read_scripts(tmp_path / "script.jsonl")] == [said, said]


def test_saving_adds_to_a_file_of_conversations_and_to_no_other(tmp_path: Path) -> None:
    path = tmp_path / "saved.json"
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "ä"}]
    assert save_conversation(path, as_document("one", "", turns)) == 1
    assert save_conversation(path, as_document("two", "s", turns)) == 2
    assert save_conversation(path, as_document("one", "", turns * 2)) == 2
    saved = json.loads(path.read_text(encoding="utf-8"))
    assert [len(item["conversation_pair"]) for item in saved] == [4, 2]
    for text in ("no json", "[3]", '{"a": 1}'):
        path.write_text(text)
        with pytest.raises(ToolkitError, match="exists and is no file of conversations"):
            save_conversation(path, as_document("one", "", turns))
        assert path.read_text() == text
    with pytest.raises(ToolkitError, match="cannot be written"):
        save_conversation(tmp_path / "absent" / "x", as_document("one", "", turns))


@pytest.mark.parametrize("values", [{"max_new_tokens": 0}, {"temperature": -1.0}, {"top_p": 0.0}, {"top_p": 1.5}])
def test_sampling_has_bounds(values: dict[str, Any]) -> None:
    with pytest.raises(ToolkitError, match=next(iter(values))):
        Sampling(**values)
