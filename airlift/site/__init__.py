"""The site: import bundles, serve mirrors, write a cluster's files. Works without a network."""
