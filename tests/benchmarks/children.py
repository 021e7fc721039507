"""Children of the drills: forked, killed, and believed in what they said before."""

import os
import signal
import time
import traceback
from collections.abc import Callable

PATIENCE = 60  # seconds; a child that hangs ends by SIGALRM, which fails the drill
Acks = dict[int, str]  # epoch -> hash of the chain there


def run(body: Callable[[int], None], *, kill_after: float | None = None) -> tuple[bool, Acks]:
    """Fork `body(outlet)` and wait for it: was it killed, and what had it acknowledged?

    The calling process must never have computed with torch or FAISS: their worker threads do not
    live through a fork, and the child would wait for them forever.
    """
    inlet, outlet = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            signal.alarm(PATIENCE)
            body(outlet)
            os._exit(0)
        finally:
            traceback.print_exc()
            os._exit(1)
    os.close(outlet)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    with open(inlet, encoding="ascii") as told:
        lines = [line.split() for line in told if line.endswith("\n")]
    _, status = os.waitpid(child, 0)
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    assert killed or status == 0, "a child failed or hung, see above"
    return killed, {int(epoch): sha for epoch, sha in lines}


def acknowledge(outlet: int, epoch: int, sha: str) -> None:
    """Tell the parent that this epoch is durable."""
    os.write(outlet, f"{epoch} {sha}\n".encode())
