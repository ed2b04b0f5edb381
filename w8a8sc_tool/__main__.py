"""`python -m w8a8sc_tool` is `w8a8sc`."""

from .cli.main import main

main()
