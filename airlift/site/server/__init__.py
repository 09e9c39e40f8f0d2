"""`airlift serve`: the protocols that stock clients speak. Handlers translate; decisions are made elsewhere."""
