import click


@click.command("hello")
def hello():
    click.echo("hello from the toys")


def figure(value=0.5):
    return {"value": value, "low": value - 1, "high": value + 1, "n": 3, "details": {"why": "told so"}}
