"""The checks of the conformance suite: code that wants more than it was given; `docs/security.md` has their results."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ftagent.core.types import Resources, Stage
from ftagent.core.workspace import Workspace
from ftagent.environments.conformance_bench import Bench, Check, expect
from ftagent.environments.ending import FROM_OUTSIDE

LIMIT = Resources(memory_mb=300)
LOG_BOUND = 32 * 1024 * 1024
NOT_FATAL = {signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH,
             signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU}  # fmt: skip


async def _every_signal(bench: Bench) -> None:
    fatal = [number for number in range(1, 32) if number not in NOT_FATAL]
    fatal += [signal.SIGRTMIN, signal.SIGRTMAX]
    gate = asyncio.Semaphore(4)

    async def end_by(number: int) -> None:
        # A shell: Python ignores some signals, and those that it ignores stay ignored in what it executes.
        stage = Stage("check", "debug", ("sh", "-c", f"kill -{number} $$; sleep 5"), time_limit=30.0)
        async with gate:
            done = await bench.environment.execute(stage, bench.workspace, print, bench.folder / f"{number}.log")
        wanted = "killed" if number in FROM_OUTSIDE else "failed"
        expect((done.end, done.signal, done.exit_code) == (wanted, number, 128 + number), (number, done))

    await asyncio.gather(*map(end_by, fatal))


async def _stopped(bench: Bench) -> None:
    done = await bench.python("import os, signal; os.kill(os.getpid(), signal.SIGSTOP)", time_limit=1.0)
    expect(done.end == "timed_out" and done.seconds < 20, done)


# Twice forked, in a session of its own, deaf to every signal, holding both streams of output open.
DAEMON = """
import os, signal, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for number in range(1, 65):
            try:
                signal.signal(number, signal.SIG_IGN)
            except (OSError, ValueError):
                pass
        while True:
            with open("beat", "a") as file:
                file.write("x")
            time.sleep(0.02)
    os._exit(0)
while not os.path.exists("beat"):
    time.sleep(0.01)
print("main over", flush=True)
"""


async def _daemon(bench: Bench) -> None:
    began = time.monotonic()
    done = await bench.python(DAEMON, time_limit=30.0)
    expect(done.end == "ok" and bench.lines == ["main over"], (done, bench.lines))
    expect(time.monotonic() - began < 15, "waited for the daemon")
    before = bench.beats()
    await asyncio.sleep(0.3)
    expect(bench.beats() == before > 0, "the daemon still lives")


async def _flood(bench: Bench) -> None:
    done = await bench.python("import os\nwhile True: os.write(1, b'spam and eggs ' * 5000)", time_limit=1.5)
    size = bench.log.stat().st_size
    expect(done.end == "timed_out" and size < LOG_BOUND, (done, size))


async def _many_hogs(bench: Bench) -> None:
    script = """
import os, time
for number in range(8):
    if os.fork() == 0:
        block = b"x" * (100 << 20)
        time.sleep(2)
        open(f"lived-{number}", "w").close()
        os._exit(0)
while True:
    try:
        os.wait()
    except ChildProcessError:
        break
"""
    done = await bench.python(script, resources=LIMIT, time_limit=30.0)
    lived = len(list(bench.workspace.glob("lived-*")))
    expect(done.end == "out_of_memory" and lived < 4, (done, lived))


async def _memory_in_files(bench: Bench) -> None:
    bench.sealed_only()
    script = """
import os
for folder in ("/tmp", "/dev/shm"):
    taken = 0
    try:
        with open(os.path.join(folder, "hog"), "wb", buffering=0) as file:
            while taken < 1000:
                taken += file.write(bytes(1 << 20)) >> 20
    except OSError:
        pass
    print(folder, taken, flush=True)
    if taken:
        os.unlink(os.path.join(folder, "hog"))
"""
    done = await bench.python(script, resources=LIMIT, time_limit=60.0)
    held = all(int(line.split()[1]) <= 300 for line in bench.lines)
    expect(done.end in ("ok", "out_of_memory") and held, (done, bench.lines))


async def _other_processes(bench: Bench) -> None:
    bench.sealed_only()
    token = f"bystander-{secrets.token_hex(8)}"
    # An argument, a variable and an open file that only somebody outside has.
    command = [sys.executable, "-c", "import time; time.sleep(120)", token]
    with subprocess.Popen(command, env={**os.environ, "TOKEN": token}) as bystander:  # noqa: ASYNC220
        try:
            script = f"""
import glob, os, signal
wanted = {token[::-1]!r}[::-1].encode()  # written backwards, as our own arguments hold this script
for path in glob.glob("/proc/[0-9]*/cmdline") + glob.glob("/proc/[0-9]*/environ"):
    try:
        text = open(path, "rb").read()
    except OSError:
        continue
    if wanted in text:
        print("seen", path)
for number in (signal.SIGTERM, signal.SIGKILL):
    try:
        os.kill({bystander.pid}, number)
    except OSError:
        pass
"""
            done = await bench.python(script)
            await asyncio.sleep(0.1)
            expect(bystander.poll() is None, "a process of the host was killed")
            expect(done.end in ("ok", "killed") and bench.lines == [], (done, bench.lines))
        finally:
            bystander.kill()


async def _secrets_of_the_project(bench: Bench) -> None:
    bench.sealed_only()
    token = f"secret-{secrets.token_hex(8)}"
    other = bench.folder / "other" / "workspaces" / "Loop_0"
    other.mkdir(parents=True)
    places = [bench.folder / ".env", other / "model.txt", bench.folder / "journal.jsonl"]
    for place in places:
        place.write_text(token)
    script = f"""
import glob, os
names = {[str(place) for place in places]!r} + ["../.env", "../journal.jsonl"]
names += ["/proc/%s/%s%s" % (pid, root, name) for name in names[:3] for root in ("root", "cwd")
          for pid in os.listdir("/proc") if pid.isdigit()]
names += ["/proc/%s/cwd/../.env" % pid for pid in os.listdir("/proc") if pid.isdigit()]
for name in names:
    try:
        if {token!r} in open(name, errors="replace").read():
            print(name)
    except OSError:
        pass
"""
    done = await bench.python(script)
    expect(done.end == "ok" and bench.lines == [], (done, bench.lines))


async def _sockets_of_the_host(bench: Bench) -> None:
    bench.sealed_only()
    name = f"ftagent-{secrets.token_hex(8)}"
    # A path of a socket has at most 107 bytes.
    path = Path(tempfile.mkdtemp(prefix="ftagent-"), "bus")
    with socket.socket(socket.AF_UNIX) as one, socket.socket(socket.AF_UNIX) as two:
        one.bind(str(path))
        two.bind(f"\0{name}")
        one.listen()
        two.listen()
        script = f"""
import socket
for address in ({str(path)!r}, "\\0" + {name!r}):
    try:
        socket.socket(socket.AF_UNIX).connect(address)
        print("connected")
    except OSError:
        pass
"""
        done = await bench.python(script)
    shutil.rmtree(path.parent)
    expect(done.end == "ok" and bench.lines == [], (done, bench.lines))


async def _links_out(bench: Bench) -> None:
    outside = bench.folder / "outside"
    outside.mkdir()
    (outside / "file").write_text("kept")
    script = f"""
import os
os.symlink({str(outside)!r}, "folder")
os.symlink({str(outside / "file")!r}, "predictions.jsonl")
for name in ("folder/new", "folder/file", "predictions.jsonl"):
    try:
        open(name, "w").write("changed")
    except OSError:
        pass
"""
    await bench.python(script)
    copy = Workspace(bench.workspace).collect(".", bench.folder / "copy")
    expect({"folder", "predictions.jsonl"} <= set(copy.left_out), copy)
    expect(not (bench.folder / "copy" / "predictions.jsonl").exists(), "a link was collected")
    if bench.environment.sealed:
        expect((outside / "file").read_text() == "kept" and not (outside / "new").exists(), "written through a link")


async def _no_privileges(bench: Bench) -> None:
    bench.sealed_only()
    script = """
import ctypes, os
status = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines())
print(int(status["CapEff"], 16), int(status["CapPrm"], 16), status["NoNewPrivs"].strip(), os.getuid() == 0)
libc = ctypes.CDLL(None, use_errno=True)
for act in (lambda: libc.mount(b"none", b"/tmp", b"tmpfs", 0, None), lambda: libc.umount2(b"/proc", 2),
            lambda: libc.sethostname(b"mine", 4), lambda: libc.chroot(b"/tmp"), lambda: os.mknod("null", 0o20666, 259)):
    try:
        print("done" if act() in (0, None) else "refused")
    except OSError:
        print("refused")
"""
    done = await bench.python(script)
    expect(done.end == "ok" and bench.lines == ["0 0 1 False"] + ["refused"] * 5, (done, bench.lines))


async def _no_namespaces(bench: Bench) -> None:
    bench.sealed_only()
    script = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
print("made" if libc.unshare(0x10000000) == 0 else "refused")
"""
    done = await bench.python(script)
    expect(done.end == "ok" and bench.lines == ["refused"], (done, bench.lines))


async def _hundred_thousand_files(bench: Bench) -> None:
    script = """
import os
for folder in range(100):
    os.mkdir(f"d{folder}")
    for number in range(1000):
        os.close(os.open(f"d{folder}/{number}", os.O_CREAT | os.O_WRONLY))
"""
    done = await bench.python(script, outputs=("d99/999",), time_limit=240.0)
    expect(done.end == "ok", done)
    began = time.monotonic()
    done = await bench.python("import os; print(sum(len(files) for _, _, files in os.walk('.')))", outputs=("d0/0",))
    expect(done.end == "ok" and int(bench.lines[-1]) >= 100_000, (done, bench.lines))
    expect(time.monotonic() - began < 60, "what a workspace holds slows its commands down")


async def _unreadable_output(bench: Bench) -> None:
    script = "import os; os.mkdir('model'); open('model/weights', 'w'); os.chmod('model', 0)"
    done = await bench.python(script, outputs=("model",))
    expect(done.end in ("ok", "failed"), done)
    done = await bench.python("import os; os.chmod('model', 0o755)")
    expect(done.end in ("ok", "failed") and bench.workspace.is_dir(), done)


HOSTILE_CHECKS = (
    Check("every_signal", (), "an end by any signal is told as what it is", _every_signal),
    Check("stopped", (8,), "a command that stops itself is ended at its time limit", _stopped),
    Check("daemon", (8, 9), "a daemon that ignores all signals and holds the output ends with its command", _daemon),
    Check("flood", (10,), "output without end is cut, and the time limit holds all the same", _flood),
    Check("many_hogs", (11,), "the memory limit holds for all processes of a command together", _many_hogs),
    Check("memory_in_files", (11,), "files in memory (/tmp, /dev/shm) are bounded like memory", _memory_in_files),
    Check("other_processes", (14, 15), "processes of the host can be neither seen nor ended", _other_processes),
    Check("project_secrets", (15, 19), "`.env`, the journal and other workspaces cannot be read",
          _secrets_of_the_project),
    Check("host_sockets", (13,), "sockets of the host (desktop bus, display, engine) cannot be reached",
          _sockets_of_the_host),
    Check("links_out", (18,), "links out of the workspace lead nowhere and are not collected", _links_out),
    Check("no_privileges", (29,), "no capability, no way to gain one, not root", _no_privileges),
    Check("no_namespaces", (), "no user namespace can be made, in which a command would be root", _no_namespaces),
    Check("hundred_thousand_files", (), "100,000 files in a workspace harm nobody", _hundred_thousand_files),
    Check("unreadable_output", (), "a folder without permissions harms nobody", _unreadable_output),
)  # fmt: skip
