"""The connected side: resolve a manifest, build a bundle, make a kit."""
