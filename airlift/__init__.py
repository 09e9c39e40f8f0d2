"""airlift: signed, encrypted air-gap bundles and the offline mirrors they fill.

The package is layered (see `docs/architecture.md`); `connected` and `site` are the two ends and never
import each other. Everything the command line does is also a function here.
"""

__version__ = "0.1.0"
