"""Profiles of the property tests: `unshrunk` fails at once, for mutants."""

from __future__ import annotations

from hypothesis import Phase, settings

settings.register_profile("unshrunk", phases=[Phase.explicit, Phase.generate])
