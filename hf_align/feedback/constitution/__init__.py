"""A constitution: principles by which a model criticises and revises its responses, and by which pairs are labelled."""
