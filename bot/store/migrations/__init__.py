"""Alembic migrations, applied when the store opens. `HEAD` spares an up-to-date start the import of Alembic."""

HEAD = "0009"
