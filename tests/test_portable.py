"""Nothing is imported or called unguarded that only one system has."""

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGES = ("musc_jax", "weights", "launch")
BENCHMARKS = Path(__file__).parents[1] / "benchmarks"

# Of the standard library: on Unix alone, on Windows alone.
MODULES = """
crypt curses fcntl grp nis ossaudiodev posix pty pwd readline resource spwd syslog termios tty _winapi msvcrt nt winreg
winsound
"""
# What modules that every system has offer on some alone; by the documentation's "Availability".
ATTRIBUTES = {
    "os": """
chflags chown chroot confstr copy_file_range ctermid eventfd fchdir fchmod fchown fdatasync fork forkpty fpathconf
fstatvfs get_blocking getegid geteuid getgid getgrouplist getgroups getloadavg getpgid getpgrp getpriority getrandom
getresgid getresuid getsid getuid getxattr grantpt initgroups killpg lchflags lchmod lchown listxattr lockf login_tty
major makedev memfd_create minor mkfifo mknod nice openpty O_CLOEXEC O_DIRECTORY O_DSYNC O_NOCTTY O_NOFOLLOW O_NONBLOCK
O_PATH O_SYNC O_TMPFILE pathconf pidfd_open pipe2 posix_fadvise posix_fallocate posix_openpt posix_spawn posix_spawnp
pread preadv ptsname pwrite pwritev register_at_fork removexattr sched_get_priority_max sched_get_priority_min
sched_getaffinity sched_getparam sched_getscheduler sched_rr_get_interval sched_setaffinity sched_setparam
sched_setscheduler sched_yield sendfile set_blocking setegid seteuid setgid setgroups setns setpgid setpriority setregid
setresgid setresuid setreuid setsid setuid setxattr splice statvfs sync sysconf tcgetpgrp tcsetpgrp ttyname uname
unlockpt unshare wait wait3 wait4 waitid add_dll_directory O_BINARY O_NOINHERIT O_TEMPORARY startfile
""",
    "signal": """
alarm getitimer pause pidfd_send_signal pthread_kill pthread_sigmask setitimer siginterrupt sigpending sigtimedwait
sigwait sigwaitinfo SIGALRM SIGBUS SIGCHLD SIGCONT SIGHUP SIGKILL SIGPIPE SIGQUIT SIGSTOP SIGUSR1 SIGUSR2
CTRL_BREAK_EVENT CTRL_C_EVENT SIGBREAK
""",
    "socket": "AF_PACKET AF_UNIX CMSG_LEN sethostname",
    "select": "devpoll epoll kevent kqueue poll",
    "time": "clock_gettime clock_settime pthread_getcpuclockid tzset",
    "ctypes": "WinDLL WinError oledll windll",
    "asyncio": "ProactorEventLoop WindowsProactorEventLoopPolicy",
}
ONE_SYSTEMS_MODULES = frozenset(MODULES.split())
ONE_SYSTEMS_NAMES = {f"{module}.{name}" for module, names in ATTRIBUTES.items() for name in names.split()}
ASKS = {("os", "name"), ("sys", "platform"), ("platform", "system")}


def is_system_test(test: ast.expr) -> bool:
    """Whether a condition asks for the system, or for what it has."""
    return any(
        (isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and (node.value.id, node.attr) in ASKS)
        or (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "hasattr")
        for node in ast.walk(test)
    )


def is_guard(statement: ast.stmt) -> bool:
    """Whether what follows runs on some systems alone: `if os.name != "posix": return`."""
    leaves = isinstance(statement, ast.If) and isinstance(statement.body[-1], ast.Return | ast.Raise | ast.Continue)
    return leaves and is_system_test(statement.test)


def taken_for_granted(node: ast.AST) -> list[str]:
    """What of one system a single node names."""
    names: list[str] = []
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        names = [f"{node.module}.{alias.name}" for alias in node.names]
    elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        return [name for name in [f"{node.value.id}.{node.attr}"] if name in ONE_SYSTEMS_NAMES]
    return [name for name in names if name.split(".")[0] in ONE_SYSTEMS_MODULES or name in ONE_SYSTEMS_NAMES]


def faults(tree: ast.Module) -> Iterator[str]:
    """What a module's text takes for granted."""

    def visit(node: ast.AST, guarded: bool) -> Iterator[str]:
        if not guarded:
            for name in taken_for_granted(node):
                yield f"line {node.lineno}: {name} is not on every system"
        if isinstance(node, ast.If | ast.IfExp) and is_system_test(node.test):
            return
        if isinstance(node, ast.BoolOp) and any(map(is_system_test, node.values)):
            return
        if isinstance(node, ast.Try):
            caught = {n.id for h in node.handlers if h.type for n in ast.walk(h.type) if isinstance(n, ast.Name)}
            safe = guarded or bool(caught & {"ImportError", "ModuleNotFoundError", "AttributeError"})
            yield from block(node.body, safe)
            for handler in node.handlers:
                yield from visit(handler, guarded)
            yield from block([*node.orelse, *node.finalbody], guarded)
            return
        for _, value in ast.iter_fields(node):
            if isinstance(value, list) and value and isinstance(value[0], ast.stmt):
                yield from block(value, guarded)
            else:
                for inner in value if isinstance(value, list) else [value]:
                    if isinstance(inner, ast.AST):
                        yield from visit(inner, guarded)

    def block(statements: list[ast.stmt], guarded: bool) -> Iterator[str]:
        for statement in statements:
            yield from visit(statement, guarded)
            guarded = guarded or is_guard(statement)

    yield from block(tree.body, False)


@pytest.mark.parametrize("package", [*PACKAGES, "benchmarks"])
def test_no_system_is_taken_for_granted(package):
    folders = [BENCHMARKS] if package == "benchmarks" else importlib.import_module(package).__path__
    files = [file for folder in folders for file in Path(folder).rglob("*.py")]
    assert files
    found = [f"{file}: {fault}" for file in files for fault in faults(ast.parse(file.read_text(encoding="utf-8")))]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "text",
    [
        "import fcntl",
        "import os, resource",
        "from pwd import getpwnam",
        "def f():\n    import resource",
        "try:\n    import fcntl\nexcept ValueError:\n    pass",
        "try:\n    x = 1\nexcept ImportError:\n    import fcntl",
        "import os\nos.statvfs('/')",
        "import os\nx = [os.getuid() for _ in range(3)]",
        "from os import fork",
        "import os\nif x:\n    os.sched_getaffinity(0)",
        "import os\nif x:\n    pass\nos.pread(1, 2, 3)",
        "import os\ndef f():\n    if os.name != 'posix':\n        x = 1\n    import fcntl",
        "import os\ndef f():\n    if os.name != 'posix':\n        return\n\nimport fcntl",
        "import signal\nprocess.send_signal(signal.SIGKILL)",
    ],
)
def test_what_is_refused(text):
    assert list(faults(ast.parse(text)))


@pytest.mark.parametrize(
    "text",
    [
        "try:\n    import fcntl\nexcept ImportError:\n    fcntl = None",
        "def f():\n    try:\n        import resource\n    except ImportError:\n        return 0\n",
        "import sys\nif sys.platform == 'win32':\n    import winreg",
        "import os\ndef f():\n    if os.name != 'posix':\n        return\n    import fcntl\n    os.getuid()",
        "import os\nif hasattr(os, 'getuid'):\n    os.getuid()",
        "import os\nx = os.getuid() if hasattr(os, 'getuid') else 0",
        "import os\nx = hasattr(os, 'getuid') and os.getuid()",
        "import os, shutil\nshutil.disk_usage('.')\nos.replace('a', 'b')",
    ],
)
def test_what_is_fine(text):
    assert not list(faults(ast.parse(text)))
