"""Run Python code that a model wrote, in a child process without network, writing, other programs, much time or memory.

The child is confined by the Linux kernel: resource limits, and a filter of system calls (seccomp), which needs no
rights and works inside containers. The filter refuses sockets, starting programs, signals to other processes, and
opening files to write. It keeps a model's code from doing damage by accident or by habit, but the code can read what
the user can read; code that is known to be hostile belongs on another machine.
"""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import struct
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

SECONDS = 10.0
"""Seconds of processor time, and three times as many by the clock, after which a program has failed."""
MEMORY = 1 << 30
"""Bytes of address space that a program may take."""

# Numbers of system calls: (x86_64, aarch64); None where the architecture has no such call.
_REFUSED: dict[str, tuple[int | None, int]] = {
    "socket": (41, 198), "socketpair": (53, 199), "io_uring_setup": (425, 425), "execve": (59, 221),
    "execveat": (322, 281),
    "kill": (62, 129), "tkill": (200, 130), "tgkill": (234, 131), "pidfd_open": (434, 434), "ptrace": (101, 117),
    "process_vm_writev": (311, 271), "fork": (57, 220), "vfork": (58, 220), "clone": (56, 220), "clone3": (435, 435),
    "creat": (85, 437), "openat2": (437, 437), "open_by_handle_at": (304, 265),
    "truncate": (76, 45), "unlink": (87, 35),
    "unlinkat": (263, 35), "rmdir": (84, 35), "rename": (82, 38), "renameat": (264, 38), "renameat2": (316, 276),
    "mkdir": (83, 34), "mkdirat": (258, 34), "link": (86, 37), "linkat": (265, 37), "symlink": (88, 36),
    "symlinkat": (266, 36), "chmod": (90, 53), "fchmodat": (268, 53), "chown": (92, 54), "fchownat": (260, 54),
    "mount": (165, 40), "unshare": (272, 97), "setns": (308, 268), "bpf": (321, 280), "mq_open": (240, 180),
    "shmget": (29, 194), "utimensat": (280, 88), "setxattr": (188, 5),
}  # fmt: skip
_OPEN = {"open": ((2, None), 1), "openat": ((257, 56), 2)}  # (numbers, which argument holds the flags)
_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
_X32 = 0x40000000
_LOAD, _EQUAL, _ABOVE, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _REFUSE, _KILL = 0x7FFF0000, 0x00050001, 0x80000000  # _REFUSE: the call fails with EPERM
_NUMBER_AT, _ARCHITECTURE_AT, _ARGUMENTS_AT = 0, 4, 16


def passes(programs: Sequence[str], *, seconds: float = SECONDS, workers: int = 2) -> list[bool]:
    """Run each program (Python source) in a confined child process; return True for those that end without an error.

    Raises:
        ConfigError: this system cannot confine a process so.
    """
    check_confinement()
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(lambda program: _passes(program, seconds), programs))


def check_confinement() -> None:
    """Run an empty program. Raises ConfigError unless it can be confined: on Linux, x86_64 or aarch64."""
    supported = sys.platform == "linux" and platform.machine() in _ARCHITECTURES
    if not supported or not _passes("", SECONDS):
        from trueup.errors import ConfigError  # here, because the confined child loads this file alone

        system = f"{platform.system()} on {platform.machine()}"
        reason = f"this kernel ({system}) refuses the filter of system calls" if supported else f"this is {system}"
        raise ConfigError(
            "a model's code is only run where its process can be confined, on Linux (x86_64 or aarch64) with seccomp; "
            f"{reason}\n  fix: leave out the set, or evaluate it in a Linux container"
        )


def _passes(program: str, seconds: float) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        reader, writer = os.pipe()
        child = subprocess.Popen(
            [sys.executable, "-I", "-c", _CHILD, __file__, str(seconds), str(MEMORY), str(writer)], cwd=folder,
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, pass_fds=(writer,),
            env={"PATH": os.defpath}, start_new_session=True,
        )  # fmt: skip
        os.close(writer)
        try:
            child.communicate(program.encode("utf-8", "replace"), timeout=3 * seconds)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.communicate()
        # The child writes this after the program has run to its end: a program that calls exit(0) early has not passed.
        with os.fdopen(reader, "rb") as handle:
            return child.returncode == 0 and handle.read(len(_DONE)) == _DONE


_DONE = b"the program ran to its end"
# This module is loaded by path, without the package: the child must not import torch under its memory limit.
_CHILD = f"""
import os, runpy, sys
program = sys.stdin.buffer.read().decode()
write, end = os.write, os._exit
runpy.run_path(sys.argv[1], run_name="confined")["confine"](float(sys.argv[2]), int(sys.argv[3]))
try:
    exec(compile(program, "program", "exec"), {{"__name__": "program"}})
except BaseException:
    end(1)
write(int(sys.argv[4]), {_DONE!r})
end(0)
"""


def confine(seconds: float, memory: int) -> None:
    """Confine the calling process for good: its resources, and the system calls that it may make (Linux).

    Raises:
        OSError: the kernel refuses the filter.
    """
    import resource

    limits = {
        resource.RLIMIT_CPU: int(seconds) + 1, resource.RLIMIT_AS: memory, resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: 1 << 20, resource.RLIMIT_NOFILE: 64,
    }  # fmt: skip
    for name, limit in limits.items():
        resource.setrlimit(name, (limit, limit))
    instructions = seccomp_filter(*_ARCHITECTURES[platform.machine()])
    buffer = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *instruction) for instruction in instructions))
    header = ctypes.create_string_buffer(struct.pack("@HP", len(instructions), ctypes.addressof(buffer)))
    libc = ctypes.CDLL(None, use_errno=True)
    # PR_SET_NO_NEW_PRIVS, then PR_SET_SECCOMP with SECCOMP_MODE_FILTER.
    for arguments in ((38, 1, 0, 0, 0), (22, 2, ctypes.c_void_p(ctypes.addressof(header)), 0, 0)):
        if libc.prctl(*arguments) != 0:
            raise OSError(ctypes.get_errno(), "the system calls of a process cannot be filtered here")


def seccomp_filter(column: int, architecture: int) -> list[tuple[int, int, int, int]]:
    """Return the BPF program that refuses the calls above: instructions (code, jump if true, jump if false, number).

    Args:
        column: the column of the architecture in the tables of numbers.
        architecture: the kernel's name of it; a call of any other one, such as 32-bit code, ends the process.
    """
    program = [(_LOAD, 0, 0, _ARCHITECTURE_AT), (_EQUAL, 1, 0, architecture), (_RETURN, 0, 0, _KILL)]
    program += [(_LOAD, 0, 0, _NUMBER_AT)]
    if column == 0:
        program += [(_ABOVE, 0, 1, _X32), (_RETURN, 0, 0, _KILL)]
    for numbers in dict.fromkeys(numbers[column] for numbers in _REFUSED.values()):
        if numbers is not None:
            program += [(_EQUAL, 0, 1, numbers), (_RETURN, 0, 0, _REFUSE)]
    writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
    for numbers, argument in _OPEN.values():
        if (number := numbers[column]) is not None:
            # A match looks at the low word of the flags; after it the number of the call is no longer needed.
            program += [(_EQUAL, 0, 4, number), (_LOAD, 0, 0, _ARGUMENTS_AT + 8 * argument)]
            program += [(_ANY_BIT, 0, 1, writing), (_RETURN, 0, 0, _REFUSE), (_RETURN, 0, 0, _ALLOW)]
    return [*program, (_RETURN, 0, 0, _ALLOW)]
