"""The calls to the Manager: one request in, one answer or one error of ours out."""
