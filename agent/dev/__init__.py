"""The dev Manager: the Manager's API in one process, for demos, tests and `curl`.

After the convention of `nomad agent -dev` and `vault server -dev`: in memory, on loopback, never
for production.
"""
