"""`python -m triparty.common` is the `triparty` command."""

from triparty.common.cli import main

main()
