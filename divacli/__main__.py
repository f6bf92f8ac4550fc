"""`python -m divacli`."""

from divacli.cli.app import main

main()
