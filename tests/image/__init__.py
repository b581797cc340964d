"""The Dockerfile: built, and run by a container engine."""
