"""What each kind shows in the site's mirrors; none knows another."""
