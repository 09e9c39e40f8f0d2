"""What people read and keep."""
