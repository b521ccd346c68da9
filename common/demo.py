"""All three roles on this machine, as separate processes on real sockets."""
import typer
app = typer.Typer()
