"""The tests; what they share explains a failed assertion as they do themselves."""

import pytest

pytest.register_assert_rewrite("tests.helpers", "tests.promises")
