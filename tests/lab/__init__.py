"""The lab: each cause of a slow test made for real between two agents, and what they say of it."""
