"""These tests need torch: they run where the extra `runtime` is installed, in CI among other places."""

import importlib.util

collect_ignore_glob = [] if importlib.util.find_spec("torch") else ["test_*.py"]
