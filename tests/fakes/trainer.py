"""A trainer at the far end, for tests of everything around it: starts at once, says what real trainers say, ends soon.

`install` writes an executable that the local engine takes for the trainers' interpreter. Each start appends a line to
a ledger, which is how tests count starts. `behaviour` is `ok`, `fail`, `hang`, `slow` (2 s), or
`large`: out of memory with batches above 16. Asked to end, it leaves a checkpoint; resumed from one, it ends at once.
"""

from __future__ import annotations

import sys
from pathlib import Path

_PROGRAM = """#!{python}
import json, os, signal, sys, time
with open({ledger!r}, "a") as ledger:
    ledger.write(" ".join(sys.argv[1:]) + "\\n")
def say(**event):
    print("SIGNALBOX " + json.dumps(event), flush=True)
checkpoint = os.path.join(sys.argv[sys.argv.index("--output-dir") + 1], "checkpoint.pt")
def stop(*_):
    open(checkpoint, "w").close()
    say(event="note", message="checkpoint written")
    sys.exit(4)
resumed = "--resume" in sys.argv and os.path.exists(checkpoint)
signal.signal(signal.SIGTERM, stop)
say(event="started", steps=20, epochs=2, device="cpu", run_id=os.environ.get("MLFLOW_RUN_ID"))
print("a line for people", flush=True)
for step in range(1, 21):
    say(event="progress", step=step, steps=20, epoch=(step - 1) // 10 + 1, epochs=2, loss=1 / step)
    time.sleep(0 if resumed else {pause})
    if step % 10 == 0:
        say(event="epoch", epoch=step // 10, epochs=2, metrics={{"train_loss": 1 / step, "val_accuracy": 0.9}})
if {behaviour!r} == "fail":
    say(event="error", message="The data is missing: put it there.")
    sys.exit(2)
if {behaviour!r} == "large" and int(sys.argv[sys.argv.index("--batch-size") + 1]) > 16:
    print("tried to allocate <!channel> ``` 9 GiB", flush=True)
    say(event="error", message="The memory did not suffice.")
    sys.exit(3)
say(event="result", metrics={{"val_accuracy": 0.97}}, duration_seconds=1.0)
"""
PAUSE = {"ok": 0.01, "fail": 0.01, "large": 0.01, "slow": 0.1, "hang": 600.0}


def install(folder: Path, behaviour: str = "ok") -> tuple[Path, Path]:
    """The executable, and its ledger of starts."""
    program, ledger = folder / "trainer", folder / "starts"
    ledger.touch()
    text = _PROGRAM.format(python=sys.executable, ledger=str(ledger), behaviour=behaviour, pause=PAUSE[behaviour])
    program.write_text(text, encoding="utf-8")
    program.chmod(0o755)
    return program, ledger
