"""The system calls a sandbox may not make, as a classic BPF program; no libseccomp.

A deny list in three answers: ``ENOSYS`` for what a program can do without and would fall back from
(new mount interface, clone3, io_uring), ``EPERM`` for what is not for sandboxes, and death for a
foreign instruction set. The filter only backs up namespaces and dropped capabilities: what it
takes away is the kernel surface that neither of them covers (AF_VSOCK and the keyring are not
namespaced; io_uring and user namespaces are where the kernel's bugs are).

This module may not do I/O.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterable, Mapping

_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
MACHINES = tuple(_AUDIT_ARCH)
"""What ``uname -m`` says where there is a filter."""

_X32 = 0x40000000

_ALLOW = 0x7FFF0000
_KILL_PROCESS = 0x80000000
_ERRNO = 0x00050000

CALLS: Mapping[str, tuple[int | None, int | None]] = {
    # name: (x86_64, aarch64); None where the machine has no such call
    "socket": (41, 198),
    "socketpair": (53, 199),
    "clone": (56, 220),
    "ioctl": (16, 29),
    "personality": (135, 92),
    # answered ENOSYS
    "clone3": (435, 435),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "open_tree_attr": (467, 467),
    # answered EPERM
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "open_by_handle_at": (304, 265),
    "fanotify_init": (300, 262),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kcmp": (312, 272),
    "pidfd_getfd": (438, 438),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "syslog": (103, 116),
    "acct": (163, 89),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "lookup_dcookie": (212, 18),
    "mbind": (237, 235),
    "set_mempolicy": (238, 237),
    "set_mempolicy_home_node": (450, 450),
    "move_pages": (279, 239),
    "migrate_pages": (256, 238),
    "iopl": (172, None),
    "ioperm": (173, None),
    "modify_ldt": (154, None),
    "uselib": (134, None),
    "_sysctl": (156, None),
    "nfsservctl": (180, 42),
}

_NO_SUCH_CALL = (
    *("clone3", "io_uring_setup", "io_uring_enter", "io_uring_register"),
    *("open_tree", "move_mount", "fsopen", "fsconfig", "fsmount", "fspick", "mount_setattr", "open_tree_attr"),
)
_BY_ARGUMENT = ("socket", "socketpair", "clone", "ioctl", "personality")
_NOT_PERMITTED = tuple(name for name in CALLS if name not in (*_NO_SUCH_CALL, *_BY_ARGUMENT))

_NEW_NAMESPACE = 0x7E020000
# CLONE_NEW{NS,CGROUP,UTS,IPC,USER,PID,NET}. Not CLONE_NEWTIME (0x80): in clone() that bit belongs to
# the exit signal, and only clone3 and unshare, both refused, read it as a flag.
_SET_AFFINITY = (203, 122)  # sched_setaffinity
_CHANGE_OWNER = ((92, None), (93, 55), (94, None), (260, 54))  # chown, fchown, lchown, fchownat
_FAMILIES = (1, 2, 10, 16)  # AF_UNIX, AF_INET, AF_INET6, AF_NETLINK
_TERMINAL_INPUT = (0x5412, 0x541C)  # TIOCSTI, TIOCLINUX: typing into somebody else's terminal
_PERSONALITIES = (0, 0xFFFFFFFF, 0x40000)  # plain, "which?", ADDR_NO_RANDOMIZE (debuggers)

# --- a small assembler: every rule is a block of instructions that is left at its end -----------

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCH, _ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data; arguments are 8 bytes, low half first

_Instruction = tuple[int, int, int, int]
"""Code, jump when true, jump when false (both: instructions to skip), operand."""


def program(machine: str, *, pinned: bool = False, alone: bool = False) -> bytes:
    """The filter for `machine`, ``struct sock_filter`` after another. `ValueError` where there is none.

    With `pinned`, a process may not choose other processors than those it was given. With `alone`, nobody
    else is there that a file could be given to: to give one away does nothing, and is no error, without which
    no package manager could install anything.
    """
    column = MACHINES.index(machine)
    call = {name: numbers[column] for name, numbers in CALLS.items()}
    rules: list[_Instruction] = [(_LOAD, 0, 0, _ARCH), (_EQUAL, 1, 0, _AUDIT_ARCH[machine]), _answer(_KILL_PROCESS)]
    rules += [(_LOAD, 0, 0, _NUMBER)]
    if machine == "x86_64":
        rules += [(_AT_LEAST, 0, 1, _X32), _refuse(errno.ENOSYS)]
    for names, error in ((_NO_SUCH_CALL, errno.ENOSYS), (_NOT_PERMITTED, errno.EPERM)):
        for number in (call[name] for name in names):
            if number is not None:
                rules += [(_EQUAL, 0, 1, number), _refuse(error)]
    rules += _of(call["clone"], [_load(0), (_ANY_BIT, 0, 1, _NEW_NAMESPACE), _refuse(errno.EPERM), _answer(_ALLOW)])
    for name in ("socket", "socketpair"):
        rules += _of(call[name], _only(0, _FAMILIES, errno.EAFNOSUPPORT))
    rules += _of(call["ioctl"], _never(1, _TERMINAL_INPUT, errno.EPERM))
    rules += _of(call["personality"], _only(0, _PERSONALITIES, errno.EPERM))
    if pinned:
        rules += [(_EQUAL, 0, 1, _SET_AFFINITY[column]), _refuse(errno.EPERM)]
    if alone:
        for each in (numbers[column] for numbers in _CHANGE_OWNER):
            rules += [] if each is None else [(_EQUAL, 0, 1, each), _refuse(0)]
    rules += [_answer(_ALLOW)]
    return b"".join(struct.pack("<HBBI", *rule) for rule in rules)


def _of(number: int | None, block: list[_Instruction]) -> list[_Instruction]:
    """`block`, which must end in an answer, for the system call `number` alone."""
    assert number is not None
    return [(_EQUAL, 0, len(block), number), *block]


def _only(argument: int, values: Iterable[int], error: int) -> list[_Instruction]:
    """Refused with `error` unless `argument` is one of `values`."""
    tests = [(_EQUAL, 0, 1, value) for value in values]
    allowed = [instruction for test in tests for instruction in (test, _answer(_ALLOW))]
    return [_load(argument), *allowed, _refuse(error)]


def _never(argument: int, values: Iterable[int], error: int) -> list[_Instruction]:
    """Refused with `error` when `argument` is one of `values`."""
    tests = [(_EQUAL, 0, 1, value) for value in values]
    refused = [instruction for test in tests for instruction in (test, _refuse(error))]
    return [_load(argument), *refused, _answer(_ALLOW)]


def _load(argument: int) -> _Instruction:
    """Its low 32 bits: all that the kernel looks at in the calls we ask about."""
    return (_LOAD, 0, 0, _ARGUMENT + 8 * argument)


def _answer(value: int) -> _Instruction:
    return (_RETURN, 0, 0, value)


def _refuse(error: int) -> _Instruction:
    return _answer(_ERRNO | error)
