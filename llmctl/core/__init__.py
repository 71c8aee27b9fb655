"""What things are: frozen values, the error tree, money. Nothing in this room does I/O or reads a clock."""
