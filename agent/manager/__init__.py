"""The calls to the Manager: one request in, one answer or one error of ours out.

Nothing is retried here: whoever calls knows whether and when to ask again. No other package uses
requests.
"""
