"""The command `data preview`: shows and plays the changes that training makes to recordings."""
