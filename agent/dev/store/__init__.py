"""What the dev Manager knows and decides, without HTTP."""
