"""What this computer has: devices, memory, installed releases."""
