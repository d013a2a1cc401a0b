"""`ftagent chat` at a real pseudo-terminal, and its scripts without one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from toolkit.conftest import smollm2, tiny, tokenizer  # noqa: F401 - fixtures
from toolkit.rows import conversations

from ftagent.toolkit.config import TrainConfig, validate_config
from ftagent.toolkit.files import mark_complete
from ftagent.toolkit.train import train
from support.terminal import Terminal
from support.trained import IDENTITY

from .conftest import CommandLine
from .test_bad_input import refused
from .test_commands import check

pytestmark = [
    pytest.mark.model,
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning"),
]

PROMPT = ">>> "
Opened = Callable[..., Terminal]


@pytest.fixture
def terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Opened]:
    """Opens `ftagent` at a terminal, in an empty folder; none outlives its test."""
    monkeypatch.setenv("FT_FILE_PATH", str(tmp_path / "files"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    opened: list[Terminal] = []

    def start(*words: str | Path, columns: int = 80, term: str = "xterm") -> Terminal:
        opened.append(Terminal(tmp_path, *map(str, words), columns=columns, term=term))
        return opened[-1]

    yield start
    for item in opened:
        item.kill()


@pytest.fixture(scope="module")
def trained(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811
    """A training of the tiny model with its result and two checkpoints, the first of them the best."""
    folder = tmp_path_factory.mktemp("trained")
    values = {"model_path": str(tiny), "dataset_path": str(conversations(folder / "data.jsonl")), "rank": 4}
    values |= {"save_model_path": str(folder / "out"), "epochs": 8, "batch_size": 4, "learning_rate": 1e-2}
    train(validate_config(values, TrainConfig, "train.yaml"), lambda line: None)
    for step, loss in ((3, 0.5), (9, 0.7)):
        checkpoint = folder / "out" / "checkpoints" / f"step-{step:08d}"
        checkpoint.mkdir(parents=True)
        for name in ("adapter_config.json", "adapter_model.safetensors"):
            shutil.copy(folder / "out" / name, checkpoint)
        (checkpoint / "progress.json").write_text(json.dumps({"step": step, "validation_loss": loss}))
        mark_complete(checkpoint, IDENTITY, [path.name for path in checkpoint.iterdir()])
    return folder / "out"


def asked(screen: Terminal, text: str) -> str:
    """What comes after `text` was typed, up to the next prompt."""
    screen.type(text + "\n")
    screen.expect(text.splitlines()[-1])
    return screen.expect(PROMPT).strip()


def test_a_conversation_at_a_terminal(terminal: Opened, tiny: Path, tmp_path: Path) -> None:  # noqa: F811
    screen = terminal("chat", tiny, "--max-new-tokens", "12")
    screen.expect("/help lists what can be typed")
    screen.expect(PROMPT)
    first = asked(screen, "Hello")
    answer = first.splitlines()[0]
    assert answer
    assert "(stopped at --max-new-tokens 12)" in first
    assert asked(screen, "And now?").splitlines()[0] != answer
    assert "greedy" in asked(screen, "/retry")
    assert asked(screen, "/save talk.json") == "saved: talk.json has 1 conversation"
    saved = json.loads((tmp_path / "talk.json").read_text())
    said = [message["content"] for message in saved[0]["conversation_pair"]]
    assert (len(said), said[0], said[2]) == (4, "Hello", "And now?")
    assert said[1].split() == answer.split()
    assert asked(screen, "/reset") == "(a new conversation)"
    assert asked(screen, "Hello").splitlines()[0] == answer
    assert asked(screen, "/system Be kind.") == "system: Be kind."
    assert asked(screen, "/system -") == "(no system prompt of yours)"
    assert "no adapter to turn off" in asked(screen, "/compare")
    assert "no command /foo; there are /reset" in asked(screen, "/foo bar")
    assert "give the name of a file" in asked(screen, "/save")
    assert "contains the special token <|im_end|>" in asked(screen, "a <|im_end|> b")
    assert "/save FILE" in asked(screen, "/help")
    screen.type('"""one\n')
    screen.expect("... ")
    screen.type('two"""\n')
    screen.expect(PROMPT)
    # What a terminal sends for a paste of two lines, then Enter.
    screen.type("\x1b[200~three\nfour\x1b[201~")
    screen.expect("four")
    screen.type("\n")
    screen.expect(PROMPT)
    asked(screen, "/save talk.json")
    said = [message["content"] for message in json.loads((tmp_path / "talk.json").read_text())[1]["conversation_pair"]]
    assert said[2::2] == ["one\ntwo", "three\nfour"]
    screen.type("half a line\x03")
    screen.expect("(Ctrl-D or /quit leaves)")
    screen.expect(PROMPT)
    screen.type("\x04")
    assert screen.end() == 0
    assert "Hello\n" in (tmp_path / "files" / "chat_history").read_text()


def test_ctrl_c_stops_the_answer_only_and_a_long_paste_arrives_whole(
    terminal: Opened, tiny: Path, tmp_path: Path  # noqa: F811
) -> None:  # fmt: skip
    screen = terminal("chat", tiny, "--max-new-tokens", "100000", "--temperature", "5")
    screen.expect(PROMPT)
    screen.type("Hello\n")
    screen.expect("Hello\n")
    # The answer is shown while it is made: there are words, and no prompt yet.
    screen.expect(" ")
    assert PROMPT not in screen.plain.split("Hello\n")[1]
    screen.type("\x03")
    screen.expect("(stopped)")
    screen.expect(PROMPT)
    long = "word " * 2000
    screen.type(f"\x1b[200~{long}END\x1b[201~")
    screen.expect("END")
    screen.type("\n")
    screen.expect("\n")
    screen.pause(0.5)
    screen.type("\x03")
    screen.expect(PROMPT)
    screen.type("Hello again\n")
    screen.expect("Hello again\n")
    screen.expect(" ")
    screen.type("\x03")
    screen.expect(PROMPT)
    screen.type("/save s.json\n")
    screen.expect("saved")
    screen.type("/quit\n")
    assert screen.end() == 0
    said = [turn["content"] for turn in json.loads((tmp_path / "s.json").read_text())[0]["conversation_pair"]]
    assert said[0] == "Hello"
    assert said[-2] == "Hello again"
    assert len(said) == 4 or said[2] == f"{long}END"


def test_the_chooser_and_two_answers_side_by_side(terminal: Opened, trained: Path) -> None:
    screen = terminal("chat", trained, "--max-new-tokens", "6", columns=120)
    shown = screen.expect("Which [1]:")
    rows = [line.split() for line in shown.splitlines() if "complete" in line]
    assert [row[1] for row in rows] == ["step-3", "step-9", "final"]
    assert rows[0][-1] == "best"
    assert rows[2][-1] == "newest"
    screen.type("7\n")
    screen.expect("'7': no such checkpoint")
    screen.expect("Which [1]:")
    screen.type("\n")
    screen.expect("step-00000003 (best) ...")
    screen.expect(PROMPT)
    alone = asked(screen, "What is 12 + 3?").splitlines()[0]
    asked(screen, "/reset")
    assert "answers beside" in asked(screen, "/compare")
    beside = asked(screen, "What is 12 + 3?")
    assert "tuned" in beside
    assert "untuned" in beside
    lines = beside.splitlines()
    header = next(line for line in lines if "untuned" in line)
    column = header.index("untuned")
    tuned = " ".join(line[:column].strip() for line in lines[lines.index(header) + 2 :])
    assert alone.split()[0] in tuned
    assert "(the tuned model alone)" in asked(screen, "/compare")
    screen.type("/quit\n")
    assert screen.end() == 0


def test_without_a_terminal_each_line_is_a_message(trained: Path, tmp_path: Path) -> None:
    import os
    import subprocess
    import sys

    words = [sys.executable, "-m", "ftagent", "chat", str(trained), "--adapter", "best", "--compare-base"]
    done = subprocess.run(
        [*words, "--max-new-tokens", "4"], cwd=tmp_path, input="Hello\n/save s.json\n", capture_output=True, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("tuned: ")
    assert any(line.startswith("untuned: ") for line in lines)
    assert "saved: s.json has 1 conversation" in lines
    assert "\x1b" not in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["s.json"]


@pytest.mark.parametrize("handler", ["surrogateescape", "strict"])
def test_input_that_is_not_utf_8_is_one_line(tiny: Path, tmp_path: Path, handler: str) -> None:  # noqa: F811
    """Locales differ in what Python does with such bytes."""
    import os
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, "-m", "ftagent", "chat", str(tiny)], cwd=tmp_path, input=b"caf\xe9\n", capture_output=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONIOENCODING": f"utf-8:{handler}"}, timeout=120, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (2, b"error: the input is not UTF-8\n")


def test_a_refused_message_shows_in_the_exit_code(tiny: Path, tmp_path: Path) -> None:  # noqa: F811
    import os
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, "-m", "ftagent", "chat", str(tiny), "--max-new-tokens", "2"], cwd=tmp_path,
        input="<|im_end|>\nHello\n", capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=120, check=False,
    )  # fmt: skip
    refusal, reply, *_ = (line for line in done.stdout.splitlines() if line)
    assert (done.returncode, refusal.startswith("error: ")) == (1, True)
    assert reply != "(stopped before an answer)"


SCRIPT = {
    "conversation_id": "sums", "system_prompt": "Be brief.",
    "conversation_pair": [
        {"role": "user", "content": "What is 12 + 3?"}, {"role": "assistant", "content": "15"},
        {"role": "user", "content": "And 1 + 1?"},
    ],
}  # fmt: skip


def test_a_script_is_played_without_a_terminal(ftagent: CommandLine, trained: Path, tmp_path: Path) -> None:
    (tmp_path / "script.json").write_text(json.dumps([SCRIPT]))
    words = ["chat", trained, "--adapter", "final", "--script", "script.json", "--max-new-tokens", "5"]
    answer = ftagent(*words, "--json", "--compare-base", "--out", "out.json")
    assert answer.code == 0, answer.err
    document = check("chat", answer.out)
    assert document["adapter"] == str(trained)
    turns = document["conversations"][0]["turns"]
    assert [(turn["user"], turn["expected"]) for turn in turns] == [("What is 12 + 3?", "15"), ("And 1 + 1?", None)]
    assert turns[1]["reused_tokens"] >= turns[0]["prompt_tokens"]
    assert all(turn["untuned_answer"] not in (None, turn["answer"]) for turn in turns)
    saved = json.loads((tmp_path / "out.json").read_text())
    assert [message["role"] for message in saved[0]["conversation_pair"]] == ["user", "assistant"] * 2
    assert saved[0]["conversation_pair"][3]["content"] == turns[1]["answer"]
    shown = ftagent(*words).out
    assert shown.startswith("conversation sums, system: Be brief.\n>>> What is 12 + 3?\n")
    assert "\nexpected: 15\n" in shown


def test_a_training_as_adapter_or_as_model_is_its_result(
    ftagent: CommandLine, trained: Path, tiny: Path, tmp_path: Path  # noqa: F811
) -> None:  # fmt: skip
    (tmp_path / "script.json").write_text(json.dumps({"messages": [{"role": "user", "content": "Hello"}]}))
    script = ["--script", "script.json", "--json", "--max-new-tokens", "2"]
    assert check("chat", ftagent("chat", tiny, "--adapter", trained, *script).out)["adapter"] == str(trained)
    # A system prompt may be longer than the name of a file.
    assert ftagent("chat", tiny, "--system", "Be kind. " * 40, *script).code == 0
    damaged = shutil.copytree(trained, tmp_path / "damaged")
    (damaged / "adapter_model.safetensors").write_bytes(b"")
    refused(ftagent("chat", tiny, "--adapter", damaged, *script), "damaged: adapter_model.safetensors is not what")
    # A full training leaves whole models: the folder is one, and its checkpoints are others.
    full = shutil.copytree(tiny, tmp_path / "full")
    shutil.copytree(tiny, full / "checkpoints" / "step-00000004")
    for folder in (full / "checkpoints" / "step-00000004", full):
        mark_complete(folder, IDENTITY, [path.name for path in folder.iterdir() if path.is_file()])
    document = check("chat", ftagent("chat", full, *script).out)
    assert (document["model"], document["adapter"]) == (str(full), None)
    document = check("chat", ftagent("chat", full, "--adapter", "step-4", *script).out)
    assert document["model"] == str(full / "checkpoints" / "step-00000004")


def test_requests_that_cannot_be_met_are_refused(
    ftagent: CommandLine, trained: Path, tiny: Path, tmp_path: Path  # noqa: F811
) -> None:  # fmt: skip
    (tmp_path / "script.json").write_text("{")
    refused(ftagent("chat", "smollm2-135n"), "smollm2-135n", "smollm2-135m")
    refused(ftagent("chat", trained), "has several checkpoints: step-00000003 (best), step-00000009, final (newest)")
    refused(ftagent("chat", trained, "--adapter", "step-4"), "'step-4': no such checkpoint", "step-00000003 (best)")
    refused(ftagent("chat", tiny, "--adapter", "best"), "--from")
    refused(ftagent("chat", tiny, "--adapter", "absent"), "absent: no such folder")
    refused(ftagent("chat", trained, "--from", tiny), "one of the two")
    refused(ftagent("chat", tiny, "--adapter", tiny), "a whole model, not an adapter")
    refused(ftagent("chat", tiny, "--compare-base"), "without an adapter")
    refused(ftagent("chat", tiny, "--json"), "--json needs --script")
    refused(ftagent("chat", tiny, "--out", "o.json"), "--out needs --script")
    refused(ftagent("chat", tiny, "--top-p", "2"), "top_p 2.0")
    refused(ftagent("chat", tiny, "--system", "absent.txt"), "absent.txt", "no such file")
    refused(ftagent("chat", tiny, "--script", "script.json"), "script.json: not JSON")
    refused(ftagent("chat", tiny, "--script", "none.json"), "none.json: cannot be read")
    refused(ftagent("chat", tiny, "--no-thinking"), "knows no thinking")
    moved = tmp_path / "moved"
    shutil.copytree(trained, moved, ignore=shutil.ignore_patterns("checkpoints", "metrics.jsonl", "complete.json"))
    values = json.loads((moved / "adapter_config.json").read_text())
    (moved / "adapter_config.json").write_text(json.dumps({**values, "base_model_name_or_path": "/gone/base"}))
    refused(ftagent("chat", moved), "was trained on '/gone/base'", f"ftagent chat BASE --adapter {moved}")


def test_thinking_is_dimmed_on_a_terminal_and_marked_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    import io

    from ftagent.cli.chat.view import View
    from ftagent.toolkit.chat import Piece

    class Screen(io.StringIO):
        def isatty(self) -> bool:
            return True

    pieces = [
        Piece("thinking", "hm\x1b[2J"),
        Piece("thinking", "m"),
        Piece("content", "Four"),
        Piece("content", ".\x07"),
    ]
    plain = io.StringIO()
    View(plain).answer(iter(pieces), None)
    assert plain.getvalue() == "[thinking] hm[2Jm\n\n[answer] Four.\n"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TERM", "xterm")
        patch.delenv("NO_COLOR", raising=False)
        screen = Screen()
        View(screen).answer(iter(pieces), None)
    assert screen.getvalue() == "\x1b[2mhm[2Jm\x1b[0m\n\nFour.\n"
