"""Tests of the project: layers, documents, deployment files, the Makefile."""
