"""Pulumi components: what the program in `infra/__main__.py` is made of."""
