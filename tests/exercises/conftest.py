import functools

import pytest


@pytest.fixture(scope="session")
def notebook(from_notebook):
    """Return a function: what the notebook of that stem imports and defines."""
    return functools.cache(from_notebook)
