"""read and write: what they say, what they refuse, and that a write is all or nothing."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ds4_agent.tools import workspace as workspace_module
from ds4_agent.tools.process import Processes
from ds4_agent.tools.registry import builtin_tools, execute
from ds4_agent.tools.types import ToolContext
from ds4_agent.tools.workspace import Workspace


def test_read_shows_header_and_raw_lines(call, root: Path) -> None:
    (root / "src").mkdir()
    (root / "src/a.py").write_text("import os\n\n\tx = 1\n")
    assert call("read", path="./src/a.py").content == (
        "src/a.py, lines 1-3 of 3\nimport os\n\n\tx = 1"
    )


def test_read_says_where_to_continue(call, root: Path) -> None:
    (root / "a.txt").write_text("".join(f"{n}\n" for n in range(1, 1201)))
    text = call("read", path="a.txt").content
    assert text.splitlines()[0] == "a.txt, lines 1-500 of 1200; continue with start_line=501"
    assert text.splitlines()[-1] == "500"
    rest = call("read", path="a.txt", start_line=1199, max_lines=5).content
    assert rest == "a.txt, lines 1199-1200 of 1200\n1199\n1200"


def test_read_of_empty_file(call, root: Path) -> None:
    (root / "a.py").touch()
    assert call("read", path="a.py").content == "a.py is empty"


def test_read_of_missing_file_names_the_one_meant(call, root: Path) -> None:
    (root / "src").mkdir()
    (root / "src/client.py").write_text("x")
    missing = call("read", path="client.py")
    assert missing.is_error
    assert missing.content == "Error: client.py does not exist; did you mean src/client.py?"
    assert call("read", path="src/clint.py").content == (
        "Error: src/clint.py does not exist; did you mean src/client.py?"
    )
    assert call("read", path="zzz").content == "Error: zzz does not exist"


def test_read_past_the_end(call, root: Path) -> None:
    (root / "a.txt").write_text("1\n2\n")
    assert call("read", path="a.txt", start_line=9).content == (
        "Error: a.txt has 2 lines; start_line=9 is past it"
    )
    assert call("read", path="a.txt", start_line=0).is_error


def test_read_refuses_what_is_no_text_file(call, root: Path) -> None:
    (root / "logo.png").write_bytes(b"\x89PNG\0\0")
    os.mkfifo(root / "pipe")
    (root / "src").mkdir()
    assert call("read", path="logo.png").content == "Error: logo.png is a binary file (6 bytes)"
    assert call("read", path="pipe").content == "Error: pipe is a named pipe, not a file"
    assert call("read", path="src").content == "Error: src is a directory; use list"
    assert call("read", path=".").is_error


def test_read_refuses_a_file_too_large(call, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workspace_module, "READ_LIMIT", 1 << 20)
    with (root / "big").open("wb") as file:
        file.truncate((1 << 20) + 1)  # sparse: the size costs nothing
    assert "big is larger than 1 MiB" in call("read", path="big").content


def test_read_cuts_by_size_and_says_so(call, root: Path) -> None:
    (root / "wide.txt").write_text(("x" * 999 + "\n") * 300)
    first, *rest = call("read", path="wide.txt").content.splitlines()
    assert (
        first == f"wide.txt, lines 1-{len(rest)} of 300; continue with start_line={len(rest) + 1}"
    )
    (root / "min.js").write_text("y" * 200_000)
    text = call("read", path="min.js").content
    assert text.startswith("min.js, lines 1-1 of 1; line 1 has 200000 characters, its first 98304 ")


@pytest.mark.parametrize(
    ("data", "header", "line"),
    [
        (b"\xef\xbb\xbfcaf\xc3\xa9\n", "", "café"),
        ("x = 'é'\n".encode("utf-16"), " (utf-16-le)", "x = 'é'"),
        (b"caf\xe9\r\n", " (cp1252, CRLF line ends)", "café"),
        ("café ".encode() + b"\xff\n", " (1 bytes that are no UTF-8 as �)", "café �"),
    ],
)
def test_read_tells_encodings(call, root: Path, data: bytes, header: str, line: str) -> None:
    (root / "a.txt").write_bytes(data)
    assert call("read", path="a.txt").content == f"a.txt, lines 1-1 of 1{header}\n{line}"


def test_read_and_write_without_permission_are_one_line(tmp_path: Path) -> None:
    root = Path(tempfile.mkdtemp())  # not below tmp_path, which only root may enter
    (root / "a.txt").write_text("x")
    (root / "a.txt").chmod(0)
    root.chmod(0o555)
    context = ToolContext(Workspace(root), Processes())
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)
    try:
        read = execute(builtin_tools(), "read", {"path": "a.txt"}, context)
        written = execute(builtin_tools(), "write", {"path": "b", "content": "x"}, context)
    finally:
        if is_root:
            os.seteuid(0)
        shutil.rmtree(root)
    assert read.content == "Error: cannot read a.txt: permission denied"
    assert written.content == "Error: cannot write b: permission denied"


def test_write_creates_with_parents(call, root: Path) -> None:
    result = call("write", path="docs/new/notes.txt", content="hello worl\n")
    assert result.content == "Created docs/new/notes.txt (1 line, 11 bytes)"
    assert result.diff.startswith("--- /dev/null\n+++ b/docs/new/notes.txt\n")
    assert (root / "docs/new/notes.txt").read_bytes() == b"hello worl\n"


def test_write_is_byte_for_byte(call, root: Path) -> None:
    (root / "a.txt").write_bytes(b"a\r\nb\r\n")
    result = call("write", path="a.txt", content="one\ntwo\r\nthrée")
    assert result.content == "Overwrote a.txt (3 lines, 15 bytes)"
    assert (root / "a.txt").read_bytes() == "one\ntwo\r\nthrée".encode()


def test_write_refuses_to_replace_a_long_file_unread(call, root: Path) -> None:
    (root / "a.txt").write_text("x\n" * 80)
    assert call("write", path="a.txt", content="y").content.startswith("Error: a.txt exists (81")
    call("read", path="a.txt")
    assert call("write", path="a.txt", content="y").content == "Overwrote a.txt (1 line, 1 byte)"


def test_write_refuses_after_a_change_by_others(call, root: Path) -> None:
    (root / "a.txt").write_text("mine\n")
    call("read", path="a.txt")
    (root / "a.txt").write_text("theirs\n")
    refused = call("write", path="a.txt", content="new")
    assert refused.content == (
        "Error: a.txt changed since it was read; read it again before replacing"
    )
    assert (root / "a.txt").read_text() == "theirs\n"


def test_write_keeps_mode_and_link(call, root: Path) -> None:
    (root / "real.sh").write_text("#!/bin/sh\n")
    (root / "real.sh").chmod(0o750)
    (root / "link.sh").symlink_to("real.sh")
    call("write", path="link.sh", content="#!/bin/bash\n")
    assert (root / "link.sh").is_symlink()
    assert (root / "real.sh").read_text() == "#!/bin/bash\n"
    assert (root / "real.sh").stat().st_mode & 0o777 == 0o750


def test_write_gives_new_files_the_users_umask(call, root: Path) -> None:
    before = os.umask(0o027)
    try:
        call("write", path="a.txt", content="x")
    finally:
        os.umask(before)
    assert (root / "a.txt").stat().st_mode & 0o777 == 0o640


def test_write_refuses_read_only_and_hard_linked_files(call, root: Path) -> None:
    (root / "a.txt").write_text("x")
    (root / "a.txt").chmod(0o444)
    assert "a.txt is read-only" in call("write", path="a.txt", content="y").content
    (root / "b.txt").write_text("x")
    os.link(root / "b.txt", root / "c.txt")
    assert "b.txt has 2 hard links" in call("write", path="b.txt", content="y").content


def test_write_refuses_text_that_is_no_text(call, root: Path) -> None:
    assert call("write", path="a.txt", content="\ud800").is_error
    assert call("write", path="a/", content="x").is_error
    assert list(root.iterdir()) == []


@pytest.fixture
def small_files() -> Iterator[None]:
    """The kernel refuses files above 4 KiB, as a full disk would refuse them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.usefixtures("small_files")
def test_write_that_does_not_fit_leaves_nothing(call, root: Path) -> None:
    (root / "old.txt").write_text("old\n")
    failed = call("write", path="old.txt", content="x" * 10_000)
    assert failed.content == f"Error: cannot write old.txt: {os.strerror(errno.EFBIG).lower()}"
    assert call("write", path="new/deep/a.txt", content="x" * 10_000).is_error
    assert [path.name for path in root.iterdir()] == ["old.txt"]
    assert (root / "old.txt").read_text() == "old\n"


def test_write_on_a_full_disk_is_one_line(root: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    script = tmp_path / "fill.py"
    script.write_text(
        "import sys\nfrom pathlib import Path\n"
        "from ds4_agent.tools.registry import builtin_tools, execute\n"
        "from ds4_agent.tools.types import ToolContext\n"
        "from ds4_agent.tools.process import Processes\n"
        "from ds4_agent.tools.workspace import Workspace\n"
        "root = Path(sys.argv[1])\n"
        "context = ToolContext(Workspace(root), Processes())\n"
        "arguments = {'path': 'sub/a.txt', 'content': 'x' * 1_000_000}\n"
        "print(execute(builtin_tools(), 'write', arguments, context).content)\n"
        "print(sorted(p.name for p in root.iterdir()))\n"
    )
    mount = f"mount -t tmpfs -o size=64k none {disk} && exec {sys.executable} {script} {disk}"
    done = subprocess.run(["unshare", "-m", "sh", "-c", mount], capture_output=True, text=True)
    if done.returncode != 0 and not done.stdout:
        pytest.skip("this system lets no test mount a small disk")
    assert done.stdout.splitlines() == [
        "Error: cannot write sub/a.txt: no space left on device",
        "[]",
    ]


NEW = b"new" * 1000


@pytest.mark.parametrize(
    ("syscall", "content"),
    [
        ("write:signal=KILL:when=1", b"old"),
        ("fchmod:signal=KILL:when=1", b"old"),
        ("fsync:signal=KILL:when=1", b"old"),
        ("rename,renameat,renameat2:signal=KILL:when=1", b"old"),
        ("fsync:signal=KILL:when=2", NEW),
    ],
)
def test_write_killed_at_any_moment_leaves_old_or_new(
    root: Path, tmp_path: Path, syscall: str, content: bytes
) -> None:
    if shutil.which("strace") is None:
        pytest.skip("no strace here")
    (root / "a.txt").write_bytes(b"old")
    script = tmp_path / "one_write.py"
    script.write_text(
        "import sys\nfrom pathlib import Path\n"
        "from ds4_agent.tools.workspace import Workspace\n"
        "workspace = Workspace(Path(sys.argv[1]))\n"
        "place = workspace.locate('a.txt')\n"
        f"workspace.write(place, {NEW!r}, base=workspace.read(place))\n"
    )
    strace = ["strace", "-f", "-o", "/dev/null", "-e", f"inject={syscall}"]
    done = subprocess.run(
        [*strace, sys.executable, "-B", str(script), str(root)], capture_output=True
    )
    assert done.returncode == -signal.SIGKILL, "the write was over before it could be killed"
    assert (root / "a.txt").read_bytes() == content
