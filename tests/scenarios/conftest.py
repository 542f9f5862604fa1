"""Profiles of the property tests (`unshrunk` fails at once, for mutants), and a PostgreSQL server."""

from __future__ import annotations

from hypothesis import Phase, settings

from tests.integration.conftest import postgres

settings.register_profile("unshrunk", phases=[Phase.explicit, Phase.generate])

__all__ = ["postgres"]
