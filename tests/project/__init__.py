"""The project as such: layers, documents, deployment files, the Makefile."""
