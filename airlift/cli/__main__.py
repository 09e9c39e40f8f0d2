"""``python -m airlift.cli``."""

from airlift.cli.main import main

main()
