"""``python -m airlift``."""

from airlift.cli.main import main

main()
