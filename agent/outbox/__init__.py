"""Messages about tasks, kept until the Manager has them."""
