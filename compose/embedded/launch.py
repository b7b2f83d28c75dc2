"""Runs one program so that it cannot outlive the process that started it: `launch.py PARENT SIGNAL USER PROGRAM ARGUMENT…`.

It replaces itself by the program, so the process id stays. Before that, it does three things that must happen between fork and exec. In a
process with threads, Python's own hook for that moment is unsafe. It is a script and not a module, because without site-packages it starts
in 28 ms.

* When PARENT dies, this process gets SIGNAL (on Linux; elsewhere the next start ends leftover processes, see `process.py`).
* It switches to USER unless that is empty. PostgreSQL refuses to run as root, yet only root can enter root's home. So it keeps the one
  capability that bypasses file permissions. (Opening the home to everybody would be worse.)
* It resets signals to their defaults. Otherwise the program would inherit the supervisor's blocked and ignored signals.
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
    """Becomes the user for good, keeping the right to bypass file permissions and no other. Raises OSError, KeyError."""
    user = pwd.getpwnam(name)
    # Without this bit, access(2) ignores the capabilities of a user other than root. initdb uses it to find the server's program.
    # Some containers forbid even root to change capabilities. There the wheel must be readable by everybody.
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
        # After the change of user, which clears the setting.
        _checked(libc.prctl(PR_SET_PDEATHSIG, death_signal, 0, 0, 0))
    if os.getppid() != parent:  # the parent died before the request for its death signal
        sys.exit(1)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    os.execv(program[0], program)  # noqa: S606 - no shell is the point


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4:])
