"""How a main is started on several hosts."""
