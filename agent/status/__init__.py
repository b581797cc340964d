"""What the agent does, for whoever asks over HTTP: health checks, metrics and a page for people."""
