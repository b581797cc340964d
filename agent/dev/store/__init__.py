"""What the dev Manager knows and decides: agents, tasks, exercises."""
