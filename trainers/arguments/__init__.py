"""What each trainer makes of each option of Trainer's: one table, by which configs are checked and the docs written."""
