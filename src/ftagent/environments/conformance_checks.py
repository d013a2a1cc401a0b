"""The checks of the conformance suite: what happens to a command. Scripts are Python, so that they run anywhere."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from pathlib import Path

from ftagent.core.types import Resources, Stage
from ftagent.environments.conformance_bench import Bench, Check, CheckFailed, NotApplicable, expect

LOG_BOUND = 32 * 1024 * 1024
# Starts a child in its own session that ignores every signal that can be ignored and proves that it lives.
BEAT = """
import os, subprocess, sys, time
script = "trap '' TERM INT HUP QUIT USR1; while :; do echo x >> beat; sleep 0.02; done"
subprocess.Popen(["sh", "-c", script], start_new_session=True)
while not os.path.exists("beat"):
    time.sleep(0.01)
"""


async def _expect_silence(bench: Bench) -> None:
    before = bench.beats()
    expect(before > 0, "the child never started")
    await asyncio.sleep(0.3)
    expect(bench.beats() == before, "a child still lives")


async def _exit_codes(bench: Bench) -> None:
    done = await bench.python("print('hello')")
    expect((done.end, done.exit_code, done.ok) == ("ok", 0, True), done)
    expect(bench.lines == ["hello"] and done.tail == "hello\n" and bench.log.read_text() == "hello\n", done)
    expect(0 < done.seconds < 60, done.seconds)
    done = await bench.python("import sys; sys.exit(3)")
    expect((done.end, done.exit_code, done.signal) == ("failed", 3, None), done)


async def _command_not_found(bench: Bench) -> None:
    stage = Stage("check", "debug", ("no-such-command-anywhere",))
    done = await bench.environment.execute(stage, bench.workspace, bench.lines.append, bench.log)
    expect(done.end == "failed" and "no-such-command-anywhere" in done.detail, done)


async def _signals(bench: Bench) -> None:
    done = await bench.python("import os; os.kill(os.getpid(), 9)")
    expect((done.end, done.signal) == ("killed", 9), done)
    done = await bench.python("import os; os.kill(os.getpid(), 11)")
    expect((done.end, done.signal) == ("failed", 11), done)


async def _time_limit(bench: Bench) -> None:
    began = time.monotonic()
    done = await bench.python("import time; print('up'); time.sleep(600)", time_limit=1.0)
    expect(done.end == "timed_out" and "1 s" in done.detail, done)
    expect(time.monotonic() - began < 20, "ended late")


async def _time_limit_tree(bench: Bench) -> None:
    done = await bench.python(BEAT + "time.sleep(600)", time_limit=1.5)
    expect(done.end == "timed_out", done)
    await _expect_silence(bench)


async def _leftovers(bench: Bench) -> None:
    done = await bench.python(BEAT + "print('over')")
    expect(done.end == "ok" and "over" in bench.lines, done)
    await _expect_silence(bench)


async def _stdout_holder(bench: Bench) -> None:
    began = time.monotonic()
    script = "import subprocess; subprocess.Popen(['sleep', '600'], start_new_session=True); print('done')"
    done = await bench.python(script, time_limit=30.0)
    expect(done.end == "ok" and bench.lines == ["done"], (done, bench.lines))
    expect(time.monotonic() - began < 15, "waited for a grandchild")


async def _endless_output(bench: Bench) -> None:
    script = """
import sys
sys.stdout.write("first\\n")
for number in range(700):
    sys.stdout.write(f"{number} " + "x" * 99_000 + "\\n")
sys.stdout.write("last\\n")
"""
    done = await bench.python(script)
    log = bench.log.read_bytes()
    expect(done.end == "ok" and len(log) < LOG_BOUND, (done, len(log)))
    expect(log.startswith(b"first\n0 x") and log.endswith(b"x\nlast\n"), "head or tail is missing")
    expect(b"bytes of output were dropped" in log, "nothing says that output was dropped")
    expect(bench.lines[0] == "first" and bench.lines[-1] == "last", "the listener missed the ends")


async def _long_line(bench: Bench) -> None:
    done = await bench.python("import sys; sys.stdout.write('x' * 3_000_000); print(); print('next')")
    expect(done.end == "ok" and len(done.tail.encode()) <= 4096, done)
    expect(max(map(len, bench.lines)) < 66_000 and bench.lines[-1] == "next", [len(line) for line in bench.lines])


async def _binary_output(bench: Bench) -> None:
    script = r"import sys; sys.stdout.buffer.write(b'a\xff\xfe\x00b\n' + b'10%\r100%\r\n')"
    done = await bench.python(script)
    expect(done.end == "ok" and bench.lines == ["a\ufffd\ufffd\x00b", "100%"], (done, bench.lines))


async def _live_lines(bench: Bench) -> None:
    def answer(line: str) -> None:
        bench.lines.append(line)
        if line == "ready":
            (bench.workspace / "go").touch()

    script = """
import os, time
print("ready")
while not os.path.exists("go"):
    time.sleep(0.02)
print("gone")
"""
    done = await bench.python(script, on_line=answer, time_limit=20.0)
    expect(done.end == "ok" and bench.lines == ["ready", "gone"], (done, bench.lines))


async def _no_stdin(bench: Bench) -> None:
    done = await bench.python("import sys; print(repr(sys.stdin.read()))", time_limit=20.0)
    expect(done.end == "ok" and bench.lines == ["''"], (done, bench.lines))


GRAB = "import time; block = bytearray(1500 << 20); print('got it'); time.sleep(5)"
LIMIT = Resources(memory_mb=300)


async def _out_of_memory(bench: Bench) -> None:
    done = await bench.python(GRAB, resources=LIMIT)
    expect(done.end == "out_of_memory" and "300 MB" in done.detail, done)
    expect("got it" not in bench.lines, "1500 MB were granted")


async def _child_out_of_memory(bench: Bench) -> None:
    script = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {GRAB!r}]); sys.exit(0)"
    done = await bench.python(script, resources=LIMIT)
    expect(done.end == "out_of_memory", done)


async def _exit_137(bench: Bench) -> None:
    done = await bench.python("import sys; sys.exit(137)", resources=LIMIT)
    expect(done.end == "killed", done)


async def _peak_memory(bench: Bench) -> None:
    done = await bench.python("block = b'x' * (200 << 20); import time; time.sleep(0.5)")
    expect(done.peak_mb is not None and 190 < done.peak_mb < 400, done)


async def _fork_bomb(bench: Bench) -> None:
    script = """
import os, time
count = 0
try:
    while count < 3000:
        if os.fork() == 0:
            time.sleep(600)
        count += 1
except OSError:
    pass
print("forked", count)
"""
    done = await bench.python(script, resources=Resources(processes=40), time_limit=30.0)
    forked = int(bench.lines[0].split()[1]) if bench.lines else 0
    expect(forked <= 40 and (forked > 0 or done.end == "killed"), (done, forked))


async def _variables(bench: Bench) -> None:
    names = {"FTAGENT_CANARY_API_KEY": "canary-in-environment", "OPENAI_API_KEY": "canary-in-environment"}
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(names)
    script = """
import glob, os
print(sorted(os.environ.items()))
for path in glob.glob("/proc/[0-9]*/environ") + glob.glob("/proc/[0-9]*/cmdline"):
    try:
        print(open(path, errors="replace").read())
    except OSError:
        pass
"""
    try:
        done = await bench.python(script, variables={"WANTED": "value"})
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
    text = bench.log.read_text(errors="replace")
    own = text if bench.environment.sealed else bench.lines[0]
    expect(done.end == "ok" and "'WANTED', 'value'" in text, done)
    expect("canary-in-environment" not in own, "a variable of the host is visible")
    expect(f"'HOME', '{Path.home()}'" not in text and "'HF_HUB_OFFLINE', '1'" in text, text)


async def _cancel(bench: Bench) -> None:
    beating = asyncio.Event()
    script = BEAT + "print('beats'); time.sleep(600)"
    task = asyncio.ensure_future(bench.python(script, on_line=lambda _: beating.set(), time_limit=20.0))
    await asyncio.wait([task, asyncio.ensure_future(beating.wait())], return_when=asyncio.FIRST_COMPLETED)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        done = await task
        raise CheckFailed(f"cancellation was swallowed: {done}")
    await _expect_silence(bench)


async def _parallel(bench: Bench) -> None:
    script = "import time; print('in'); time.sleep(0.2)"
    stage = Stage("check", "debug", ("python", "-c", script), time_limit=60.0)
    runs = [
        bench.environment.execute(stage, bench.workspace, bench.lines.append, bench.folder / f"{number}.log")
        for number in range(4)
    ]
    ended = await asyncio.gather(*runs)
    expect([done.end for done in ended] == ["ok"] * 4 and bench.lines == ["in"] * 4, (ended, bench.lines))


async def _modules(bench: Bench) -> None:
    names = await bench.environment.modules()
    if not names:
        raise NotApplicable("this environment does not tell")
    expect({"json", "os", "sys"} <= names and "no_such_module_anywhere" not in names, sorted(names)[:20])
    began = time.monotonic()
    expect(await bench.environment.modules() == names, "another answer to the same question")
    expect(time.monotonic() - began < 0.1, "the answer is not kept")
    absent = [name for name in ("torch", "transformers", "numpy", "yaml", "ftagent") if name not in names]
    script = f"import importlib.util\nprint([n for n in {absent!r} if importlib.util.find_spec(n)])"
    await bench.python(script)
    expect(bench.lines == ["[]"], f"can be imported and is not told: {bench.lines}")


COMMAND_CHECKS = (
    Check("exit_codes", (), "exit codes, output and duration are told", _exit_codes),
    Check("command_not_found", (), "a missing command is the code's failure", _command_not_found),
    Check("signals", (), "a kill and a crash are told apart", _signals),
    Check("time_limit", (8,), "a command is ended at its time limit", _time_limit),
    Check("time_limit_tree", (8,), "a setsid child that traps signals dies at the limit", _time_limit_tree),
    Check("leftovers", (8,), "what a command leaves running is ended with it", _leftovers),
    Check("stdout_holder", (9,), "a grandchild that holds stdout does not hang us", _stdout_holder),
    Check("endless_output", (10,), "the log is bounded and keeps head and tail", _endless_output),
    Check("long_line", (10,), "a line without end is cut", _long_line),
    Check("binary_output", (10,), "output that is no UTF-8 is read, redrawn lines are told once", _binary_output),
    Check("live_lines", (), "lines arrive while the command runs", _live_lines),
    Check("no_stdin", (), "standard input is empty", _no_stdin),
    Check("out_of_memory", (11,), "the memory limit ends a command as out_of_memory", _out_of_memory),
    Check("child_out_of_memory", (11,), "a child's end for memory counts though the command exits with 0",
          _child_out_of_memory),
    Check("exit_137", (11,), "exit code 137 alone is not out_of_memory", _exit_137),
    Check("peak_memory", (), "peak memory is measured", _peak_memory),
    Check("fork_bomb", (12,), "processes are bounded", _fork_bomb),
    Check("variables", (14, 15), "only allow-listed variables are visible", _variables),
    Check("cancel", (8,), "cancelling ends the whole tree before it propagates", _cancel),
    Check("parallel", (), "commands run at the same time", _parallel),
    Check("modules", (), "what a command can import is told", _modules),
)  # fmt: skip
