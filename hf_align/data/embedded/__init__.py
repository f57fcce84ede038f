"""The embedded data set: 18,504 sentences, each rated by 15 to 99 people (Hutto & Gilbert, 2014; MIT licence).

`ratings` loads sentences and votes, `rows` makes preference pairs and prompts from them. README.md beside this file
describes the data's origin and preparation.
"""
