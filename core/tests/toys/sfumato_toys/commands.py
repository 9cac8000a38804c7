import click


@click.command("hello")
def hello():
    click.echo("hello from the toys")
