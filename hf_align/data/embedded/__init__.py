"""The embedded data set: 18,504 sentences, each rated by 15 to 99 people (Hutto & Gilbert, 2014; MIT licence).

`ratings` loads sentences and votes, `rows` makes preference pairs and prompts of them. Where the data came from and how
it was made: README.md beside this file.
"""
