"""What each kind is: parse, check, describe. No network."""
