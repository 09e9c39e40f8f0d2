"""Where artifacts come from, one module a kind; none knows another."""
