"""The HTTP calls of agents and operators."""
