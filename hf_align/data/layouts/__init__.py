"""Public layouts of preference data, recognised and converted to pairs or rankings."""
