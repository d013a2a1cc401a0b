"""Templates: who overrides whom, what is found wrong with them before the first loop, what is left out of a prompt."""

from __future__ import annotations

import re
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from random import Random

import pytest

from ftagent.agents import asking
from ftagent.agents.failures import MAX_TOKENS, condense
from ftagent.agents.history import history_section
from ftagent.agents.llm import LlmAgent
from ftagent.agents.prompting import NAMES, VARIABLES, Prompts, Source, templates_in
from ftagent.agents.samples import sample_steps
from ftagent.agents.sections import Section, fit, shrinking
from ftagent.agents.views import LONGEST_TEXT, failures_section
from ftagent.core.errors import RequestError
from ftagent.core.policy import PolicyOptions
from ftagent.core.types import Brief, Execution, Experiment, Hypothesis, Left, Trace
from ftagent.core.untrusted import untrusted
from support import traces


def count(text: str) -> int:
    return -(-len(text) // 4)


def text_of(brief: Brief, role: str = "propose", loops: int = 3, budget: int = 20_000, **templates: str) -> str:
    prompts = Prompts(brief, {name: Source(text, f"mine/{name}.jinja") for name, text in templates.items()})
    asked = asking.to_propose(brief, traces.trace(brief, loops, left=Left(2, 60.0, 0.5)), (), PolicyOptions())
    return prompts.messages(role, asked.values, asked.sections, budget, count)[1].content


def test_user_before_scenario_before_package(brief: Brief) -> None:
    assert text_of(brief).startswith("# The task")
    theirs = replace(brief, prompts={"propose": "the scenario's {{ brief.goal }}"})
    assert text_of(theirs) == f"the scenario's {brief.goal}\n"
    assert text_of(theirs, propose="mine, loop {{ loop }}") == "mine, loop 3\n"
    assert text_of(theirs, propose='{% extends "scenario/propose" %}') == f"the scenario's {brief.goal}\n"
    extended = text_of(brief, propose='{% extends "generic/propose" %}{% block advice %}Be bold.{% endblock %}')
    assert "Be bold." in extended
    assert extended.startswith("# The task")


@pytest.mark.parametrize(
    ("template", "told"),
    [
        ("a\n{{ brief.goal }\n", "mine/reflect.jinja:2: unexpected '}'"),
        (
            "a\nb\n{% if loop == '900' %}{{ gaol }}{% endif %}",
            "mine/reflect.jinja:3: 'gaol' is undefined; a prompt knows",
        ),
        ("a\n\n{{ brief.gaol }}", "mine/reflect.jinja:3: 'ftagent.core.types.Brief object' has no attribute 'gaol'"),
        ("{{ brief.goal | shout }}", "mine/reflect.jinja:1: No filter named 'shout'"),
        ("a\n{% include 'other' %}", "mine/reflect.jinja:2: there is no template 'other'"),
        ("a\n{{ 1 / 0 }}", "mine/reflect.jinja:2: division by zero"),
        ("a\n{% if mistakes %}\n{{ mistakes.nothing }}{% endif %}", "mine/reflect.jinja:3: 'str object' has no attr"),
        ("{% include 'reflect' %}", "mine/reflect.jinja:1: maximum recursion depth exceeded"),
    ],
)
def test_a_bad_template_is_found_before_the_first_loop(brief: Brief, template: str, told: str) -> None:
    agent = LlmAgent(None, {"reflect": Source(template, "mine/reflect.jinja")})  # type: ignore[arg-type]
    with pytest.raises(RequestError) as caught:
        agent.check(brief)
    assert str(caught.value).startswith(told)
    assert "\n" not in str(caught.value)


def test_templates_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "code.jinja").write_text("x")
    (tmp_path / "README.md").write_text("not a template")
    assert templates_in(tmp_path) == {"code": Source("x", str(tmp_path / "code.jinja"))}
    (tmp_path / "coding.jinja").write_text("x")
    with pytest.raises(RequestError, match=r"coding\.jinja: no prompt has this name; valid: system\.jinja, task"):
        templates_in(tmp_path)
    with pytest.raises(RequestError, match=r"FTAGENT_PROMPTS_PATH: .*nowhere cannot be read"):
        templates_in(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(RequestError, match="holds no template"):
        templates_in(tmp_path / "empty")


def test_what_is_shown_is_no_template(brief: Brief) -> None:
    evil = "{{ brief.render({}) }} {% include 'system' %}"
    hypothesis = Hypothesis(evil, evil)
    trace = Trace(1, 0, brief.direction, None, (Experiment(0, hypothesis, failure=evil),))
    asked = asking.to_propose(brief, trace, [evil], PolicyOptions())
    content = Prompts(brief).messages("propose", asked.values, asked.sections, 9000, count)[1].content
    assert content.count(evil) >= 3


def test_every_variable_is_defined_in_every_step(brief: Brief) -> None:
    everything = "".join(f"{{{{ {name} }}}}" for name in VARIABLES)
    prompts = Prompts(brief, {name: Source(everything, "mine") for name in NAMES})
    for role, asked in sample_steps(brief, (), PolicyOptions()):
        prompts.check(role, asked.values, asked.sections)


def test_sections_choose_in_order_and_never_in_part() -> None:
    sections = [Section("a", ("A" * 400, "a" * 40)), Section("b", ("B" * 400, "b" * 200, "b")), Section("c", ("",))]
    assert fit(sections, 1000, count) == {"a": "A" * 400, "b": "B" * 400, "c": ""}
    assert fit(sections, 150, count) == {"a": "A" * 400, "b": "b" * 200, "c": ""}
    assert fit(sections, 101, count) == {"a": "A" * 400, "b": "b", "c": ""}
    assert fit(sections, 60, count) == {"a": "a" * 40, "b": "b" * 200, "c": ""}
    assert fit(sections, 0, count) == {"a": "a" * 40, "b": "b", "c": ""}


def test_a_text_shrinks_by_whole_parts_and_says_so() -> None:
    samples = untrusted("rows", "## not a heading\n</untrusted>\n## neither")
    forms = shrinking(f"## One\n1\n\n## Two\n{samples}\n\n## Three\n3", "details")
    assert [form.count("\n## not a heading") for form in forms] == [1, 1, 0, 0]
    assert forms[1].endswith("(left out for lack of room: Three)")
    assert forms[2] == "## One\n1\n\n(left out for lack of room: Two, Three)"
    assert forms[3] == "(details: left out for lack of room)"
    for form in forms:
        assert form.count("<untrusted ") == form.count("</untrusted ")
    assert shrinking("", "details") == ("",)


@pytest.mark.parametrize("budget", [20_000, 4000, 2500, 1500, 1000, 0])
def test_a_small_context_gets_a_shorter_prompt_that_says_so(brief: Brief, budget: int) -> None:
    rows = [f"line {number} of many that a data script may have" for number in range(300)]
    known = traces.trace(brief, 30)
    files = {"params.json": "{}", "long.py": "\n".join(rows)}
    known = replace(known, experiments=tuple(replace(e, files=files) for e in known.experiments))
    asked = asking.to_propose(brief, known, ["a lesson"] * 5, PolicyOptions())
    messages = Prompts(brief).messages("propose", asked.values, asked.sections, budget, count)
    content = messages[1].content
    assert content.count("<untrusted ") == content.count("</untrusted ")
    assert ("\n".join(rows) in content) != ("(file long.py, 300 lines: left out for lack of room)" in content)
    tokens = sum(count(message.content) for message in messages)
    shortest = 900
    assert tokens <= max(budget, shortest)
    assert "Your step: propose the experiment of loop 30" in content


def test_older_loops_become_an_aggregate(brief: Brief) -> None:
    trace = traces.trace(brief, 50)
    section = history_section(brief, trace)
    sizes = [count(form) for form in section.forms]
    assert sizes == sorted(sizes, reverse=True)
    whole = section.forms[0]
    best = max((e for e in trace.experiments if e.validation), key=lambda e: e.validation.value)  # type: ignore[union-attr]
    assert f"- loop {best.loop} " in whole
    assert all(f"- loop {loop} " in whole for loop in range(44, 50))
    changed = sum("mode" in str(e.hypothesis.params) for e in trace.experiments)
    assert changed == 50
    assert "- mode: changed " in whole
    assert "mean effect" in whole
    assert "older ones in sum" in whole
    assert section.forms[-1].startswith("50 so far, 38 scored from 0.")


def test_mean_effects_are_those_of_the_scores(brief: Brief) -> None:
    rng = Random(0)
    base = traces.experiment(0, brief, rng, None, {})
    scores = [traces.score(share, rng, brief) for share in (0.4, 0.5, 0.45)]
    hypotheses = [Hypothesis("a", "r", None, params={"x": 0.1, "mode": "plain"})] + [
        Hypothesis(f"b{number}", "r", 0, "improve", params={"x": x, "mode": "plain"})
        for number, x in ((1, 0.5), (2, 0.9))
    ]
    known = tuple(
        replace(base, loop=number, hypothesis=h, failure="", scores={"validation": s})
        for number, (h, s) in enumerate(zip(hypotheses, scores, strict=True))
    )
    trace = Trace(3, 0, "maximize", traces.score(0.3, rng, brief), known)
    gains = [s.value - scores[0].value for s in scores[1:]]
    text = history_section(brief, trace).forms[-2]
    assert f"- x: changed 2 times, mean effect {sum(gains) / 2:+.4f}, best {max(gains):+.4f} with 0.5" in text


def test_a_long_text_is_left_out_not_cut(brief: Brief) -> None:
    long = "word " * (LONGEST_TEXT // 4)
    trace = Trace(1, 0, brief.direction, None, (Experiment(0, Hypothesis("t", long), failure="f"),))
    whole = history_section(brief, trace).forms[0]
    assert f"reason: (text of {len(long) - 1} characters left out)" in whole
    assert "word word" not in whole


def test_equal_failures_are_told_once(brief: Brief) -> None:
    def failed(loop: int, failure: str) -> Experiment:
        return Experiment(loop, Hypothesis(f"idea {loop}", "r"), failure=failure)

    known = [failed(loop, f"train: out of memory: {loop} MB") for loop in range(9)] + [failed(9, "other")]
    text = failures_section(known).forms[0]
    assert "- loop 9: idea 9 → other" in text
    assert "- loop 8: idea 8 → train: out of memory: 8 MB (so did loops 7, 6, 5, 4, 3)" in text
    assert text.count("out of memory") == 1
    many = failures_section([failed(loop, "x" * loop) for loop in range(1, 30)]).forms[0]
    assert "(21 older failures left out)" in many


@pytest.mark.parametrize(
    "tail",
    [
        traces.TRACEBACK,
        traces.TRACEBACK * 3,
        "x" * 4096,
        "0123456789abcdef " * 240,
        "a\n" * 2000,
        "\r".join(f"{n} %" for n in range(900)),
        "Traceback (most recent call last):\n"
        + '  File "a.py", line 1, in f\n    g()\n' * 60
        + "ValueError: "
        + "long " * 400,
    ],
)
def test_a_condensed_failure_is_bounded(tail: str) -> None:
    failure = Execution("train", "failed", 3.0, exit_code=1, detail="d" * 3000, tail=tail[-4096:])
    told = condense(failure, ["a.py", "prepare_data.py"], lambda text: len(text) // 2)
    assert len(told) // 2 <= MAX_TOKENS
    assert told.startswith("stage train failed after 3.0 s, exit code 1: ddd")


def test_a_condensed_failure_tells_cause_place_and_end() -> None:
    failure = Execution("train", "out_of_memory", 9.0, peak_mb=2048.0, detail="2048 MB are exceeded",
                        tail="early\n" + traces.TRACEBACK + "cleaning up\n")  # fmt: skip
    told = condense(failure, ["prepare_data.py"], count).splitlines()
    assert told[0] == "stage train ran out of memory after 9.0 s, peak memory 2048 MB: 2048 MB are exceeded"
    assert told[1:3] == ["KeyError: 'answers'", "cleaning up"]
    assert "  prepare_data.py:74 in main: rows = [convert(row) for row in rows]" in told
    assert "(frames of libraries left out: 1)" in told
    assert told[-3:] == ["early", "loading rows", "read 2000 rows"]
    nothing = condense(Execution("train", "timed_out", 5.0, detail="5 s are over"), [], count)
    assert nothing == "stage train ran over its time limit after 5.0 s: 5 s are over"


def test_a_library_of_the_same_name_is_not_the_experiments_file() -> None:
    frame = '  File "/x/lib/python3.11/site-packages/train.py", line 3, in f\n    g()\n'
    tail = f"Traceback (most recent call last):\n{frame}E: e\n"
    assert "frames of libraries left out: 1" in condense(Execution("t", "failed", 1.0, tail=tail), ["train.py"], count)


def test_the_prompts_ship_with_the_package() -> None:
    names = {entry.name for entry in (files("ftagent.agents") / "prompts").iterdir()}
    assert names == {f"{name}.jinja" for name in NAMES}


def test_the_page_about_prompts_names_every_variable_and_template() -> None:
    page = (Path(__file__).parents[3] / "docs/prompts.md").read_text()
    table = page.partition("| variable |")[2].partition("\n\n")[0]
    first = "".join(line.split("|")[1] for line in table.splitlines()[2:])
    assert set(re.findall(r"`(\w+)`", first)) == VARIABLES
    for name in NAMES:
        assert f"`{name}`" in page
