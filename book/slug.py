"""How a link names a heading, in Jupyter."""


def slug(heading):
    return heading.replace(" ", "-")
