"""Who may sign, who may open, and what a site accepts (docs/bundle-format.md, sections 4 and 5)."""
