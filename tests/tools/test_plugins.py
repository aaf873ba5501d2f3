"""Plugins: what a file of a user's becomes, and that none of them can harm the agent."""

from __future__ import annotations

import io
import stat
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest

from ds4_agent.tools.plugins import (
    Plugins,
    installed_entry_points,
    load_files,
    load_plugins,
    plugin_files,
)
from ds4_agent.tools.registry import RESULT_LIMIT
from ds4_agent.tools.types import ToolContext, ToolResult


@pytest.fixture
def python_tool(write: Callable[..., Path]) -> Callable[..., Path]:
    """A plugin `probe` with this body."""

    def make(body: str, head: str = "", signature: str = "def probe(word: str = ''):") -> Path:
        lines = [head, "from ds4_agent import tool", '@tool(effect="read")', signature]
        lines += ['    """Probe."""', *(f"    {line}" for line in dedent(body).splitlines())]
        return write("probe.py", "\n".join(lines) + "\n")

    return make


def only_problem(loaded: Plugins) -> str:
    (problem,) = loaded.problems
    line = str(problem)
    assert "\n" not in line
    return line


# What is found


def test_no_directory_is_no_plugin_and_no_problem(tmp_path: Path, context: ToolContext) -> None:
    assert load_plugins([tmp_path / "none"], [], context.processes, []) == Plugins()


def test_functions_with_the_decorator_are_tools_sorted_by_name(write, load) -> None:
    head = "from __future__ import annotations\nfrom ds4_agent import tool\n"
    body = '@tool\ndef {0}(a: int):\n    """Do {0}."""\n    return a\n'
    path = write("some.py", head + body.format("zoo") + body.format("ant") + "def plain(): pass\n")
    loaded = load()
    assert [(p.tool.name, p.tool.effect, p.origin) for p in loaded.found] == [
        ("ant", "execute", str(path)),
        ("zoo", "execute", str(path)),
    ]
    assert loaded.problems == ()


def test_tests_private_modules_and_other_files_are_no_plugins(write, folder: Path) -> None:
    for name in ("test_a.py", "a_test.py", "conftest.py", "_shared.py", ".hidden", "old~"):
        write(name, "raise SystemExit")
    (folder / "README").write_text("not executable")
    (folder / "sub.py").mkdir()
    assert plugin_files(folder) == []


def test_an_imported_tool_is_not_the_files_own(write, load) -> None:
    write("borrowed.py", "from ds4_agent.tools.files import write\n")
    assert "no function with @tool" in only_problem(load())


def test_loading_leaves_nothing_beside_the_file(python_tool, load, folder: Path) -> None:
    python_tool("return word")
    assert load().found
    assert [path.name for path in folder.iterdir()] == ["probe.py"]


def test_a_file_shadows_no_module_whatever_its_name(write, load) -> None:
    write("json.py", 'from ds4_agent import tool\n@tool\ndef own():\n    """Own."""\n')
    before = sys.modules.get("json")
    assert [plugin.tool.name for plugin in load().found] == ["own"]
    assert sys.modules.get("json") is before


# What is wrong with a file is one line, and the others still load

HEAD = "from ds4_agent import tool\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x = 1\ndef f(:\n", ("SyntaxError", "line 2")),
        ("\n1 / 0\n", ("ZeroDivisionError", "line 2")),
        ("import no_such_module_x\n", ("no_such_module_x", "install it")),
        ("import sys\nsys.exit(3)\n", ("sys.exit(3)", "line 2")),
        ("raise KeyboardInterrupt\n", ("KeyboardInterrupt",)),
        ("raise BaseException('a\\nb')\n", ("a b",)),
        ("x = 1\n", ("no function with @tool",)),
        (HEAD + "@tool\ndef f(a: int): pass\n", ("docstring",)),
        (HEAD + "@tool\ndef f(a):\n    'F.'\n", ("parameter a needs a type hint",)),
        (HEAD + "@tool\ndef f(a: set):\n    'F.'\n", ("parameter a", "set")),
        (HEAD + "@tool(name='My Tool')\ndef f():\n    'F.'\n", ("'My Tool'", "small letters")),
        (HEAD + "@tool(effect='harm')\ndef f():\n    'F.'\n", ("'harm'", "read, edit, execute")),
        (HEAD + "@tool\ndef read():\n    'F.'\n", ("read is built in", "another name")),
        ("\0", ("broken.py",)),
        ("class E(Exception):\n    def __str__(self): 1 / 0\nraise E\n", ("line 3",)),
    ],
)
def test_a_broken_file_is_one_line_and_harms_no_other(
    write, load, text: str, words: tuple[str, ...]
) -> None:
    write("broken.py", text)
    write("good.py", HEAD + "@tool\ndef good():\n    'Good.'\n")
    loaded = load()
    assert [plugin.tool.name for plugin in loaded.found] == ["good"]
    line = only_problem(loaded)
    for word in ("broken.py", *words):
        assert word in line


def test_a_file_that_prints_is_heard_by_nobody_and_told(write, load, capsys) -> None:
    head = "import sys\nprint('\\x1b[2J hello')\nsys.stderr.write('there')\n"
    write("loud.py", head + HEAD + "@tool\ndef f():\n    'F.'\n")
    loaded = load()
    assert capsys.readouterr() == ("", "")
    assert "prints while it is loaded" in only_problem(loaded)
    assert [plugin.tool.name for plugin in loaded.found] == ["f"]


def test_a_file_that_never_finishes_loading_is_left(write, load, monkeypatch) -> None:
    monkeypatch.setattr("ds4_agent.tools.plugin_python.IMPORT_S", 0.2)
    write("slow.py", "import time\nwhile True: time.sleep(0.1)\n")
    began = time.monotonic()
    assert "not finished loading" in only_problem(load())
    assert time.monotonic() - began < 5


def test_a_broken_link_is_a_problem(folder: Path, load) -> None:
    (folder / "gone.py").symlink_to(folder / "nowhere")
    assert "cannot be read" in only_problem(load())


def test_of_two_tools_with_one_name_the_first_stays(write, load) -> None:
    for name in ("a.py", "b.py"):
        write(name, HEAD + "@tool\ndef same():\n    'Same.'\n")
    loaded = load()
    assert [plugin.origin.endswith("a.py") for plugin in loaded.found] == [True]
    assert "a.py" in only_problem(loaded)


# A call of a Python plugin


def test_a_plugin_runs_beside_the_built_in_tools(python_tool, call_plugin) -> None:
    python_tool("return {'said': word}")
    assert call_plugin("probe", word="hi") == ToolResult('{"said": "hi"}')


def test_a_plugin_may_be_given_the_context(python_tool, call_plugin, root: Path) -> None:
    python_tool(
        "return str(context.workspace.root)",
        "from ds4_agent.tools.types import ToolContext",
        "def probe(context: ToolContext):",
    )
    assert call_plugin("probe").content == str(root.resolve())


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("raise ValueError('no\\nluck')", "probe failed: ValueError: no luck (line 6)"),
        ("import sys; sys.exit('bye')", "probe failed: sys.exit(bye)"),
        ("raise KeyboardInterrupt", "probe failed: KeyboardInterrupt"),
        ("return probe(word)", "probe failed: RecursionError"),
        ("from ds4_agent.tools.types import ToolError; raise ToolError('not so')", "not so"),
        ("from ds4_agent.tools.types import ToolResult; return ToolResult(5)", "is no text"),
    ],
)
def test_what_a_plugin_raises_is_a_result(python_tool, call_plugin, body: str, words: str) -> None:
    python_tool(body)
    result = call_plugin("probe")
    assert result.is_error
    assert result.content.startswith(f"Error: {words}") or words in result.content
    assert "\n" not in result.content


PRINTS = {
    "def": "def probe(word: str = ''):",
    "async def": "async def probe(word: str = ''):",
}


@pytest.mark.parametrize("signature", PRINTS.values(), ids=PRINTS)
def test_what_a_plugin_prints_is_progress_and_never_on_the_screen(
    python_tool, call_plugin, context: ToolContext, capsys, signature: str
) -> None:
    heard: list[str] = []
    context.on_output = heard.append
    body = """\
        print("one \\x1b[31m")
        sys.stderr.write("two")
        sys.stdout.buffer.write(b"three")
        thread = threading.Thread(target=print, args=("four",))
        thread.start(); thread.join()
        return "result"
    """
    python_tool(body, "import sys, threading", signature)
    assert call_plugin("probe").content == "result"
    assert capsys.readouterr() == ("", "")
    assert "".join(heard) == "one \x1b[31m\ntwothreefour\n"


def test_what_is_printed_is_the_result_where_nothing_is_returned(python_tool, call_plugin) -> None:
    python_tool("print('counted 3')")
    assert call_plugin("probe").content.strip() == "counted 3"


@pytest.mark.parametrize(
    "body", ["return input()", "import sys; return sys.stdin.read() + str(sys.stdin.buffer.read())"]
)
def test_a_plugin_cannot_take_the_users_keys(
    python_tool, call_plugin, monkeypatch, body: str
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("secret"))
    python_tool(body)
    assert "secret" not in call_plugin("probe").content
    assert sys.stdin.read() == "secret"


def test_the_programs_own_prints_go_on_while_a_plugin_runs(
    python_tool, call_plugin, capsys
) -> None:
    head = "import threading\nstarted = threading.Event()\n"
    python_tool("started.set()\nimport time\ntime.sleep(0.2)\nprint('hidden')", head)
    agents = threading.Thread(target=lambda: (time.sleep(0.1), print("shown")), name="ds4-x")
    agents.start()
    call_plugin("probe")
    agents.join()
    assert capsys.readouterr().out == "shown\n"


def test_a_huge_result_is_bounded(python_tool, call_plugin) -> None:
    python_tool("return 'x' * 100_000_000")
    content = call_plugin("probe").content
    assert len(content) < RESULT_LIMIT + 200
    assert "100000000 bytes" in content


def test_a_flood_of_prints_is_bounded(python_tool, call_plugin, context: ToolContext) -> None:
    heard: list[str] = []
    context.on_output = heard.append
    python_tool("for _ in range(100): print('x' * 100_000)")
    assert len(call_plugin("probe").content) < 64 * 1024
    assert sum(map(len, heard)) < 128 * 1024
    assert "more is not shown" in heard[-1]


def test_a_hanging_plugin_is_left_behind_when_the_user_interrupts(
    python_tool, call_plugin, context: ToolContext, capsys
) -> None:
    python_tool("import time\nwhile True:\n    time.sleep(0.05)\n    print('still here')")
    threading.Timer(0.2, context.cancel.set).start()
    began = time.monotonic()
    result = call_plugin("probe")
    assert time.monotonic() - began < 5
    assert result.is_error
    assert "interrupted" in result.content
    time.sleep(0.3)
    assert capsys.readouterr() == ("", "")


def test_a_busy_loop_left_behind_does_not_stay(
    python_tool, call_plugin, context: ToolContext
) -> None:
    python_tool("while True:\n    try:\n        pass\n    except Exception:\n        pass")
    before = set(threading.enumerate())
    threading.Timer(0.2, context.cancel.set).start()
    assert "interrupted" in call_plugin("probe").content
    until = time.monotonic() + 20
    while {thread.name for thread in set(threading.enumerate()) - before} & {"ds4-plugin"}:
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_generators_steps_are_progress_and_its_end_comes_with_the_interrupt(
    python_tool, call_plugin, context: ToolContext
) -> None:
    python_tool("import time\nwhile True:\n    yield 'step'\n    time.sleep(0.01)")
    threading.Timer(0.2, context.cancel.set).start()
    assert call_plugin("probe").content == "Error: interrupted"


def test_a_classify_that_fails_counts_as_the_strongest_effect(write, load) -> None:
    head = "@tool(effect='edit', classify=lambda a: {'x': 'read'}[a['way']])\n"
    write("c.py", HEAD + head + "def c(way: str):\n    'C.'\n")
    (plugin,) = load().found
    assert plugin.tool.effect_of({"way": "x"}) == "read"
    assert plugin.tool.effect_of({"way": "y"}) == "edit"


# Entry points


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory on Python's path that holds an installed package with an entry point."""
    place = tmp_path / "site"
    info = place / "acme-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[ds4_agent.tools]\nacme = acme_tools_x\n")
    body = f'{HEAD}@tool\ndef acme():\n    "Acme."\n    return "ok"\n'
    (place / "acme_tools_x.py").write_text(body)
    monkeypatch.syspath_prepend(str(place))
    yield place
    sys.modules.pop("acme_tools_x", None)


def test_an_installed_package_brings_tools(package: Path, root: Path, context: ToolContext) -> None:
    loaded = load_plugins([], installed_entry_points(root), context.processes, [])
    assert [(p.tool.name, p.origin) for p in loaded.found] == [("acme", "entry point acme of acme")]


def test_metadata_lying_in_the_repository_is_not_an_installed_package(package: Path) -> None:
    names = [entry.name for entry in installed_entry_points(package.parent)]
    assert "acme" not in names


def test_a_broken_package_is_one_line(package: Path, root: Path, context: ToolContext) -> None:
    (package / "acme_tools_x.py").write_text("import sys\nsys.exit(1)\n")
    loaded = load_plugins([], installed_entry_points(root), context.processes, [])
    assert "entry point acme of acme: it ends the program" in only_problem(loaded)


def test_files_are_loaded_by_name_whatever_their_name(write, context: ToolContext) -> None:
    path = write("_draft.py", HEAD + "@tool\ndef draft():\n    'Draft.'\n")
    assert stat.S_ISREG(path.stat().st_mode)
    assert [p.tool.name for p in load_files([path], context.processes).found] == ["draft"]
