"""The exercises' checks let the notebooks' solutions pass and name known mistakes.

A known wrong answer is the solution, as it stands in the notebook, with one piece of it
replaced: (the piece, what stands in its place, what the check must say). In RIGHT the
answer stays right, only its type is another.
"""

import pytest

pytest.register_assert_rewrite("exercises.suite")
