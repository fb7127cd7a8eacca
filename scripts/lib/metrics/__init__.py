"""Numbers from predictions; nothing here draws."""
