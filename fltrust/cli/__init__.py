"""The `fltrust` command: typer and rich, as Flower's own. The only room that exits."""
