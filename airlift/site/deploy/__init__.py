"""Files and resources for a cluster."""
