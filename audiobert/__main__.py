"""`python -m audiobert`, and so `accelerate launch -m audiobert`."""

from .cli import app

app(prog_name="audiobert")
