"""Runs one program so that it cannot outlive the process that started it: `launch.py PARENT SIGNAL USER PROGRAM ARGUMENT…`.

Replaces itself by the program (the process id stays), after three things that must happen between fork and exec, where
Python's own hook is unsafe in a process with threads. A script and not a module: it starts in 28 ms without site-packages.

* PARENT's death sends SIGNAL here (Linux; elsewhere the next start ends what was left, see `process.py`).
* A USER other than the empty one is switched to. PostgreSQL refuses to run as root, yet root's home can't be entered by
  anybody else; so the one capability that passes file permissions is kept. (Opening the home to everybody would be worse.)
* Signals are set back to their defaults: a supervisor's blocked or ignored ones would be inherited.
"""

import ctypes
import os
import pwd
import signal
import sys

# <linux/prctl.h>, <linux/securebits.h> and <linux/capability.h>
PR_SET_PDEATHSIG = 1
PR_SET_KEEPCAPS = 8
PR_SET_SECUREBITS = 28
SECBIT_NO_SETUID_FIXUP = 1 << 2
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
CAP_DAC_OVERRIDE = 1
LINUX_CAPABILITY_VERSION_3 = 0x20080522


def _checked(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def switch_user(libc: ctypes.CDLL, name: str) -> None:
    """Becomes the user for good, keeping the right to pass file permissions and no other. Raises OSError, KeyError."""
    user = pwd.getpwnam(name)
    # access(2), by which initdb looks for the server's program, counts no capability of another user than root without this bit.
    # Refused where root itself may not change capabilities (some containers): there the wheel must lie where everybody may read.
    libc.prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP, 0, 0, 0)
    _checked(libc.prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0))
    os.setgroups([])
    os.setgid(user.pw_gid)
    os.setuid(user.pw_uid)
    kept = 1 << CAP_DAC_OVERRIDE
    header = (ctypes.c_uint32 * 2)(LINUX_CAPABILITY_VERSION_3, 0)  # of this process
    sets = (ctypes.c_uint32 * 6)(kept, kept, kept, 0, 0, 0)  # effective, permitted, inheritable; then their upper halves
    _checked(libc.capset(header, sets))
    _checked(libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_DAC_OVERRIDE, 0, 0))


def main(parent: int, death_signal: int, user: str, program: list[str]) -> None:
    """Never returns. Raises OSError when the program can't be run."""
    libc = ctypes.CDLL(None, use_errno=True)
    if user:
        switch_user(libc, user)
    if sys.platform == "linux":
        # After the change of user, which clears it.
        _checked(libc.prctl(PR_SET_PDEATHSIG, death_signal, 0, 0, 0))
    if os.getppid() != parent:  # it died before we asked to be told
        sys.exit(1)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    os.execv(program[0], program)  # noqa: S606 - no shell is the point


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4:])
