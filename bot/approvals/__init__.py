"""The use cases: load, one domain verb, commit.

Two modules on purpose. `proposing` is within an agent's reach; `deciding` holds what only a person's own hand may do
(approve, reject, edit, withdraw, cancel), and an import contract keeps the agent and the tools from reaching it.
"""
