"""Several processes for one training, as `torchrun` starts them, with the trainer's own exit status.

    python -m trainers.launch trainers.distilgpt2 --epochs 1 …

How many they are and where they meet, torchrun reads from the environment (PET_NPROC_PER_NODE, PET_NNODES, …), which a
Job or a Kubeflow runtime sets. torchrun ends with 1 whatever its processes ended with; a cluster must know what can
never work, and what was only interrupted. After a signal it leaves its processes TORCH_ELASTIC_SHUTDOWN_TIMEOUT seconds
for their checkpoint, 30 if that is not set; what the bot starts gets its pod's whole grace time. A process that had
failed before the signal has left its exit status in a file.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

from trainers.ranks import FAILURE_FILE
from trainers.reporting import ExitCode


def main() -> NoReturn:
    """Train, and exit as the process did that failed first."""
    signal.signal(signal.SIGTERM, _interrupted)  # until torchrun has its own: the first process of a pod has no default
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    with tempfile.TemporaryDirectory() as folder:
        failed = Path(folder) / "failed"
        os.environ[FAILURE_FILE] = str(failed)
        try:
            run.main(["-m", *sys.argv[1:]])
        except ChildFailedError as error:
            _, failure = error.get_first_failure()
            sys.exit(failure.exitcode if failure.exitcode >= 0 else 128 - failure.exitcode)
        except SignalException:  # its processes were told, and had their time
            sys.exit(int(failed.read_text(encoding="ascii")) if failed.exists() else ExitCode.INTERRUPTED)
    sys.exit(ExitCode.OK)


def _interrupted(_number: int, _frame: object) -> NoReturn:
    sys.exit(ExitCode.INTERRUPTED)


if __name__ == "__main__":
    main()
