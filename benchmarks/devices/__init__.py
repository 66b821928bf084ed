"""What `gpu.py` measures on a device, and how."""
