"""Client tasks: their options, what is measured, and what is seen of it while a test runs."""
