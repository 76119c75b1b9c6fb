"""Two static programs of a few dozen bytes, for sandboxes that have nothing we could trust to run.

``init`` is pid 1 of a sandbox: it lets the kernel reap orphans, makes itself unreadable, says on
standard output (one byte) that it is there, and sleeps for ever. ``launch PATH ARGV0 ARG...`` turns
into the program at PATH: it is what a sandbox sees in ``/proc/*/exe`` between our entry and the
program it asked for (CVE-2019-5736 class), and ends with 127 or 126 when PATH cannot be executed.

The listings are the source: bytes left, GNU assembler syntax right; a test assembles the right
column again. This module may not run or write anything.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

LISTINGS: Mapping[tuple[str, str], str] = {
    ("x86_64", "init"): """
        45 31 c0           xor %r8d, %r8d           # struct sigaction on the stack: mask, restorer and flags 0,
        41 50              push %r8
        41 50              push %r8
        41 50              push %r8
        6a 01              push $1                  # handler SIG_IGN
        bf 11 00 00 00     mov $17, %edi            # rt_sigaction(SIGCHLD, &it, 0, 8): orphans are reaped
        48 89 e6           mov %rsp, %rsi
        31 d2              xor %edx, %edx
        41 ba 08 00 00 00  mov $8, %r10d
        b8 0d 00 00 00     mov $13, %eax
        0f 05              syscall
        bf 04 00 00 00     mov $4, %edi             # prctl(PR_SET_DUMPABLE, 0): /proc/1/{exe,fd,root,mem} refused
        31 f6              xor %esi, %esi
        45 31 d2           xor %r10d, %r10d
        b8 9d 00 00 00     mov $157, %eax
        0f 05              syscall
        bf 01 00 00 00     mov $1, %edi             # write(1, &it, 1): ready
        48 89 e6           mov %rsp, %rsi
        ba 01 00 00 00     mov $1, %edx
        b8 01 00 00 00     mov $1, %eax
        0f 05              syscall
        b8 22 00 00 00     mov $34, %eax            # pause(), again and again
        0f 05              syscall
        eb f7              jmp . - 7
    """,
    ("x86_64", "launch"): """
        48 8b 04 24        mov (%rsp), %rax         # argc
        48 8b 7c 24 10     mov 16(%rsp), %rdi       # argv[1]: the path
        48 8d 74 24 18     lea 24(%rsp), %rsi       # argv + 2: its argv
        48 8d 54 c4 10     lea 16(%rsp,%rax,8), %rdx # envp
        b8 3b 00 00 00     mov $59, %eax            # execve
        0f 05              syscall
        bf 7e 00 00 00     mov $126, %edi           # exit_group(-errno == -ENOENT ? 127 : 126)
        83 f8 fe           cmp $-2, %eax
        75 02              jne . + 4
        ff c7              inc %edi
        b8 e7 00 00 00     mov $231, %eax
        0f 05              syscall
    """,
    ("aarch64", "init"): """
        29 00 80 d2        mov x9, #1               // struct sigaction on the stack: SIG_IGN, then zeros
        e9 7f be a9        stp x9, xzr, [sp, #-32]!
        ff 7f 01 a9        stp xzr, xzr, [sp, #16]
        20 02 80 d2        mov x0, #17              // rt_sigaction(SIGCHLD, &it, 0, 8)
        e1 03 00 91        mov x1, sp
        02 00 80 d2        mov x2, #0
        03 01 80 d2        mov x3, #8
        c8 10 80 d2        mov x8, #134
        01 00 00 d4        svc #0
        80 00 80 d2        mov x0, #4               // prctl(PR_SET_DUMPABLE, 0)
        01 00 80 d2        mov x1, #0
        02 00 80 d2        mov x2, #0
        03 00 80 d2        mov x3, #0
        04 00 80 d2        mov x4, #0
        e8 14 80 d2        mov x8, #167
        01 00 00 d4        svc #0
        20 00 80 d2        mov x0, #1               // write(1, &it, 1)
        e1 03 00 91        mov x1, sp
        22 00 80 d2        mov x2, #1
        08 08 80 d2        mov x8, #64
        01 00 00 d4        svc #0
        00 00 80 d2        mov x0, #0               // ppoll(0, 0, 0, 0, 8), again and again
        01 00 80 d2        mov x1, #0
        02 00 80 d2        mov x2, #0
        03 00 80 d2        mov x3, #0
        04 01 80 d2        mov x4, #8
        28 09 80 d2        mov x8, #73
        01 00 00 d4        svc #0
        f9 ff ff 17        b . - 28
    """,
    ("aarch64", "launch"): """
        e3 03 40 f9        ldr x3, [sp]             // argc
        e0 0b 40 f9        ldr x0, [sp, #16]        // argv[1]: the path
        e1 63 00 91        add x1, sp, #24          // argv + 2: its argv
        e2 6f 23 8b        add x2, sp, x3, lsl #3   // envp
        42 40 00 91        add x2, x2, #16
        a8 1b 80 d2        mov x8, #221             // execve
        01 00 00 d4        svc #0
        1f 08 00 b1        cmn x0, #2               // exit_group(-errno == -ENOENT ? 127 : 126)
        c0 0f 80 d2        mov x0, #126
        00 14 80 9a        cinc x0, x0, eq
        c8 0b 80 d2        mov x8, #94
        01 00 00 d4        svc #0
    """,
}
"""Per (machine, program) its instructions, one a line."""

_MACHINE = {"x86_64": 62, "aarch64": 183}
_BASE = 0x400000
_HEADERS = 64 + 56


def code(machine: str, program: str) -> bytes:
    """The instructions of `program` for `machine`; `KeyError` when there are none."""
    return b"".join(bytes.fromhex(line[:25]) for line in LISTINGS[machine, program].splitlines())


def executable(machine: str, program: str) -> bytes:
    """`program` as an ELF64 file: one header, one readable and executable segment, the code."""
    text = code(machine, program)
    size = _HEADERS + len(text)
    header = struct.pack(
        "<16sHHIQQQIHHHHHH",
        b"\x7fELF\x02\x01\x01",  # 64 bits, little endian, version 1
        2,  # ET_EXEC
        _MACHINE[machine],
        1,
        _BASE + _HEADERS,  # entry point
        64,  # program headers follow
        0,
        0,
        64,
        56,
        1,
        0,
        0,
        0,
    )
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 0x1000)  # PT_LOAD, R+X
    return header + segment + text
