"""What is trained: one file a method, all behind the Protocol in base.py."""
