"""Writes the bytecode of all that our programs import, and fails if one of them cannot be: `python -B warm.py bot`.

In an image's last stage. Other modules of the environment get none: nobody loads them, and they weigh. The bytecode is
not checked against its source (PEP 552), since in an image neither changes.
"""

from __future__ import annotations

import importlib
import pkgutil
import py_compile
import sys

# What the programs import only when it is needed.
LATER = {
    "bot": (
        "alembic.command langchain.agents langchain_openai langgraph.checkpoint.postgres.aio "
        "langgraph.checkpoint.sqlite.aio kubernetes.aio matplotlib.backends.backend_agg matplotlib.figure mlflow "
        "mlflow.store.tracking.sqlalchemy_store mlflow.tracking psycopg sqlalchemy.dialects.postgresql.psycopg "
        "sqlalchemy.dialects.sqlite tools.engines.kubernetes.engine"
    ),
    "trainers": (
        "datasets mlflow mlflow.store.tracking.sqlalchemy_store mlflow.tracking numpy pynvml torch "
        "torch.distributed.run torch.nn.functional torchvision.datasets transformers "
        "transformers.models.auto.modeling_auto transformers.models.auto.tokenization_auto "
        "transformers.models.gpt2.modeling_gpt2 transformers.models.gpt2.tokenization_gpt2 peft"
    ),
}
OF = {"bot": ("bot", "tools"), "trainers": ("trainers",)}
NOT_IMPORTED = (".__main__", ".migrations")  # run, not imported


def main(program: str) -> None:
    """Import, then compile what that loaded."""
    sys.path.insert(0, ".")
    for name in OF[program]:
        package = importlib.import_module(name)
        for module in pkgutil.walk_packages(package.__path__, f"{name}."):
            if not any(part in module.name for part in NOT_IMPORTED):
                importlib.import_module(module.name)
    for name in LATER[program].split():
        importlib.import_module(name)
    files = {getattr(module, "__file__", None) or "" for module in list(sys.modules.values())}
    sources = sorted(file for file in files if file.startswith("/") and file.endswith(".py") and file != __file__)
    for source in sources:
        py_compile.compile(source, doraise=True, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    print(f"compiled {len(sources)} modules")


if __name__ == "__main__":
    main(sys.argv[1])
