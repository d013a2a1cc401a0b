"""The checks of the conformance suite: which files and hosts a command sees, and what it leaves."""

from __future__ import annotations

import os
import secrets
import socket
from pathlib import Path

from ftagent.core.errors import EnvironmentUnavailable
from ftagent.core.types import Mount
from ftagent.core.workspace import Workspace
from ftagent.environments.conformance_bench import Bench, Check, CheckFailed, expect


def _input(bench: Bench) -> Mount:
    folder = bench.folder / "an input"
    folder.mkdir()
    (folder / "rows.txt").write_text("questions")
    return Mount("train-data", str(folder))


READ_INPUT = "import os, pathlib; folder = pathlib.Path(os.environ['FTAGENT_INPUT_TRAIN_DATA'])\n"


async def _inputs(bench: Bench) -> None:
    done = await bench.python(READ_INPUT + "print((folder / 'rows.txt').read_text())", mounts=(_input(bench),))
    expect(done.end == "ok" and bench.lines == ["questions"], (done, bench.lines))


async def _inputs_read_only(bench: Bench) -> None:
    bench.sealed_only()
    script = """
for act in (lambda: (folder / "rows.txt").write_text("x"), lambda: (folder / "new").touch(),
            lambda: (folder / "rows.txt").unlink(), lambda: (folder / "rows.txt").chmod(0o777)):
    try:
        act()
        print("written")
    except OSError:
        pass
"""
    mount = _input(bench)
    done = await bench.python(READ_INPUT + script, mounts=(mount,))
    rows = Path(mount.source, "rows.txt")
    expect(done.end == "ok" and bench.lines == [], (done, bench.lines))
    expect(Workspace(rows.parent).read("rows.txt") == b"questions" and not (rows.parent / "new").exists(), "changed")


async def _input_missing(bench: Bench) -> None:
    try:
        done = await bench.python("print()", mounts=(Mount("gone", str(bench.folder / "gone")),))
    except EnvironmentUnavailable as error:
        expect("gone" in str(error), error)
        return
    raise CheckFailed(f"a missing input was blamed on the command: {done}")


async def _no_network(bench: Bench) -> None:
    bench.sealed_only()
    with socket.create_server(("127.0.0.1", 0)) as server:
        script = f"""
import socket
for act in (lambda: socket.create_connection(("127.0.0.1", {server.getsockname()[1]}), 2),
            lambda: socket.create_connection(("1.1.1.1", 53), 2),
            lambda: socket.getaddrinfo("example.com", 80)):
    try:
        act()
        print("connected")
    except OSError as error:
        print("refused")
"""
        done = await bench.python(script)
    expect(done.end == "ok" and bench.lines == ["refused"] * 3, (done, bench.lines))


async def _own_loopback(bench: Bench) -> None:
    script = """
import socket
with socket.create_server(("127.0.0.1", 0)) as server:
    socket.create_connection(server.getsockname(), 2).close()
print(socket.gethostbyname("localhost"))
"""
    done = await bench.python(script)
    expect(done.end == "ok" and bench.lines == ["127.0.0.1"], (done, bench.lines))


async def _answers(bench: Bench) -> None:
    bench.sealed_only()
    token = f"answer-{secrets.token_hex(8)}"
    hidden = bench.folder / "answers"
    hidden.mkdir()
    (hidden / f"{token}.jsonl").write_text(token)
    (Path.home() / f".{token}").write_text(token)
    script = f"""
import os, sys
skipped = ("/proc", "/sys", "/usr", sys.prefix, sys.base_prefix)
for folder, below, names in os.walk("/"):
    below[:] = [name for name in below if os.path.join(folder, name) not in skipped]
    found = [name for name in names if "answer-" in name]
    if found:
        print(folder, found)
for path in ({str(hidden)!r}, {str(Path.home())!r}, "/proc/1/root{hidden}", "/proc/1/cwd{hidden}"):
    try:
        if any("answer-" in name for name in os.listdir(path)):
            print(path)
    except OSError:
        pass
"""
    try:
        done = await bench.python(script)
    finally:
        (Path.home() / f".{token}").unlink()
    expect(done.end == "ok" and bench.lines == [], (done, bench.lines))


def _holding(folders: list[str], name: str) -> list[str]:
    return [folder for folder in folders if os.path.lexists(f"{folder}/{name}")]


async def _system_read_only(bench: Bench) -> None:
    bench.sealed_only()
    name = f"canary-{secrets.token_hex(8)}"
    folders = ["/", "/usr", "/etc", "/usr/bin", "/tmp", "/dev/shm", str(Path.home()), str(bench.folder)]
    script = f"""
import os, sys
for folder in {folders!r} + [sys.prefix]:
    try:
        open(os.path.join(folder, {name!r}), "w").close()
    except OSError:
        continue
    if folder in ("/", "/usr", "/etc", "/usr/bin", sys.prefix):
        print(folder)
for folder in (".", os.environ["HOME"], os.environ["TMPDIR"]):
    open(os.path.join(folder, "mine"), "w").close()
"""
    done = await bench.python(script)
    reached = _holding(folders, name)
    expect(done.end == "ok" and bench.lines == [] and reached == [], (done, bench.lines, reached))


async def _kernel_settings(bench: Bench) -> None:
    bench.sealed_only()
    # Of a device that hides a file nothing is changed; everybody may ask to be told of pressure.
    script = """
import os, stat
for folder, folders, files in os.walk("/proc"):
    if folder == "/proc":
        folders[:] = [name for name in folders if not name.isdigit() and name != "pressure"]
    for name in files:
        try:
            file = os.open(os.path.join(folder, name), os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            continue
        if stat.S_ISREG(os.fstat(file).st_mode):
            print(os.path.join(folder, name))
        os.close(file)
open("/dev/null", "w").write("devices work")
"""
    done = await bench.python(script)
    expect(done.end == "ok" and bench.lines == [], (done.end, bench.lines[:9]))


async def _outputs_missing(bench: Bench) -> None:
    done = await bench.python("open('made', 'w')", outputs=("made", "model/weights"))
    expect(done.end == "failed" and "model/weights" in done.detail and "made," not in done.detail, done)
    done = await bench.python("import os; os.makedirs('model'); open('model/weights', 'w')", outputs=("model/weights",))
    expect(done.end == "ok", done)


async def _output_link(bench: Bench) -> None:
    done = await bench.python("import os; os.symlink('/etc/passwd', 'out')", outputs=("out",))
    expect(done.end == "failed" and "out" in done.detail, done)


async def _stage_files(bench: Bench) -> None:
    done = await bench.python("print(open('questions/a.json').read())", files={"questions/a.json": "[1]"})
    expect(done.end == "ok" and bench.lines == ["[1]"], (done, bench.lines))
    outside = bench.folder / "outside"
    outside.write_text("kept")
    (bench.workspace / "link").symlink_to(outside)
    done = await bench.python("pass", files={"link": "overwritten"})
    expect(done.end == "failed" and outside.read_text() == "kept", done)


async def _odd_file_names(bench: Bench) -> None:
    script = r"open('new\nline', 'w'); open('-rf', 'w'); open(b'\xff\xfe', 'w'); open('quote\'\"', 'w')"
    done = await bench.python(script, outputs=("new\nline",))
    collected = Workspace(bench.workspace).collect(".", bench.folder / "copy")
    expect(done.end == "ok" and {"new\nline", "-rf", "\udcff\udcfe"} <= set(collected.files), collected)


async def _many_files(bench: Bench) -> None:
    done = await bench.python("for number in range(2000): open(f'f{number}', 'w')", outputs=("f1999",))
    expect(done.end == "ok" and len(list(bench.workspace.glob("f*"))) == 2000, done)


async def _deletes_workspace(bench: Bench) -> None:
    done = await bench.python("import shutil, os; shutil.rmtree(os.getcwd(), ignore_errors=True); print('gone')")
    expect(done.end == "ok" and bench.lines == ["gone"], done)
    bench.workspace.mkdir(exist_ok=True)
    done = await bench.python("import shutil, os; shutil.rmtree(os.getcwd(), ignore_errors=True)", outputs=("x",))
    expect(done.end == "failed", done)


FILE_CHECKS = (
    Check("inputs", (), "a declared input is found through its variable", _inputs),
    Check("inputs_read_only", (20,), "a declared input cannot be changed", _inputs_read_only),
    Check("input_missing", (31,), "a missing input is not blamed on the command", _input_missing),
    Check("no_network", (13,), "no network where none was declared", _no_network),
    Check("own_loopback", (), "a command can talk to itself over loopback", _own_loopback),
    Check("answers", (19,), "files of the host outside of the view cannot be found", _answers),
    Check("system_read_only", (19, 20), "only the workspace and temporary folders can be written", _system_read_only),
    Check("kernel_settings", (19,), "settings of the kernel cannot be changed", _kernel_settings),
    Check("outputs_missing", (), "a declared output that is missing fails the stage", _outputs_missing),
    Check("output_link", (18,), "a symlink is no output", _output_link),
    Check("stage_files", (17, 18), "a stage's files are written, and never through a link", _stage_files),
    Check("odd_file_names", (17,), "odd file names survive", _odd_file_names),
    Check("many_files", (), "thousands of files are no problem", _many_files),
    Check("deletes_workspace", (), "a command may delete its own workspace", _deletes_workspace),
)
